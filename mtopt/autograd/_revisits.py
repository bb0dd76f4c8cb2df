"""A step of a rule that looks at each batch twice: at the parameters as they are, and as they were a step before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mtopt.autograd._buffers import buffers_kept
from mtopt.autograd._combine import combine_rows, groups_of, reach_of_rows, skipped
from mtopt.autograd._complex import like_reals
from mtopt.autograd._generators import Generators
from mtopt.autograd._objective import Losses, Objective, read_losses
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request, rows_of
from mtopt.autograd._rows import Row
from mtopt.autograd._step import Private, Step
from mtopt.combiners import Combiner, Outcome
from mtopt.linalg import Gradients, Place

Visited = Losses | Callable[[], Losses]
"""A callable that returns the losses of the batch, or a collection of callables."""


def combine_revisited(
    losses: Visited, places: Sequence[Place], combiner: Combiner, *, scaler: Any, private: Private, strict: bool
) -> StepRecord:
    """K rows here, K rows of the same batch at the parameters of the step before, and the rule on both.

    The second visit draws the random numbers of the first, and leaves no trace: neither in the parameters, bit for bit,
    nor in the models' buffers (running statistics), nor in the generators.
    """
    visits = _Visits(losses, combiner, [place.parameter.device for place in places])
    request = Request(visits.first(), places, scaler)
    rows, _, plan = rows_of(request)
    before: list[Row] | None = None
    if combiner.visited is not None:
        with _at(places, combiner.visited), buffers_kept():
            again = Request(visits.second(), places, scaler)
            before, _, _ = rows_of(again)  # which of the losses are there is known only now
            if (again.objectives, again.present) != (request.objectives, request.present):
                raise ValueError(
                    f"losses must be the same whenever they are run, found {request.names}, then {again.names}"
                )
        plan += "; and once more at the parameters of the step before"
    step = Step.of(request, private=private, trunk=None, strict=strict, plan=plan)
    backwards = len(rows) * (1 if before is None else 2)
    bad = [name for name, row in zip(step.names, before or rows, strict=True) if before and not _is_finite(row)]
    if bad:
        reason = f"non-finite gradient at the parameters of the step before: {', '.join(bad)}"
        return skipped(reason, groups_of(reach_of_rows(rows), step), step, backwards=backwards)
    here = [place.parameter.detach().clone() for place in places]  # before a hook steps an optimizer
    record = combine_rows(rows, _AtBoth(combiner, before, step), step)
    if not record.skipped:
        combiner.visited = here
    return replace(record, certificate=combiner.certificate, backwards=backwards)


class _Visits:
    """The losses of a batch, run twice with the same random numbers."""

    def __init__(self, losses: Visited, combiner: Combiner, devices: Sequence[torch.device]) -> None:
        self.losses, self.devices = losses, devices
        self.generators: dict[Objective | None, Generators] = {}
        if not callable(losses):
            objectives, values = read_losses(losses)
            tensors = [o.name for o, v in zip(objectives, values, strict=True) if isinstance(v, torch.Tensor)]
            if tensors:
                raise ValueError(
                    f"{combiner!r} looks at each batch twice, also at the parameters of the step before, and losses "
                    f"{tensors} are tensors, made once: give a callable that returns the losses of the batch, such as "
                    "lambda: losses(batch), or callables for each"
                )

    def first(self) -> Losses:
        return self._run(self._remembered)

    def second(self) -> Losses:
        return self._run(self._replayed)

    def _run(self, how: Callable[[Objective | None, Callable[[], Any]], Any]) -> Mapping[Objective, Any]:
        found = how(None, self.losses) if callable(self.losses) else self.losses
        pairs = zip(*read_losses(found), strict=True)
        return {objective: partial(how, objective, value) if callable(value) else value for objective, value in pairs}

    def _remembered(self, objective: Objective | None, loss: Callable[[], Any]) -> Any:
        self.generators[objective] = Generators(self.devices)
        with self.generators[objective].recorded():
            return loss()

    def _replayed(self, objective: Objective | None, loss: Callable[[], Any]) -> Any:
        with self.generators[objective].replayed():
            return loss()


class _AtBoth(Combiner):
    """Hands a rule the gradients of the second visit, too, for the same losses and parameters."""

    needs = "jacobian"

    def __init__(self, rule: Combiner, before: Sequence[Row] | None, step: Step) -> None:
        self.rule, self.before, self.step = rule, before, step
        vars(self)["stateful"] = rule.stateful

    def __repr__(self) -> str:
        return repr(self.rule)

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.rule.load_state_dict(state_dict)

    def for_group(self, key: str) -> _AtBoth:
        return _AtBoth(self.rule.for_group(key), self.before, self.step)

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        return self.rule.combine_revisited(gradients, self._before(gradients), losses)

    def _before(self, gradients: Gradients) -> Gradients | None:
        if self.before is None:
            return None
        assert gradients.places is not None
        at = {id(place.parameter): index for index, place in enumerate(self.step.places)}
        rows = []
        for objective in gradients.objectives:
            row = self.before[self.step.present.index(objective)]
            found = [(row[at[id(place.parameter)]], place.parameter) for place in gradients.places]
            rows.append(
                [torch.zeros_like(like_reals(param)) if gradient is None else gradient for gradient, param in found]
            )
        return Gradients(
            rows,
            objectives=gradients.objectives,
            total=gradients.total,
            scale=gradients.scale,
            places=gradients.places,
        )


@contextmanager
def _at(places: Sequence[Place], values: Sequence[torch.Tensor]) -> Iterator[None]:
    """The parameters with other values. They are exchanged and not copied, so that the return is exact."""
    params = [place.parameter for place in places]
    shapes = [tuple(param.shape) for param in params]
    if shapes != [tuple(value.shape) for value in values]:
        raise ValueError(
            f"params have shapes {shapes}, and those of the step before {[tuple(value.shape) for value in values]}; "
            "create one rule for each set of parameters"
        )
    here = [param.data for param in params]
    torch.clear_autocast_cache()  # it knows a parameter by its identity, not by its value
    try:
        for param, value in zip(params, values, strict=True):
            param.data = value.to(param.device, param.dtype)
        yield
    finally:
        for param, value in zip(params, here, strict=True):
            param.data = value
        torch.clear_autocast_cache()


def _is_finite(row: Row) -> bool:
    return bool(torch.stack([g.isfinite().all().cpu() for g in row if g is not None]).all())
