"""Multi-task problems on real data."""

from mtopt.experiments import Suite

from .distillation import Distillation
from .fairness import FairDiabetes
from .linnerud import Linnerud
from .multidigits import MultiDigits, MultiDigitsReconstruction
from .regression import Diabetes
from .three_heads import ThreeHeads

suite = Suite(
    name="multitask",
    about=(
        "Real data, two or three objectives, one shared trunk. A training ends in one point: what it does on examples "
        "that were never seen in training (linnerud, of twenty rows, is judged by its fit). The tuned static "
        "scalarization (linear) is what a rule has to beat."
    ),
    tasks=(
        MultiDigits(),
        MultiDigitsReconstruction(),
        ThreeHeads(),
        Diabetes(),
        Linnerud(),
        FairDiabetes(),
        Distillation(),
    ),
)
