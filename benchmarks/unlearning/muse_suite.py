"""MUSE in miniature as a suite: ``mtopt compare muse``."""

from mtopt.experiments import Suite

from .contestants import CONTESTANTS
from .muse_task import LargeMuse, MuseTask, SustainedMuse

suite = Suite(
    name="muse",
    about=(
        "A tiny Llama has learned articles about fictitious authors by heart, and is to forget those about some of "
        "them: one request, four times as much at once, and four requests one upon another. A model retrained without "
        "the first request says how much of it may be left: of its wording, of what it reports, and of the traces that "
        "a membership attack finds. Utility is what is known of articles that are neither forgotten nor trained on in "
        "unlearning. Every seed has its own authors and models."
    ),
    tasks=(MuseTask(), LargeMuse(), SustainedMuse()),
    combiners=("GDiff(0.5)", "GDiff(0.9)", "NGDiff", "NGDiff+GeN", "NPO+NLL", "PCGrad", "SimNPO"),
    # texts ask no question that could be refused
    contestants=tuple(
        contestant for contestant in CONTESTANTS if not str(contestant.options.get("forget")).startswith("idk")
    ),
)
