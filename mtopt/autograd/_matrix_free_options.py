"""The settings of a matrix-free step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MatrixFree:
    """How ``plan=`` makes a step whose cost does not grow with K.

    With ``d = J'w`` from one backward of the weighted losses, ``G w = J d`` is the vector of the losses' directional
    derivatives along d, and comes from one more forward. The rule keeps its weights from step to step and moves them by
    this product; the certificate in the step's record is the error of the weights that the step was made with.

    Args:
        product: ``"exact"``: a forward-mode product, about one more plain step. ``"displacement"``: one forward at
            ``x - e d`` without a graph, ``G w = (L(x) - L(x - e d)) / e``, a third of that and for any model; in
            float32 it is off by 0.1 to 1 %, of which ``w'Gw = ||d||²``, known from d, takes away the common part.
        iterations: updates of the weights in each step; each takes a backward pass and a product.
        rate: how far an update goes towards the weights that the model of the Gramian gives, in (0, 1]. 0.5 or 1
            follows a Gramian without noise faster; less averages over more mini-batches.
        displacement: for ``product="displacement"``, the share by which the weighted losses are to fall, to first
            order, from x to ``x - e d``. Default: the square root of the losses' relative precision (3.5e-4 in
            float32), which balances rounding and curvature. Under autocast to 16 bits, 0.05 or so.
        needs_graph: the losses differentiate inside (gradient penalties, forces, residuals of differential equations),
            so the second forward keeps a graph. Default: False.
    """

    product: Literal["exact", "displacement"] = "exact"
    iterations: int = 1
    rate: float = 0.2
    displacement: float | None = None
    needs_graph: bool = False

    def __post_init__(self) -> None:
        if self.product not in ("exact", "displacement"):
            raise ValueError(f"product must be 'exact' or 'displacement', found {self.product!r}")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"iterations must be a whole number >= 1, found {self.iterations!r}")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"rate must be in (0, 1], found {self.rate!r}")
        if self.displacement is not None and not 0.0 < self.displacement < 1.0:
            raise ValueError(f"displacement must be None or in (0, 1), found {self.displacement!r}")
        if self.displacement is not None and self.product == "exact":
            raise ValueError("displacement belongs to product='displacement'; leave it out of an exact product")
