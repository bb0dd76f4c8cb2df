"""The step of a rule that weighs each gradient by its own norm: rows are added up as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from mtopt.autograd._call import SHORT
from mtopt.autograd._reach import Group, Grouping, Reach, reach_behind, reach_on_all
from mtopt.autograd._rows import make_rows
from mtopt.autograd._step import Evidence, Piece, Plan, Update, find_non_finite
from mtopt.combiners import Outcome
from mtopt.linalg import Gradients, Row, view_reals


class StreamedRows(Plan):
    """K backward passes with two gradients alive, the sum and the next, whatever K.

    Which losses reach a parameter must be known before the first row is weighed. The graph says so; callables have none
    yet, and their rows are kept.
    """

    def reach(self) -> Sequence[Reach]:
        call, batch = self.call, self.batch
        self.source, self.trunk, description = make_rows(batch, call)
        self.description = f"{description}, added up as they come: the rule weighs each by its own norm"
        found = reach_behind([batch.given[k] for k in batch.present])  # type: ignore[misc]
        self.sums: dict[int, list[torch.Tensor]] = {}  # by the group's first parameter
        self.bounds: dict[int, float] = {}  # what no entry of a sum is larger than
        reaches = [found.get(id(param), ()) for param in call.params]
        return reach_on_all(reaches, len(batch.present), call.processes)

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        for position, row in enumerate(self.source):
            self.backwards += 1
            which = [n for n, group in enumerate(grouping.shared) if position in group.reach]
            shared = [self._part(grouping.shared[n], position, row) for n in which]
            own = [(group, self._part(group, position, row)) for group in grouping.own if group.loss == position]
            row.clear()  # so that nothing but the sum holds the first
            self.round = [(grouping.shared[n], part) for n, part in zip(which, shared, strict=True)], own
            bad = find_non_finite([(position, part.gramian) for _, part in own]) if own else set()
            yield Evidence(shared, which, own=bad)

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        shared, own = self.round
        for (group, part), outcome in zip(shared, outcomes, strict=True):
            assert outcome.weights is not None
            self._add(group, part, float(outcome.weights))
        for group, part in own:
            self._add(group, part, self.own_factor(group.loss, weights))
        made = [group for group in (*grouping.shared, *grouping.own) if group.indices[0] in self.sums]
        pieces: list[Piece] = [(group.indices, self.sums[group.indices[0]]) for group in made]
        return Update(pieces, [self.bounds[group.indices[0]] for group in made])

    def _part(self, group: Group, position: int, row: Row) -> Gradients:
        places = [self.call.places[index] for index in group.indices]
        found = [(row[index], self.call.params[index]) for index in group.indices]
        return Gradients(
            [[torch.zeros_like(view_reals(param)) if gradient is None else gradient for gradient, param in found]],
            objectives=[self.batch.present[position]],
            total=len(self.batch.objectives),
            scale=self.call.scale,
            places=places,
        )

    def _add(self, group: Group, part: Gradients, weight: float) -> None:
        key = group.indices[0]
        self.bounds[key] = self.bounds.get(key, 0.0) + part.bound([weight])
        known = self.sums.get(key)
        low = any(g.dtype in SHORT for g in part.rows[0])
        if known is None and not low:
            self.sums[key] = part.combined(torch.tensor([weight], dtype=torch.float64), spend=True)
            return
        if known is None:
            known = [torch.zeros_like(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in part.rows[0]]
            self.sums[key] = known
        part.add_to(known, weight)
        part.let_go()
