"""The K gradients of a matrix that is a table of embeddings and a layer at once, by their factors: tied weights.

Of the layer ``Y = X W'`` comes ``H_k' X``, with X (N, m) and H_k (N, n); of the table come rows ``E_k[u]`` (m,) at the
places u that were looked up. Beside the inner products of each with itself stand those of the one with the other,

    sum_u <E_k[u], X' H_l[:, u]>

for which the rows of ``H_l' X`` at the places that were looked up are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mtopt.autograd._layer_gramians import BLOCK, TRAFFIC
from mtopt.autograd._matrix_gradients import TOUCHED_BY_PRODUCTS, MatrixCosts, MatrixGradients, Way
from mtopt.autograd._matrix_uses import MatrixUse


def costs_of(uses: Sequence[MatrixUse], count: int) -> MatrixCosts:
    """Those of a matrix by any uses; where tied weights' gradients are not kept, of table, layer and both."""
    looked_up, multiplied = _apart(uses)
    if not (looked_up and multiplied):
        return MatrixCosts.of(uses, count)
    costs, table = MatrixCosts.of(multiplied, count), MatrixCosts.of(looked_up, count)
    positions, places = sum(use.positions for use in multiplied), sum(use.positions for use in looked_up)
    both = count * places * (positions + count) * multiplied[0].width
    both += count * places * positions * TOUCHED_BY_PRODUCTS * TRAFFIC
    more = table.products + both
    return replace(costs, products=costs.products + more, dropped=costs.dropped + more)


def gradients_by_factors(
    uses: Sequence[MatrixUse], cotangents: Sequence[Sequence[torch.Tensor | None]], way: Way, dtype: torch.dtype
) -> MatrixGradients | TiedGradients:
    """Of a matrix by any uses; see :meth:`MatrixGradients.of`."""
    looked_up, multiplied = _apart(uses)
    if not (looked_up and multiplied):
        return MatrixGradients.of(uses, cotangents, way, dtype)
    found = dict(zip([use.edge for use in uses], cotangents, strict=True))
    table = MatrixGradients.of(looked_up, [found[use.edge] for use in looked_up], "products", dtype)
    layer = MatrixGradients.of(multiplied, [found[use.edge] for use in multiplied], way, dtype)
    return TiedGradients(table, layer)


def _apart(uses: Sequence[MatrixUse]) -> tuple[list[MatrixUse], list[MatrixUse]]:
    return [use for use in uses if use.indexed], [use for use in uses if not use.indexed]


class TiedGradients:
    """The sum of a table's gradients and a layer's, with the methods of :class:`MatrixGradients`."""

    def __init__(self, table: MatrixGradients, layer: MatrixGradients) -> None:
        self.table, self.layer = table, layer

    @property
    def in_double(self) -> bool:
        return self.table.in_double and self.layer.in_double

    def gramian(self, *, exact: bool = False) -> torch.Tensor:
        crossed = self._crossed(exact)
        return self.table.gramian(exact=exact) + self.layer.gramian(exact=exact) + crossed + crossed.T

    def combined(self, weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self.layer.combined(weights, like).add_(self.table.combined(weights, like))

    def _crossed(self, exact: bool) -> torch.Tensor:
        """The products of the table's gradients, in rows, with the layer's."""
        places, rows = self.table.inputs, self.table.outputs
        inputs, outputs = self.layer.inputs, self.layer.outputs
        dtype = torch.float64 if exact else torch.promote_types(rows.dtype, outputs.dtype)
        positions, count, _ = outputs.shape
        total = torch.zeros(count, count, dtype=torch.float64, device=rows.device)
        step = max(1, BLOCK // (count * max(positions, rows.shape[2])))
        for start in range(0, len(places), step):
            some = slice(start, start + step)
            chosen = outputs[:, :, places[some]].to(dtype).flatten(1)  # (N, K u)
            of_layer = (chosen.T @ inputs.to(dtype)).view(count, -1)
            of_table = rows[some].transpose(0, 1).reshape(count, -1)
            total += of_table.double() @ of_layer.double().T
        return total.cpu()
