"""Unlearning as two-objective optimisation: fictitious authors, tiny language models, losses, metrics, a comparison.

``mtopt compare unlearning`` runs the published methods; ``--combiners`` takes any name of
:data:`mtopt_suites.unlearning.contestants.CONTESTANTS`: a method (``NPO+KL``) or a pair ``loss:rule`` (``npo:pcgrad``).
Class unlearning on digits is a suite of its own, ``mtopt_suites.unlearning.digits``.
"""

from mtopt.experiments import Suite

from .contestants import CONTESTANTS
from .tofu_task import TofuTask

suite = Suite(
    name="unlearning",
    about=(
        "A tiny Llama has learned facts about fictitious authors and is to forget four of them. A model retrained "
        "without these four is where an unlearned one should end: as useful, and with the same truth ratios on what it "
        "never saw. Every seed has its own authors and models. Contestants pair a forget loss with a rule; the tuned "
        "static scalarization (linear, on the gradient difference) is what they have to beat. NGDiff+GeN tries one "
        "setting, all others tune theirs; ngdiff tunes the weights of the two normalised gradients, too, which NGDiff "
        "leaves equal."
    ),
    tasks=(TofuTask(),),
    combiners=(
        "GDiff(0.1)",
        "GDiff(0.5)",
        "GDiff(0.9)",
        "LossNGDiff",
        "NGDiff",
        "ngdiff",
        "NGDiff+GeN",
        "PCGrad",
        "MGDA",
        "NPO+NLL",
        "npo:ngdiff",
        "SimNPO",
    ),
    contestants=CONTESTANTS,
)
