"""A step of a rule on several independent mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from mtopt.autograd._absent import Absent, without_nan
from mtopt.autograd._combine import gradients_of, groups_of, non_finite, record_of, rule_of, shared_groups, skipped
from mtopt.autograd._objective import Losses, NoLossError, Objective
from mtopt.autograd._passes import OnGraph, OnRows
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request, rows_of
from mtopt.autograd._rows import Row
from mtopt.autograd._step import Private, Step
from mtopt.autograd._weighted import keep_weights
from mtopt.combiners import Combiner
from mtopt.linalg import Place

Draws = Sequence[Losses | Callable[[], Losses]]
"""The losses of each mini-batch, or a callable that returns them: run, differentiated and freed before the next."""


def combine_draws(
    draws: Losses | Draws,
    places: Sequence[Place],
    combiner: Combiner,
    *,
    scaler: Any,
    private: Private,
    strict: bool,
    absent: Absent = None,
    retain_graph: bool = False,
) -> StepRecord:
    """K rows of each draw but the last, the rule, and one weighted backward on the last."""
    collections = [draw if absent is None else without_nan(draw) for draw in collections_of(draws, combiner)]
    count = len(collections)
    last: Request | None = None
    if combiner.kept_weights((), 0) is not None:  # the last draw is all that such a step looks at
        last = _request(collections, count - 1, places, scaler, retain_graph)
        kept = keep_weights(last, combiner, None, private, strict)
        if kept is not None:
            return kept

    requests: list[Request] = []
    rows: list[list[Row]] = []
    for number in range(count - 1):
        requests.append(_request(collections, number, places, scaler))
        rows.append(rows_of(requests[-1])[0])
        if absent is None:
            check_same(requests[0], requests[-1], number)
    last = last or _request(collections, count - 1, places, scaler, retain_graph)
    of_last = None if last.all_tensors else rows_of(last)[0]
    if absent is not None:
        _keep_common([*requests, last], [*rows, of_last or []])
    check_same(requests[0], last, count - 1)
    on_last = OnGraph(last.losses()) if of_last is None else OnRows(of_last)

    losses = len(last.present)
    plan = f"{losses} backwards on each of {count - 1} draws, and {on_last.plan} on the last"
    step = Step.of(last, private=private, trunk=None, strict=strict, plan=plan)
    groups = groups_of(on_last.reaches(step), step)
    found = [[gradients_of(group, draw, step) for group in groups] for draw in rows]
    backwards = losses * (count - 1)
    for request, gradients in [*zip(requests, found, strict=True), (last, [])]:
        seen = Step.of(request, private=private, trunk=None, strict=strict, plan=plan)
        reason = non_finite(groups if gradients else [], gradients, seen)
        if reason is not None:
            return skipped(reason, groups, seen, backwards=backwards)

    shared = shared_groups(groups, step)
    at = [next(index for index, group in enumerate(groups) if group is wanted) for wanted in shared]
    before = combiner.state_dict()  # the gradients of the last draw are known only after the rule has moved on
    weights = []
    for group, index in zip(shared, at, strict=True):
        rule = rule_of(group, shared, combiner, step)
        outcome = rule.combine_draws([draw[index] for draw in found], step.minimised[list(group.reach)])
        if outcome.weights is None:
            raise ValueError(f"{combiner!r} gave no weights for the last of its {count} draws")
        weights.append(outcome.weights)
    result = on_last.weighted(groups, shared, weights, combiner, step, retain_graph=retain_graph)
    backwards += result.backwards
    reason = result.refusal(step)
    if reason is not None:
        combiner.load_state_dict(before)
        return skipped(reason, groups, step, backwards=backwards)
    result.write(step)
    main = (shared[0], found[0][at[0]]) if shared else None
    return record_of(main, result.weights, combiner, step, backwards=backwards)


def collections_of(draws: object, combiner: Combiner) -> Sequence[Losses | Callable[[], Losses]]:
    """``draws`` itself, once it is as many collections of losses as the rule takes."""
    wanted = f"{combiner!r} takes {combiner.draws} independent mini-batches a step: losses must be a sequence of "
    wanted += f"{combiner.draws} collections, one a mini-batch, each a sequence or a mapping of losses"
    if not isinstance(draws, Sequence) or isinstance(draws, str):
        raise TypeError(f"{wanted}; found {type(draws).__name__}")
    if len(draws) != combiner.draws or not all(
        isinstance(draw, Sequence | Mapping | torch.Tensor) or callable(draw) for draw in draws
    ):
        raise ValueError(f"{wanted}; found {len(draws)}: {', '.join(type(draw).__name__ for draw in draws)}")
    return draws


def _request(
    collections: Sequence[Losses | Callable[[], Losses]],
    number: int,
    places: Sequence[Place],
    scaler: Any,
    retain_graph: bool = False,
) -> Request:
    try:
        return Request(collections[number], places, scaler, retain_graph=retain_graph)
    except (TypeError, ValueError) as error:
        error.add_note(f"in the losses of draw {number}")
        raise


def _keep_common(requests: Sequence[Request], rows: Sequence[list[Row]]) -> None:
    """Leave out of all the draws, and of their rows, what one of them lacks."""
    common = set.intersection(*[set(request.present) for request in requests])
    if not common:
        raise NoLossError("the draws have no loss in common; skip this batch")
    for made, request in zip(rows, requests, strict=True):
        made[:] = [row for k, row in zip(request.present, made, strict=False) if k in common]
        request.keep(common)


class Given(Protocol):
    """Losses of a draw: those of all objectives, and which of them are there."""

    @property
    def objectives(self) -> Sequence[Objective]: ...

    @property
    def present(self) -> Sequence[int]: ...

    @property
    def names(self) -> Sequence[str]: ...


def check_same(first: Given, other: Given, number: int) -> None:
    """Raise where draw ``number`` has other losses than the first."""
    if (first.objectives, first.present) != (other.objectives, other.present):
        raise ValueError(
            f"the draws must hold the same objectives, found {first.names} in draw 0 and {other.names} in draw {number}"
            "; give None in all of them for a loss that is absent from one"
        )
