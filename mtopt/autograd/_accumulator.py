"""Gradients of K losses summed over micro-batches, and then combined once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mtopt._losses import (
    Absent,
    Batch,
    LossValue,
    NoLossError,
    Objective,
    check_absent,
    check_loss,
    run_loss,
    without_nan,
)
from mtopt.autograd._backward import hints, nothing_present
from mtopt.autograd._call import Call, Params, Private, check_rule, factor_of, note_call, trainable
from mtopt.autograd._reach import agree_on_shards, refuse_reentrant, require_reach
from mtopt.autograd._record import StepRecord
from mtopt.autograd._rows import row_of
from mtopt.autograd._step import run_step
from mtopt.autograd.plans import KeptRows
from mtopt.combiners import Combiner
from mtopt.distributed import Processes, processes_of, unwrapped
from mtopt.linalg import Row


class JacobianAccumulator:
    """Gradient accumulation: the K gradients are summed over micro-batches before a rule sees them.

    A rule that normalises, projects or weighs does not commute with a sum: combining each micro-batch by itself is
    another method than combining the batch. Here raw gradients are summed, the rule is applied once, and the direction
    is added to ``.grad``::

        accumulator = mtopt.JacobianAccumulator(model.parameters(), ["retain", "forget"])
        for step, (retain, forget) in enumerate(micro_batches, start=1):
            accumulator.add("retain", loss(model, retain) / n)
            accumulator.add("forget", -loss(model, forget) / n)
            if step % n == 0:
                optimizer.zero_grad()
                record = accumulator.combine(combiner)
                optimizer.step()

    Losses and gradients are both summed, nothing is divided: a mean over n micro-batches takes each loss divided by n,
    and the record and the rules on losses then see that mean.

    Args:
        params: the parameters to fill, as :func:`mtopt.backward` takes them.
        num_objectives: how many losses there are; or their names, or :class:`Objective` for those to maximise.
        scaler: a ``torch.amp.GradScaler``, as in :func:`mtopt.backward`; its factor must stay what it is from the first
            :meth:`add` to :meth:`combine`: call ``scaler.update()`` after the optimizer's step, as always.
        absent: ``"nan"``: a loss whose value is NaN adds nothing, as None does. Default: it has the step skipped.

    It holds K gradients, in float32 for parameters of 16 bits, and no graph. There are no ``features``: every gradient
    is that of the whole model.
    """

    def __init__(
        self,
        params: Params,
        num_objectives: int | Sequence[str | Objective],
        *,
        scaler: Any = None,
        absent: Absent = None,
    ) -> None:
        check_absent(absent)
        self._absent = absent
        # an iterator would be used up by then
        self._given = params if isinstance(params, torch.nn.Module | Sequence) else None
        with processes_of(self._given) as processes:
            self._places = trainable(unwrapped(params), processes)
        self._params = [place.parameter for place in self._places]
        self.objectives = _objectives(num_objectives)
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.clear()

    def clear(self) -> None:
        """Forget what was added."""
        self._rows: dict[int, Row] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._scale: float | None = None
        self._backwards = 0
        self._lacking = False  # a loss that was added was absent by its value

    def add(self, k: int | str, loss: LossValue, *, retain_graph: bool = False) -> None:
        """Differentiate one loss of a micro-batch and add its gradient to that objective's.

        Args:
            k: the objective, by its position or its name.
            loss: a scalar tensor, or a callable that returns one. None adds nothing: an objective that no micro-batch
                has is absent from the step.
            retain_graph: keep the graph, for another loss that shares it. By default it is freed.

        Raises:
            KeyError: no such objective.
            TypeError, ValueError: no scalar with a graph, or one that reaches none of the parameters.
        """
        with processes_of(self._given) as processes:
            processes.hold(self._places)
            self._add(k, loss, retain_graph, processes)

    def _add(self, k: int | str, loss: LossValue, retain_graph: bool, processes: Processes) -> None:
        index = self._index(k)
        value = run_loss(loss)
        if self._absent is not None and value is not None:
            (value,) = without_nan([value])
            self._lacking |= value is None
        if value is None:
            return
        objective = self.objectives[index]
        given = check_loss(objective.name, value)
        refuse_reentrant([given])
        agree_on_shards([objective.name], [given], self._params, processes)
        if self._scale is None:
            self._scale = self._factor()
        factor = objective.sign * self._scale
        scaled = (given if factor == 1.0 else given * factor).reshape(())
        with hints():
            row = row_of(objective.name, scaled, self._params, retain_graph=retain_graph, processes=processes)
        require_reach(objective.name, row)
        number = given.detach().reshape(()).double()
        self._backwards += 1
        totals = self._rows.get(index, [None] * len(row))
        self._rows[index] = [_sum(total, part) for total, part in zip(totals, row, strict=True)]
        self._values[index] = self._values.get(index, 0.0) + number

    def combine(self, combiner: Combiner, *, private: Private | None = None, strict: bool = False) -> StepRecord:
        """Apply the rule to the summed gradients, add the direction to ``.grad``, and start anew.

        What was added is forgotten whatever comes of it. The step is skipped when any of the micro-batches had a NaN or
        infinite loss or gradient, and an objective that was never added is absent from it.

        Args:
            combiner: the rule; one on losses, too, whose weights then multiply the gradients.
            private, strict: as in :func:`mtopt.backward`.

        Raises:
            ValueError: nothing was added, the rule takes several mini-batches, or the scaler's factor has changed.
            NonFiniteError: in strict mode, naming the objectives.
        """
        with processes_of(self._given) as processes:
            processes.hold(self._places)
            self._check_rule(combiner, private)
            try:
                return self._combined(combiner, private, strict, processes)
            finally:
                self.clear()

    def _check_rule(self, combiner: Combiner, private: Private | None) -> None:
        check_rule(combiner, private)
        if combiner.draws > 1:
            raise ValueError(
                f"{combiner!r} takes {combiner.draws} independent mini-batches per step, and the sum of micro-batches "
                "is one; give mtopt.backward the losses of each"
            )
        if combiner.revisits:
            raise ValueError(
                f"{combiner!r} looks at each batch twice, also at the parameters of the step before, and micro-batches "
                "are gone; give mtopt.backward a callable that returns the losses of the whole batch"
            )

    def _combined(self, combiner: Combiner, private: Private | None, strict: bool, processes: Processes) -> StepRecord:
        scale = self._factor() if self._scale is None else self._scale
        if processes.several:
            note_call(processes, self._places, combiner, scale)
            processes.note("the objectives of the accumulator", [(o.name, o.sense) for o in self.objectives])
        holders = processes.count([k in self._rows for k in range(len(self.objectives))])
        present = [k for k, held in enumerate(holders) if held]
        if not present and processes.meet(self._lacking):
            return nothing_present()
        if not present:
            raise NoLossError("nothing was added since the last combine; call add(k, loss) for each loss first")
        if self._factor() != scale:
            raise ValueError(
                f"the scaler's factor was {scale:g} when the first loss was added and is {self._factor():g} now; "
                "call scaler.update() only after combine and the optimizer's step"
            )
        call = Call(
            None,
            self._places,
            self._params,
            combiner,
            scale=scale,
            scaled=self._scaler is not None,
            private=private,
            strict=strict,
            processes=processes,
        )
        if processes.several:
            self._average(processes, present, holders)
        values = torch.stack([self._values[k] for k in present]).tolist()
        plan = KeptRows(call, Batch.of_values(self.objectives, present, values), [self._rows[k] for k in present])
        plan.description = f"{self._backwards} backwards accumulated, {len(present)} gradients combined"
        plan.backwards = self._backwards
        return run_step(call, plan)

    def _average(self, processes: Processes, present: Sequence[int], holders: Sequence[int]) -> None:
        """Replace the rows and the losses of this process by the means over those that have them."""
        numbers = processes.sum_numbers([float(self._values.get(k, 0.0)) for k in present])
        self._values = {
            k: torch.tensor(number / holders[k], dtype=torch.float64)
            for k, number in zip(present, numbers, strict=True)
        }
        mine = iter([(self.objectives[k].name, self._rows.pop(k, [None] * len(self._params))) for k in present])
        sums = [_sum(None, torch.zeros((), dtype=p.dtype, device=p.device)).expand(p.shape) for p in self._params]  # type: ignore[union-attr]
        for k, (_, row) in zip(present, processes.sum_rows(mine, sums), strict=True):
            torch._foreach_div_([gradient for gradient in row if gradient is not None], holders[k])
            self._rows[k] = row

    def _factor(self) -> float:
        return factor_of(self._scaler, self._params[0].device)[0]

    def _index(self, k: int | str) -> int:
        names = [objective.name for objective in self.objectives]
        if isinstance(k, str) and k in names:
            return names.index(k)
        if isinstance(k, int) and not isinstance(k, bool) and 0 <= k < len(names):
            return k
        raise KeyError(f"no objective {k!r}: k must be a position below {len(names)} or one of {names}")


def _objectives(given: int | Sequence[str | Objective]) -> list[Objective]:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 1:
        return [Objective(f"loss_{k}") for k in range(given)]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ValueError(f"num_objectives must be a number >= 1, or a sequence of names or Objective, found {given!r}")
    objectives = [entry if isinstance(entry, Objective) else Objective(entry) for entry in given]
    if len({objective.name for objective in objectives}) < len(objectives):
        raise ValueError(f"num_objectives must hold distinct names, found {[o.name for o in objectives]}")
    return objectives


def _sum(total: torch.Tensor | None, part: torch.Tensor | None) -> torch.Tensor | None:
    """``total + part`` in place, in float32 at least; None is a zero that nobody needs to hold."""
    if part is None:
        return total
    if total is None:  # copied: autograd may hand out the same or an expanded tensor twice
        return part.detach().to(torch.promote_types(part.dtype, torch.float32), copy=True)
    return total.add_(part)
