"""Steps that keep K gradient rows: as they are, in one matrix, or in 16 bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence, Set

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import Call
from mtopt.autograd._reach import Group, Grouping, Reach, reach_of_rows
from mtopt.autograd._rows import make_rows
from mtopt.autograd._step import Evidence, Piece, Plan, Update, find_non_finite
from mtopt.combiners import Outcome
from mtopt.linalg import STAYS_APART, Gradients, Row, RowMatrix, cut_to_shapes, store_in_matrix, store_short, view_reals


class KeptRows(Plan):
    """K rows, and a combination of them, or the rule's own vector.

    ``rows`` are taken over: the lists are emptied, and the gradients may be written to. ``why``: no other plan was
    followed, in words.
    """

    def __init__(self, call: Call, batch: Batch, rows: Sequence[Row] = (), why: str = "") -> None:
        super().__init__(call, batch)
        self.rows, self.why = rows, why
        self.matrix: RowMatrix | None = None
        self.factors: Sequence[float] | None = None

    def reach(self) -> Sequence[Reach]:
        self.rows = self.rows or self._make_rows()
        self.backwards = self.backwards or len(self.rows)
        return reach_of_rows(self.rows, self.matrix)

    def _make_rows(self) -> list[Row]:
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
        self.gradients = [self.gradients_of(group, self.rows) for group in grouping.shared]
        self.own = OwnRows(self, grouping.own, self.rows)
        self.matrix = None
        for row in self.rows:
            row.clear()
        bad = self.on_all(self.own.find_non_finite()) if self.own.indices else set()
        yield Evidence(self.gradients, own=bad)

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
                stored = None if matrix is None else matrix.gradient(number, index, like)
                found[position] = torch.zeros_like(like) if stored is None else stored
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


class OwnRows:
    """Gradients of parameters that a single loss reaches: their losses, the parameters' indices, the gradients."""

    def __init__(self, plan: KeptRows, groups: Sequence[Group], rows: Sequence[Row]) -> None:
        self.places, self.row_factors = plan.call.places, plan.factors
        self.losses = [group.loss for group in groups for _ in group.indices]
        self.indices = [index for group in groups for index in group.indices]
        self.gradients: list[torch.Tensor] = []
        for k, index in zip(self.losses, self.indices, strict=True):
            gradient = rows[k][index]
            if gradient is None and plan.matrix is not None:
                gradient = plan.matrix.gradient(k, index, view_reals(plan.call.params[index]))
                gradient = None if gradient is None else gradient.clone()  # a view would keep the matrix
            assert gradient is not None  # the loss reaches it
            self.gradients.append(gradient)

    def find_non_finite(self) -> set[int]:
        """The losses of which a gradient is NaN or infinite."""
        return find_non_finite(list(zip(self.losses, self.gradients, strict=True)))

    def times(self, weights: Mapping[int, float]) -> list[torch.Tensor]:
        """Each times its loss's weight. The gradients are spent: big ones may be written over."""
        losses, factors = self.losses, self.row_factors
        by = {k: weights[k] if factors is None else weights[k] * factors[k] for k in set(losses)}
        # heads are many and small: in one go where they have one factor, else loss by loss
        several = len(set(by.values())) > 1
        ends = [n for n in range(1, len(losses)) if several and losses[n] != losses[n - 1]]
        parts = []
        for start, end in itertools.pairwise([0, *ends, len(losses)]):
            places = [self.places[index] for index in self.indices[start:end]]
            parts.append((by[losses[start]], Gradients([self.gradients[start:end]], places=places)))
        self.gradients = []
        return [product for factor, part in parts for product in part.combined([factor], spend=True)]

    def bound(self, weights: Mapping[int, float]) -> float:
        """What no entry of :meth:`times` is larger than: 0, for gradients that are known to be finite, where they are
        only made shorter; infinity where nobody knows."""
        longer = any(abs(weights[k]) > 1.0 for k in set(self.losses))
        return math.inf if longer or self.row_factors is not None else 0.0
