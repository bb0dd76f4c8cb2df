"""Old digits against new ones: a classifier learns parts of the data in sequence.

mtopt compare benchmarks.continual --quick
mtopt compare benchmarks.continual.scole --quick
"""

from mtopt.experiments import Contestant, Suite

from .streams import rotated_digits, split_digits
from .tasks import SequenceTask

CONTESTANTS = (
    Contestant("fine-tuning", "linear", hyperparameters={"preference": (1.0, 0.0)}, options={"memory": "none"}),
    Contestant("A-GEM", "gem", hyperparameters={"margin": 0.0}),
    Contestant("GEM", "gem", options={"memory": "each"}),
)
"""``linear`` itself is replay, with the share of what is remembered tuned, and ``ngdiff`` old against new."""

suite = Suite(
    name="continual",
    about=(
        "Five parts of the digits, learned one after another. The two objectives are the error on each part when it "
        "was just learned, and what it is at the end on the parts before the last. The rule linear is replay: it "
        "weighs the loss on new examples and that on twenty remembered ones of each old part."
    ),
    tasks=(
        SequenceTask("split_digits", "Split digits: five pairs, told apart pair by pair", split_digits),
        SequenceTask("rotated_digits", "Rotated digits: all ten, at five angles", rotated_digits),
    ),
    combiners=("fine-tuning", "linear", "ngdiff", "mgda", "A-GEM", "GEM", "CUBER"),
    contestants=(
        *CONTESTANTS,
        Contestant("CUBER", "linear", hyperparameters={"preference": (1.0, 0.0)}, options={"method": "cuber"}),
    ),
)
