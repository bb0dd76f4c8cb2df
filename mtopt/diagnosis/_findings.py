"""What is found of the gradients, and what follows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from mtopt.diagnosis._statistics import Array, Noise

PLAIN_SUM = "a plain sum"
"""What is reported where no rule is given."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The gradients in the shared parameters of one module.

    Attributes:
        name: the module's; ``parameter 3`` where bare parameters were given.
        dimensions: how many numbers they are.
        norms: (K,), the norm of each loss's gradient there.
        cosines: (K, K).
        chance: what the cosine of two random directions in so many dimensions stays within in 95 % of draws.
    """

    name: str
    dimensions: int
    norms: tuple[float, ...]
    cosines: Array
    chance: float


@dataclass(frozen=True, eq=False)
class Under:
    """What a rule, or a plain sum, makes of the gradients.

    Attributes:
        rule: its name.
        weights: one per loss; None for a rule without weights.
        norm: of its direction.
        slopes: the cosine of each loss's gradient with the direction: a loss with a negative one rises to first order.
    """

    rule: str
    weights: Mapping[str, float] | None
    norm: float
    slopes: Mapping[str, float]

    @property
    def rising(self) -> list[str]:
        """The losses that a small step raises, but for rounding."""
        return [name for name, slope in self.slopes.items() if slope < -1e-6]


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """How the gradients of K losses stand to each other; :class:`mtopt.Diagnosis` says what each attribute is."""

    names: tuple[str, ...]
    losses: Mapping[str, float]
    norms: Mapping[str, float]
    cosines: Array
    dimensions: int
    private: int
    chance: float
    batches: int
    noise: Noise | None
    layers: tuple[Layer, ...]
    rounding: tuple[str, ...]
    under: Under

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of losses, the most opposed first."""
        return sorted(combinations(range(len(self.names)), 2), key=lambda pair: float(self.cosines[pair]))

    @property
    def conflicting(self) -> list[tuple[int, int]]:
        """Pairs whose cosine is negative beyond chance, and beyond the noise where that is known."""
        return [pair for pair in self.pairs if self.cosines[pair] < -self.chance and self._is_sure(pair)]

    @property
    def undecided(self) -> list[tuple[int, int]]:
        """Pairs whose cosine is negative beyond chance, but not beyond the noise."""
        return [pair for pair in self.pairs if self.cosines[pair] < -self.chance and not self._is_sure(pair)]

    @property
    def ratio(self) -> float:
        """The longest gradient's norm over the shortest one's; infinite where one is zero."""
        least = min(self.norms.values())
        return max(self.norms.values()) / least if least > 0 else float("inf")

    def conflicting_layers(self) -> list[Layer]:
        """The layers in which some pair is opposed beyond chance, the most opposed pair first."""
        found = [layer for layer in self.layers if layer.cosines.min() < -layer.chance]
        return sorted(found, key=lambda layer: float(layer.cosines.min()))

    def _is_sure(self, pair: tuple[int, int]) -> bool:
        return self.noise is None or bool(self.noise.intervals[pair][1] < 0)
