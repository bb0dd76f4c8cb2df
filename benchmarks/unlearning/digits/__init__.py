"""Class unlearning on scikit-learn's digits: a class, or a confusion of two classes, beside retrained models.

mtopt compare digits --combiners ngdiff pcgrad mgda
python -m mtopt_suites.unlearning.digits
"""

import mtopt
from mtopt.experiments import Contestant, Suite

from .settings import ClassForgetting, Confusion
from .task import DigitUnlearning

TASKS = (DigitUnlearning(ClassForgetting()), DigitUnlearning(Confusion()))

CONTESTANTS = (
    Contestant("fine-tuning", "linear", hyperparameters={"preference": (1.0, 0.0)}),
    Contestant("NegGrad+", "linear", hyperparameters={"preference": (0.95, 0.05)}),
    Contestant(
        "random labels", "linear", hyperparameters={"preference": (0.5, 0.5)}, options={"forget": "random_labels"}
    ),
    Contestant("SalUn", "linear", hyperparameters={"preference": (0.5, 0.5)}, options={"method": "salun"}),
    Contestant("SCRUB", "linear", hyperparameters={"preference": (1.0, 0.0)}, options={"method": "scrub"}),
    Contestant("MUNBa", "munba", options={"forget": "random_labels"}),
    *(
        Contestant(f"random_labels:{rule}", rule, options={"forget": "random_labels"})
        for rule in mtopt.list_combiners()
    ),
)
"""The published baselines, and every rule on random labels; a rule's own name means gradient ascent."""

suite = Suite(
    name="digits-unlearning",
    about=(
        "A classifier of handwritten digits is to forget a class, or labels of two classes that were swapped. The "
        "score of a run is its tug-of-war with retrained models, which never saw them: one for their accuracies on the "
        "forget, the retain and the test set. Rules are tuned by it on the validation images; in earnest there is no "
        "retrained model to tune by."
    ),
    tasks=TASKS,
    combiners=("fine-tuning", "NegGrad+", "random labels", "SalUn", "SCRUB", "mgda", "pcgrad", "ngdiff", "MUNBa"),
    contestants=CONTESTANTS,
)
