"""SCoLe: a long sequence of pairs of digits that come back.

mtopt compare benchmarks.continual.scole --quick
"""

from mtopt.experiments import Suite

from . import CONTESTANTS
from .tasks import SCoLe

suite = Suite(
    name="scole",
    about=(
        "Two of the ten digits at a time, drawn anew every few steps, for one classifier of all ten. Fine-tuning "
        "forgets in each stage and still learns over many; rules with a memory have twenty examples of each digit."
    ),
    tasks=(SCoLe(),),
    combiners=("fine-tuning", "linear", "ngdiff", "mgda", "A-GEM", "GEM"),
    contestants=CONTESTANTS,
)
