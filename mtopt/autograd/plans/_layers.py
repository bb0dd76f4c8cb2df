"""The step whose inner products come from layers' inputs and output gradients: below K whole backward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch

from mtopt._losses import Batch
from mtopt.autograd._agreement import require_agreement
from mtopt.autograd._batched import NotBatchedError, batched_gradients, unit_cotangents
from mtopt.autograd._call import Call
from mtopt.autograd._layer_gramians import plain_arithmetic
from mtopt.autograd._matrix_gradients import MatrixGradients, Way
from mtopt.autograd._matrix_uses import ConvolutionUse, MatrixUse, PackedError, matrix_uses_of
from mtopt.autograd._parameter_uses import LossGraph
from mtopt.autograd._reach import (
    Edge,
    Group,
    Reach,
    losses_on_graph,
    reach_of_rows,
    reach_on_graph,
    require_dense,
    trunk_of_call,
)
from mtopt.autograd._tied_gradients import TiedGradients, costs_of, gradients_by_factors
from mtopt.autograd.plans._kept_rows import KeptRows
from mtopt.combiners import Outcome
from mtopt.linalg import (
    STAYS_APART,
    Gradients,
    InnerProducts,
    Row,
    are_finite,
    needs_double,
    split_complex,
    store_in_matrix,
)

Made = MatrixGradients | TiedGradients

FEW = 512
"""Rows of all losses together up to which they go in one batched pass: one after the other would each read the weights
for few of them."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A parameter of which no gradient is kept: its uses, its losses and how its products are had."""

    uses: Sequence[MatrixUse]
    reach: Reach
    way: Way


class Layers(KeptRows):
    """K passes to the outputs of layers, and one weight gradient of the weighted output gradients.

    Each matrix is gone about in the cheapest of three ways, see :class:`MatrixCosts`. All other parameters have rows,
    from the same passes. ``share``: of the multiplications of K kept rows, passes included.
    """

    def __init__(self, call: Call, batch: Batch, short: str = "") -> None:
        super().__init__(call, batch, why=short and f"; no gradients of a matrix are kept: {short}")
        self.losses = losses_on_graph(batch, call)
        self.reaches = reach_on_graph(self.losses, call, batch)
        self.trunk = trunk_of_call(call)
        self.matrices: dict[int, Matrix] = {}  # by the parameters' indices, those without rows
        uses = matrix_uses_of(LossGraph(self.losses), call.params)
        passes = spared = 0.0
        for index, (param, reach) in enumerate(zip(call.params, self.reaches, strict=True)):
            found = uses.get(id(param), [])
            if not found or not reach or not all(use.positions for use in found):
                continue
            costs = costs_of(found, len(reach))
            way = costs.cheapest(keep=not short) if len(reach) > 1 else "kept"
            passes += costs.kept + (1 + len(reach)) * costs.activations
            spared += costs.kept - costs[way]
            if way != "kept":
                self.matrices[index] = Matrix(found, reach, way)
        self.biases = self._find_biases()
        self.spared, self.share = spared, 1.0 - spared / passes if passes else 1.0
        self.cotangents: dict[Edge, list[torch.Tensor | None]] = {}
        self.made: dict[int, Made] = {}
        self.dtypes: dict[int, torch.dtype] = {}  # of the matrices' output gradients

    @classmethod
    def of(cls, call: Call, batch: Batch, short: str = "") -> tuple[Self | None, str]:
        """This plan, or why it cannot be followed. Where room is ``short``, K gradients are kept of no matrix."""
        if call.processes.several:
            return None, "the losses of several processes are not on one graph"
        if not batch.all_tensors:
            return None, "the losses are callables, and share no graph"
        try:
            return cls(call, batch, short), ""
        except PackedError:
            return None, "the graph does not keep the layers' inputs (activation checkpointing, or offloading)"

    @property
    def alive(self) -> int:
        """Numbers alive at once at most: rows, output gradients with a copy of the largest, and patches of images."""
        outputs, patches = [0], 0
        for matrix in self.matrices.values():
            outputs.append(len(matrix.reach) * sum(use.positions * use.height for use in matrix.uses))
            patches += sum(use.gathered for use in matrix.uses)
        pairs = enumerate(zip(self.call.params, self.reaches, strict=True))
        rows = sum(len(reach) * param.numel() for index, (param, reach) in pairs if index not in self.matrices)
        return sum(outputs) + max(outputs) + patches + rows

    def _find_biases(self) -> dict[int, ConvolutionUse]:
        """By the parameter's index, those whose gradients autograd would not make without a convolution's matrix."""
        uses = [use for matrix in self.matrices.values() for use in matrix.uses]
        by_id = {use.bias: use for use in uses if isinstance(use, ConvolutionUse) and use.bias}
        return {index: by_id[id(param)] for index, param in enumerate(self.call.params) if id(param) in by_id}

    def reach(self) -> Sequence[Reach]:
        self.rows = self._make_rows()
        self.backwards = len(self.losses)
        found = reach_of_rows(self.rows, self.matrix)
        for index, matrix in self.matrices.items():  # as rows would tell: a function may stop a gradient on the way
            came = [self.cotangents[use.edge] for use in matrix.uses]
            found[index] = tuple([k for k in matrix.reach if any(of_use[k] is not None for of_use in came)])
        return found

    def _make_rows(self) -> list[Row]:
        count, ways = len(self.losses), [matrix.way for matrix in self.matrices.values()]
        self.description = (
            f"layer by layer, {self.share:.0%} of the operations of {count} rows: {ways.count('products')} matrices by "
            f"inputs and output gradients, {ways.count('dropped')} by gradients that were dropped, "
            f"{len(self.call.params) - len(ways)} by rows{self.why}"
        )
        rows, self.matrix = store_in_matrix(self._run(), self.call.params, count, below=STAYS_APART)
        return rows

    def _run(self) -> Iterator[Row]:
        """Rows, while the gradients of the results that matrices lead to are put aside."""
        self.cotangents = {use.edge: [] for matrix in self.matrices.values() for use in matrix.uses}
        wanted = [torch.autograd.graph.GradientEdge(*edge) for edge in self.cotangents]
        without = {*self.matrices, *self.biases}
        others = [index for index in range(len(self.call.params)) if index not in without]
        inputs: list[Any] = [*wanted, *[self.call.params[index] for index in others]]
        for k, (name, found) in enumerate(zip(self.batch.names, self._passes(inputs), strict=True)):
            for cotangents, cotangent in zip(self.cotangents.values(), found, strict=False):
                cotangents.append(cotangent)
            require_dense((name,), found[len(wanted) :])
            row: Row = [None] * len(self.call.params)
            for index, gradient in zip(others, found[len(wanted) :], strict=True):
                reached = gradient is not None and k in self.reaches[index]  # a batch has zeros for the others
                row[index] = split_complex(gradient) if reached else None  # type: ignore[arg-type]
            for index, use in self.biases.items():
                seen = self.cotangents[use.edge][k] if k in self.reaches[index] else None
                row[index] = None if seen is None else seen.transpose(0, 1).flatten(1).sum(1)
            yield row
            del found, row

    def _passes(self, inputs: Sequence[Any]) -> Iterator[Sequence[torch.Tensor | None]]:
        """The gradients of each loss: all in one batched pass where that is faster and can be done."""
        count, positions = len(self.losses), [use.positions for each in self.matrices.values() for use in each.uses]
        found = self._batched_pass(inputs) if positions and count * max(positions) <= FEW else None
        if found is not None:
            yield from zip(*[[None] * count if each is None else each.unbind() for each in found], strict=True)
            return
        edges = list(self.cotangents)
        for k, loss in enumerate(self.losses):
            keep = self.batch.retain_graph or k + 1 < count
            with _listening(edges) as heard:
                found = torch.autograd.grad(loss, inputs, retain_graph=keep, allow_unused=True)
            seen = [heard.get(edge, captured) for edge, captured in zip(edges, found, strict=False)]
            yield [*seen, *found[len(edges) :]]

    def _batched_pass(self, inputs: Sequence[Any]) -> Sequence[torch.Tensor | None] | None:
        """(K, ...) for each of ``inputs``; None where it cannot be had, or where NaN of one loss spoils the others'
        zeros."""
        edges = list(self.cotangents)
        try:
            with _listening(edges, partial(_place_of, count=len(self.losses))) as heard:
                found = batched_gradients(self.losses, unit_cotangents(self.losses), inputs)
        except NotBatchedError as error:
            self.description += f"; not batched, since {error}"
            return None
        for edge, captured in zip(edges, found, strict=False):
            if captured is not None and heard.get(edge, captured.data_ptr()) != captured.data_ptr():
                self.description += "; not batched, since a result has hooks"
                return None
        if not are_finite([each for each in found if each is not None]):
            return None
        self.description += "; in one batched pass"
        return found

    def gradients_of(self, group: Group, rows: Sequence[Row]) -> Gradients:
        indices = [index for index in group.indices if index in self.matrices]
        if not indices:
            return super().gradients_of(group, rows)
        rest = [index for index in group.indices if index not in self.matrices]
        others = super().gradients_of(replace(group, indices=rest), rows) if rest else None
        with plain_arithmetic(self.losses[0]):
            made = [self._factors(index, group) for index in indices]
            gramian, in_double = self._products(made, others)
        self.made.update(zip(indices, made, strict=True))
        if others is not None:
            return others.joined(gramian, in_double=in_double)
        dtype = self._least_exact(group)
        total = len(self.batch.objectives)
        return InnerProducts(
            gramian, dtype, objectives=self.objectives(group), total=total, scale=self.call.scale, in_double=in_double
        )

    def direction_of(self, outcome: Outcome, gradients: Gradients, group: Group) -> list[torch.Tensor]:
        made = [index for index in group.indices if index in self.made]
        if not made:
            return super().direction_of(outcome, gradients, group)
        weights = outcome.weights
        assert weights is not None  # the rule weighs by inner products
        rest = [index for index in group.indices if index not in self.made]
        pieces = dict(zip(rest, gradients.combined(weights, spend=True), strict=True)) if rest else {}
        with plain_arithmetic(self.losses[0]):
            for index in made:
                pieces[index] = self.made.pop(index).combined(weights, self.call.params[index])
        direction = [pieces[index] for index in group.indices]
        require_agreement(
            direction,
            gradients.gramian,
            weights,
            scale=self.call.scale,
            dtype=self._least_exact(group),
            what="the losses' gradients",
            advice=_ADVICE,
        )
        return direction

    def _factors(self, index: int, group: Group) -> Made:
        matrix = self.matrices[index]
        found = [[self.cotangents[use.edge][k] for k in group.reach] for use in matrix.uses]
        self.dtypes[index] = min(
            [each.dtype for of_use in found for each in of_use if each is not None],
            key=lambda dtype: torch.finfo(dtype).bits,
            default=self.call.params[index].dtype,
        )
        for use in matrix.uses:
            del self.cotangents[use.edge]  # the copies will do
        return gradients_by_factors(matrix.uses, found, matrix.way, self.call.params[index].dtype)

    def _products(self, made: Sequence[Made], others: Gradients | None) -> tuple[torch.Tensor, bool]:
        """The sum of the matrices' inner products, free of the scale, and whether it was taken in float64."""
        square = self.call.scale**2
        found = torch.stack([matrix.gramian() for matrix in made]).sum(0)
        in_double = all(matrix.in_double for matrix in made)
        if not in_double and needs_double(found if others is None else found + others.gramian * square):
            found, in_double = torch.stack([matrix.gramian(exact=True) for matrix in made]).sum(0), True
        return found / square, in_double

    def _least_exact(self, group: Group) -> torch.dtype:
        """The dtype of the least exact numbers that the gradients of a group come from."""
        dtypes = {self.call.params[index].dtype for index in group.indices}
        dtypes.update(self.dtypes[index] for index in group.indices if index in self.dtypes)
        return max([view.to_real() for view in dtypes], key=lambda dtype: torch.finfo(dtype).eps)


@contextmanager
def _listening(
    edges: Sequence[Edge], note: Callable[[torch.Tensor], Any] = lambda gradient: gradient
) -> Iterator[dict[Edge, Any]]:
    """What ``note`` makes of the gradients that arrive at these places, after the hooks of tensors: autograd itself
    hands out what came before them."""
    heard: dict[Edge, Any] = {}

    def listen(edge: Edge, gradients: Sequence[torch.Tensor]) -> None:
        if gradients[edge[1]] is not None:
            heard[edge] = note(gradients[edge[1]])

    handles = [edge[0].register_prehook(partial(listen, edge)) for edge in edges]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _place_of(inside: torch.Tensor, count: int) -> int:
    """Where the numbers of a tensor inside a batch of ``count`` lie."""
    return int(torch._remove_batch_dim(inside, 1, count, 0).data_ptr())


_ADVICE = 'This is a defect of mtopt, which its authors would like to hear of; plan="loop" does without'
