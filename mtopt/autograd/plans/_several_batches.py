"""A step of a rule on several independent mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mtopt._losses import Batch, Losses, NoLossError, without_nan
from mtopt.autograd._call import Call
from mtopt.autograd._reach import Grouping, Reach, losses_on_graph, reach_of_rows, reach_on_graph
from mtopt.autograd._rows import make_rows
from mtopt.autograd._step import Evidence, Plan, Update, ask_on_columns, name_non_finite, tell_non_finite
from mtopt.autograd.plans._kept_rows import KeptRows
from mtopt.autograd.plans._weighted import WHAT, KeptWeights, realise_by_pass
from mtopt.combiners import Combiner, Outcome
from mtopt.linalg import Row

Draws = Sequence[Losses | Callable[[], Losses]]
"""The losses of each mini-batch, or a callable that returns them: run, differentiated and freed before the next."""


class SeveralBatches(KeptRows):
    """K rows of each draw but the last, the rule, and one weighted backward on the last."""

    late = True

    @classmethod
    def of_draws(cls, call: Call) -> Plan:
        """The plan for a call with several draws; where the rule keeps weights, that of the last one alone."""
        draws = [draw if call.absent is None else without_nan(draw) for draw in draws_of(call.losses, call.rule)]
        last, kept = kept_on_last(call, lambda: _read_last(draws, call))
        return kept or cls(call, draws, last)

    def __init__(self, call: Call, draws: Draws, last: Batch | None) -> None:
        self.draws: list[tuple[Batch, list[Row]]] = []
        for number in range(len(draws) - 1):
            batch = read_draw(draws, number, call)
            self.draws.append((batch, list(make_rows(batch, call)[0])))
            if call.absent is None:
                check_same(self.draws[0][0], batch, number)
        last = last or _read_last(draws, call)
        rows = [] if last.all_tensors else list(make_rows(last, call)[0])
        if call.absent is not None:
            _keep_common([*self.draws, (last, rows)])
        super().__init__(call, last, rows)
        check_same(self.draws[0][0], last, len(draws) - 1)
        count = len(last.present)
        of_last = f"{count} backwards" if self.rows else "one weighted backward"
        self.description = f"{count} backwards on each of {len(draws) - 1} draws, and {of_last} on the last"

    def reach(self) -> Sequence[Reach]:
        if self.rows:
            return reach_of_rows(self.rows)
        self.losses = losses_on_graph(self.batch, self.call)
        return reach_on_graph(self.losses, self.call, self.batch)

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        last, groups = self.batch, [*grouping.shared, *grouping.own]
        self.backwards = len(last.present) * len(self.draws)
        self.found = []
        for batch, rows in self.draws:
            self.batch = batch  # whose losses the record tells of, where the step ends here
            found = [self.gradients_of(group, rows) for group in groups]
            bad = batch.non_finite() or tell_non_finite(name_non_finite(Evidence(found), batch))
            if bad:
                yield Evidence(bad=bad)
                return
            self.found.append(found[: len(grouping.shared)])
        self.batch = last
        yield Evidence(self.found[0])

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        outcomes = []
        for number, rule in enumerate(grouping.rules):
            draws = [found[number] for found in self.found]
            losses = self.batch.signed(draws[0].objectives)
            combine = partial(rule.combine_draws, losses=losses)
            outcome = ask_on_columns(rule, draws, combine, self.call.processes)
            if outcome.weights is None:
                raise ValueError(f"{rule!r} gave no weights for the last of its {rule.draws} draws")
            outcomes.append(Outcome(outcome.weights))
        return outcomes

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        if not self.rows:
            return realise_by_pass(self, self.losses, grouping, outcomes, weights)
        self.backwards += len(self.rows)
        given = [outcome.weights for outcome in outcomes if outcome.weights is not None]
        own = self.own_factors(grouping, weights)
        given += [torch.tensor([own[group.loss]], dtype=torch.float64) for group in grouping.own]
        groups = (*grouping.shared, *grouping.own)
        rows = self.rows
        return Update(
            [(g.indices, self.gradients_of(g, rows).combined(by)) for g, by in zip(groups, given, strict=True)],
            what=WHAT,
        )


def draws_of(draws: object, rule: Combiner) -> Sequence[Any]:
    """``draws`` itself, once it is as many collections of losses as the rule takes."""
    wanted = f"{rule!r} takes {rule.draws} independent mini-batches per step: losses must be a sequence of "
    wanted += f"{rule.draws} collections, one per mini-batch, each a sequence or a mapping of losses"
    if not isinstance(draws, Sequence) or isinstance(draws, str):
        raise TypeError(f"{wanted}; found {type(draws).__name__}")
    if len(draws) != rule.draws or not all(
        isinstance(draw, Sequence | Mapping | torch.Tensor) or callable(draw) for draw in draws
    ):
        raise ValueError(f"{wanted}; found {len(draws)}: {', '.join(type(draw).__name__ for draw in draws)}")
    return draws


def kept_on_last(call: Call, read: Callable[[], Batch]) -> tuple[Batch | None, Plan | None]:
    """The last draw, where the rule may keep weights: it is all that such a step looks at; and the plan of the step."""
    if call.rule.kept_weights((), 0) is None:
        return None, None
    last = read()
    return last, KeptWeights.of(call, last)


def _read_last(draws: Draws, call: Call) -> Batch:
    return read_draw(draws, len(draws) - 1, call, retain_graph=call.retain_graph)


def read_draw(draws: Draws, number: int, call: Call, *, retain_graph: bool = False) -> Batch:
    try:
        return Batch(draws[number], call.scale, retain_graph=retain_graph, processes=call.processes)
    except (TypeError, ValueError) as error:
        error.add_note(f"in the losses of draw {number}")
        raise


def _keep_common(draws: Sequence[tuple[Batch, list[Row]]]) -> None:
    """Leave out of all the draws, and of their rows, what one of them lacks."""
    common = set.intersection(*[set(batch.present) for batch, _ in draws])
    if not common:
        raise NoLossError("the draws have no loss in common; skip this batch")
    for batch, made in draws:
        made[:] = [row for k, row in zip(batch.present, made, strict=False) if k in common]
        batch.keep(common)


def check_same(first: Batch, other: Batch, number: int) -> None:
    """Raise where draw ``number`` has other losses than the first."""
    if (first.objectives, first.present) != (other.objectives, other.present):
        raise ValueError(
            f"the draws must hold the same objectives, found {first.names} in draw 0 and {other.names} in draw {number}"
            "; give None in all of them for a loss that is absent from one"
        )
