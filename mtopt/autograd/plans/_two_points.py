"""A step of a rule that looks at each batch twice: at the parameters as they are, and as they were a step before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from mtopt._losses import Batch, Losses, Objective, read_losses
from mtopt._replay import Generators, buffers_kept
from mtopt.autograd._call import Call
from mtopt.autograd._reach import Grouping
from mtopt.autograd._rows import make_rows
from mtopt.autograd._step import Evidence, ask_on_columns
from mtopt.autograd.plans._kept_rows import KeptRows
from mtopt.combiners import Combiner, Outcome
from mtopt.distributed import Shards
from mtopt.linalg import Gradients, Row, are_finite, view_shard


class TwoPoints(KeptRows):
    """K rows here, K rows of the same batch at the parameters of the step before, and the rule on both.

    The second visit draws the random numbers of the first, and leaves no trace: neither in the parameters, bit for bit,
    nor in the models' buffers (running statistics), nor in the generators.
    """

    def __init__(self, call: Call) -> None:
        visits = _Visits(call)
        batch = Batch(visits.run(again=False), call.scale, processes=call.processes)
        source, _, self.description = make_rows(batch, call)
        rows = list(source)
        self.before: list[Row] | None = None
        if call.rule.visited is not None:
            with _at(call, call.rule.visited), buffers_kept():
                again = Batch(visits.run(again=True), call.scale, processes=call.processes)
                self.before = list(make_rows(again, call)[0])
                if (again.objectives, again.present) != (batch.objectives, batch.present):  # known only now
                    raise ValueError(
                        f"losses must be the same whenever they are run, found {batch.names}, then {again.names}"
                    )
            self.description += "; and once more at the parameters of the step before"
        super().__init__(call, batch, rows)
        self.backwards = len(rows) * (1 if self.before is None else 2)

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        bad = {k for k, row in enumerate(self.before or ()) if not are_finite([g for g in row if g is not None])}
        if names := [self.batch.names[k] for k in sorted(self.on_all(bad))]:
            yield Evidence(bad=f"non-finite gradient at the parameters of the step before: {', '.join(names)}")
            return
        yield from super().evidence(grouping)

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        # before a hook steps an optimizer
        self.here = [view_shard(param).detach().clone() for param in self.call.params]
        outcomes = []
        for rule, group, found in zip(grouping.rules, grouping.shared, evidence.gradients, strict=True):
            before = [] if self.before is None else [self.gradients_of(group, self.before)]
            combine = partial(_combine, rule, self.batch.signed(found.objectives))
            outcomes.append(ask_on_columns(rule, [found, *before], combine, self.call.processes))
        return outcomes

    def note_written(self, grouping: Grouping) -> None:
        self.call.rule.visited = self.here
        self.call.rule.owners.note_visited(self.call.params)


def _combine(rule: Combiner, losses: torch.Tensor, points: Sequence[Gradients]) -> Outcome:
    return rule.combine_revisited(points[0], points[1] if len(points) > 1 else None, losses)


class _Visits:
    """The losses of a batch, run twice with the same random numbers."""

    def __init__(self, call: Call) -> None:
        self.losses, self.devices = call.losses, [param.device for param in call.params]
        self.some = not call.processes.several  # else another may have them
        self.generators: dict[Objective | None, Generators] = {}
        if not callable(self.losses):
            objectives, values = read_losses(self.losses, some=self.some)
            tensors = [o.name for o, v in zip(objectives, values, strict=True) if isinstance(v, torch.Tensor)]
            if tensors:
                raise ValueError(
                    f"{call.rule!r} looks at each batch twice, also at the parameters of the step before, and losses "
                    f"{tensors} are tensors, made once: give a callable that returns the losses of the batch, such as "
                    "lambda: losses(batch), or callables for each"
                )

    def run(self, *, again: bool) -> Losses:
        how = partial(self._run_one, again)
        found = how(None, self.losses) if callable(self.losses) else self.losses
        pairs = zip(*read_losses(found, some=self.some), strict=True)
        return {objective: partial(how, objective, value) if callable(value) else value for objective, value in pairs}

    def _run_one(self, again: bool, objective: Objective | None, loss: Callable[[], Any]) -> Any:
        if not again:
            self.generators[objective] = Generators(self.devices)
        generators = self.generators[objective]
        with generators.replayed() if again else generators.recorded():
            return loss()


@contextmanager
def _at(call: Call, values: Sequence[torch.Tensor]) -> Iterator[None]:
    """The parameters with other values, and then as they were, to the last bit."""
    params = [view_shard(param) for param in call.params]
    shapes = [tuple(param.shape) for param in params]
    if shapes != [tuple(value.shape) for value in values]:
        raise ValueError(
            f"params have shapes {shapes}, and those of the step before {[tuple(value.shape) for value in values]}; "
            "create one rule for each set of parameters"
        )
    shards = call.processes.shards
    here = [param.data if shards is None else param.detach().clone() for param in params]
    torch.clear_autocast_cache()  # it knows a parameter by its identity, not by its value
    try:
        _set(params, values, shards)
        yield
    finally:
        _set(params, here, shards)
        torch.clear_autocast_cache()


def _set(params: Sequence[torch.Tensor], values: Sequence[torch.Tensor], shards: Shards | None) -> None:
    """Exchange the memory of parameters; overwrite that of shards, which are gathered from it."""
    if shards is not None:
        shards.release()  # what is gathered already is of before
    with torch.no_grad():
        for param, value in zip(params, values, strict=True):
            if shards is None:
                param.data = value.to(param.device, param.dtype)
            else:
                param.copy_(value)
