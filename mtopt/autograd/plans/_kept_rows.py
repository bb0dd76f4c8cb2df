"""Steps that keep K gradient rows: as they are, in one matrix, or in 16 bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Self

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import Call
from mtopt.autograd._reach import Group, Grouping, Reach, reach_of_rows
from mtopt.autograd._rows import make_rows
from mtopt.autograd._step import Evidence, Piece, Plan, Update, find_non_finite
from mtopt.combiners import Outcome
from mtopt.linalg import (
    STAYS_APART,
    Gradients,
    Place,
    Row,
    RowMatrix,
    cut_to_shapes,
    store_in_matrix,
    store_short,
    view_reals,
)


class KeptRows(Plan):
    """K rows, and a combination of them, or the rule's own vector.

    ``rows`` are taken over: the lists are emptied, and the gradients may be written to. ``why``: no other plan was
    followed, in words.
    """

    def __init__(self, call: Call, batch: Batch, rows: list[Row] | None = None, why: str = "") -> None:
        super().__init__(call, batch)
        self.rows, self.why = rows, why
        self.matrix: RowMatrix | None = None
        self.factors: Sequence[float] | None = None

    def reach(self) -> Sequence[Reach]:
        if self.rows is None:
            self.rows = self._make_rows()
        self.backwards = self.backwards or len(self.rows)
        return reach_of_rows(self.rows, self.matrix)

    def _make_rows(self) -> list[Row]:
        """The rows, in the form that they are kept in."""
        call, batch, count = self.call, self.batch, len(self.batch.present)
        batched = call.plan == "batched"
        source, self.trunk, self.description = make_rows(batch, call, batched=batched)
        self.description += self.why
        if isinstance(call.store, torch.dtype):
            rows, self.factors = store_short(source, call.store)
            self.description += f"; kept in {str(call.store).removeprefix('torch.')}"
        elif call.rule.needs == "jacobian" and not batched:
            rows, self.matrix = store_in_matrix(source, call.params, count, scale=call.scale)
            self.factors = [call.scale] * len(rows)
        elif batch.all_tensors and not batched:  # of losses in turn each graph is gone before the next: no holes
            rows, self.matrix = store_in_matrix(source, call.params, count, below=STAYS_APART)
        else:
            rows = list(source)
        return rows

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        assert self.rows is not None
        self.gradients = [self.gradients_of(group, self.rows) for group in grouping.shared]
        self.own = OwnRows.of(grouping.own, self.rows, self)
        self.matrix = None
        for row in self.rows:
            row.clear()
        own = self.own.find_non_finite()
        yield Evidence(self.gradients, own=self.on_all(own) if self.own.indices else own)

    def on_all(self, found: Set[int]) -> Set[int]:
        """The losses that any of the processes has found something of, where each has looked at its own shards."""
        processes = self.call.processes
        if processes.shards is None:
            return found
        counts = processes.count([k in found for k in range(len(self.batch.present))])
        return {k for k, count in enumerate(counts) if count}

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        pieces: list[Piece] = []
        bounds: list[float] = []
        for group, outcome, found in zip(grouping.shared, outcomes, self.gradients, strict=True):
            known = outcome.weights is not None and outcome.direction is None
            bounds.append(found.bound(outcome.weights) if known else math.inf)  # type: ignore[arg-type]
            pieces.append((group.indices, self.direction_of(outcome, found, group)))
        if self.own.indices:
            factors = self.own_factors(grouping, weights)
            bounds.append(self.own.bound(factors))
            pieces.append((self.own.indices, self.own.times(factors)))
        return Update(pieces, bounds)

    def gradients_of(self, group: Group, rows: Sequence[Row]) -> Gradients:
        """The rows of a group, with zeros where a loss does not reach."""
        batch = self.batch
        places = [self.call.places[index] for index in group.indices]
        whole = self.matrix is not None and len(group.reach) == len(rows)
        packed = self.matrix.packed(group.indices, places) if self.matrix and whole else ()
        return Gradients(
            [self._without_gaps(k, rows, group.indices, packed=bool(packed)) for k in group.reach],
            objectives=self.objectives(group),
            total=len(batch.objectives),
            scale=self.call.scale,
            places=places,
            factors=None if self.factors is None else [self.factors[k] for k in group.reach],
            packed=packed,
        )

    def _without_gaps(self, number: int, rows: Sequence[Row], indices: Sequence[int], *, packed: bool) -> Row:
        """A part of a row without gaps; ``packed``: but for what lies in the matrix."""
        row, matrix = rows[number], self.matrix
        found = [row[index] for index in indices]
        for position, index in enumerate(indices):
            if found[position] is None and not (packed and matrix is not None and index in matrix.columns):
                like = view_reals(self.call.params[index])
                stored = matrix is not None and matrix.has(number, index)
                found[position] = matrix.gradient(number, index, like) if stored else torch.zeros_like(like)  # type: ignore[union-attr]
        return found

    def direction_of(self, outcome: Outcome, gradients: Gradients, group: Group) -> list[torch.Tensor]:
        """A tensor for each parameter of the group, with the scale that ``.grad`` has. The gradients are spent."""
        if outcome.direction is None:
            assert outcome.weights is not None
            return gradients.combined(outcome.weights, spend=True)
        gradients.let_go()
        direction = outcome.direction
        if gradients.scale != 1.0:
            direction = direction * gradients.scale
        # copied: a view would keep the whole vector alive, and in-place work on one .grad must not reach another
        params = [view_reals(self.call.params[index]) for index in group.indices]
        pieces = cut_to_shapes(direction, [param.shape for param in params])
        return [piece.to(param.dtype, copy=True) for piece, param in zip(pieces, params, strict=True)]


@dataclass(slots=True)
class OwnRows:
    """Gradients of parameters that a single loss reaches: their losses, the parameters' indices, the gradients."""

    places: Sequence[Place]
    row_factors: Sequence[float] | None
    losses: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, groups: Sequence[Group], rows: Sequence[Row], plan: KeptRows) -> Self:
        own = cls(plan.call.places, plan.factors)
        for group in groups:
            for index in group.indices:
                gradient = rows[group.loss][index]
                if gradient is None:  # a copy, since a view would keep the matrix
                    assert plan.matrix is not None
                    gradient = plan.matrix.gradient(group.loss, index, view_reals(plan.call.params[index])).clone()
                own.losses.append(group.loss)
                own.indices.append(index)
                own.gradients.append(gradient)
        return own

    def find_non_finite(self) -> set[int]:
        """The losses of which a gradient is NaN or infinite."""
        return find_non_finite(list(zip(self.losses, self.gradients, strict=True))) if self.losses else set()

    def times(self, weights: Mapping[int, float]) -> list[torch.Tensor]:
        """Each times its loss's weight. The gradients are spent: big ones may be written over."""
        factors = self.row_factors
        by = {k: weights[k] if factors is None else weights[k] * factors[k] for k in set(self.losses)}
        # heads are many and small: in one go where they have one factor, else loss by loss
        runs = [range(len(self.losses))] if len(set(by.values())) == 1 else _runs(self.losses)
        parts = [
            (
                by[self.losses[run[0]]],
                Gradients(
                    [self.gradients[run.start : run.stop]],
                    places=[self.places[index] for index in self.indices[run.start : run.stop]],
                ),
            )
            for run in runs
        ]
        self.gradients = []
        return [product for factor, part in parts for product in part.combined([factor], spend=True)]

    def bound(self, weights: Mapping[int, float]) -> float:
        """What no entry of :meth:`times` is larger than: 0, for gradients that are known to be finite, where they are
        only made shorter; infinity where nobody knows."""
        longer = any(abs(weights[k]) > 1.0 for k in set(self.losses))
        return math.inf if longer or self.row_factors is not None else 0.0


def _runs(values: Sequence[int]) -> list[range]:
    """Where equal neighbours stand."""
    ends = [n for n in range(1, len(values)) if values[n] != values[n - 1]]
    return [range(start, end) for start, end in itertools.pairwise([0, *ends, len(values)])]
