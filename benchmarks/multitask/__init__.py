"""Multi-task problems on real data."""

from mtopt.experiments import Suite

from .multidigits import MultiDigits

suite = Suite(
    name="multitask",
    about=(
        "Real data, two tasks, one shared trunk. Every training ends in one point: the error rates of its two tasks on "
        "digits that were never seen in training. The tuned static scalarization (linear) is what a rule has to beat."
    ),
    tasks=(MultiDigits(),),
)
