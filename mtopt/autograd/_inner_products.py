"""Gradients of which only the inner products are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch

from mtopt.combiners import Combiner
from mtopt.linalg import Gradients, Place


class InnerProducts(Gradients):
    """K gradients that were never made: their Gramian (K, K), float64 on the CPU, free of any scale.

    ``dtype`` is that of the least exact numbers they would be made of, by which a rule judges what is noise.
    """

    def __init__(self, gramian: torch.Tensor, places: Sequence[Place], dtype: torch.dtype) -> None:
        super().__init__([[torch.empty(0, dtype=dtype)] for _ in gramian], places=places)
        self.gramian = gramian

    def jacobian(self) -> NoReturn:
        """There is none."""
        raise TypeError("the gradients of single instances are never made, only their inner products are known")

    def combined(self, weights: torch.Tensor | Sequence[float], *, spend: bool = False) -> NoReturn:
        """There is nothing to combine: a weighted backward makes the sum."""
        self.jacobian()


def require_gramian_rule(combiner: Combiner) -> None:
    """Raise unless ``combiner`` answers with weights for inner products, norms or losses."""
    if not isinstance(combiner, Combiner):
        hint = f"; mtopt.create_combiner({combiner!r}) makes one" if isinstance(combiner, str) else ""
        raise TypeError(f"combiner must be a Combiner, found {type(combiner).__name__}{hint}")
    if combiner.draws > 1:
        raise ValueError(f"{combiner!r} takes {combiner.draws} mini-batches a step, and instances are those of one")
    if combiner.needs == "jacobian" or not combiner.weighted:
        raise ValueError(
            f"{combiner!r} works on the coordinates of the gradients, which are never made for single instances; take "
            "a rule on inner products, norms or losses (mtopt.list_combiners(needs='gramian')), or give "
            "mtopt.backward(list(losses), ...) a backward a loss"
        )
