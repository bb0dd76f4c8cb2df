"""What there is to draw of a front, in the plane and in space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.rule_style import Style


@dataclass(frozen=True)
class FrontScene:
    """The checked arguments of a figure of K = 2 or 3 objectives.

    Attributes:
        points: for each rule its seeds, (N, K) each.
        centres: for each rule the points that are drawn boldly, (N, K): all of them, or their means over seeds.
        front: the pieces of the true front.
        reference: the reference point, (1, K).
    """

    points: Mapping[str, Sequence[FloatArray]]
    centres: Mapping[str, FloatArray]
    front: Sequence[FloatArray]
    reference: FloatArray | None
    labels: Sequence[str]
    looks: Mapping[str, Style]
