"""GeN: the learning rate from the curvature of the loss along the optimizer's own step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from mtopt._errors import CheckpointError
from mtopt._replay import graph_where_needed
from mtopt.autograd import Probe, StepRecord
from mtopt.distributed import processes_of
from mtopt.training._gradients import batches_of, losses_of
from mtopt.training.callbacks import Callback
from mtopt.training.gen._arguments import check_gen
from mtopt.training.gen._fit import Parabola, fit_parabola
from mtopt.training.gen._objective import Measured, Merit, Mix, averaged, check_mix, merit_of
from mtopt.training.gen._probe import along_update
from mtopt.training.gen._protocol import Probed
from mtopt.training.gen._search import search_scale

LONGEST_STARTUP = 100
"""Steps after which a start-up phase ends that never settled."""


class GeN(Callback):
    """The automatic learning rate of GeN: the lowest point of the parabola along the optimizer's own update.

    Let ``w - eta d`` be what ``optimizer.step()`` makes of w: momentum, Adam's preconditioning and weight decay are in
    d. To second order ``L(w - eta d) = L - eta g.d + eta^2 d.Hd / 2`` with g the gradient and H the Hessian of L, which
    is least at ``eta* = g.d / d.Hd``. Both numbers come from forward passes at a few points ``w - s eta d``. With the
    three points s = -1, 0, 1 that is ``eta* = (eta / 2) (L_- - L_+) / (L_+ - 2 L_0 + L_-)``.

    Every ``every`` steps the rate is ``smoothing * eta + (1 - smoothing) * clip(eta*, eta / 2, 2 eta)``, if the gates
    let it: the parabola opens upwards, the step descends, and R^2 exceeds ``fit``; else it stays. (A NaN or infinite
    loss halves it.) The probe leaves parameters, gradients, the optimizer's state, BatchNorm's statistics and the
    global random generators as they were, bit for bit, and every point sees the same dropout masks.

    ::

        gen = mtopt.GeN(optimizer)
        for batch in loader:
            optimizer.zero_grad()
            record = mtopt.backward(losses(batch), model.parameters(), combiner)
            gen.step(lambda: retain_loss(batch))  # after the gradients, before the step
            optimizer.step()

    In a :class:`MultiLossTrainer` it is a callback, ``callbacks=[mtopt.GeN(optimizer, objective="retain")]``; what it
    found is in each record's ``probe``.

    Probe on another batch than the step's, and a larger one where there is memory: a step lowers the loss of its own
    batch more than that of others, and passes without a graph are cheap. The first steps search the rate over orders of
    magnitude. ``docs/learning_rate.md`` has the algorithm, and measurements.

    Bu and Xu, "Gradient descent with generalized Newton's method", ICLR 2025 (arXiv 2407.02772); NGDiff (arXiv
    2410.22086) takes it every 10 steps on the retain loss. Unlike the authors' code, a probe does not advance the
    optimizer's state, and the parabola is in multiples of the update, so that groups with different rates keep their
    ratios.

    Args:
        optimizer: any of torch's but LBFGS. Its update should be proportional to its rate, as for all of them but Rprop
            and Adafactor. Step hooks registered on it run in a probe, too. Its rates now are where the search begins.
        every: steps between probes. Default: 10, NGDiff's.
        smoothing: gamma, the weight of the old rate, in [0, 1). Default: 0.9.
        points: where to measure, multiples of the update: 0, at least one positive, and three or more in all. Default:
            ``(-1, 0, 1)``. With three points the parabola is exact and R^2 is 1, so ``fit`` says something only from
            four on; ``(-2, -1, 0, 1, 2)`` is the paper's appendix's number.
        fit: what R^2 must exceed. Default: 0.99.
        objective: which loss to lower, where the closure returns several as :func:`mtopt.backward` takes them
            (callables that do not count are not run): a name, or factors by name. A maximised objective enters with its
            sign flipped. Default: the sum of all.
        startup: the search ends when so many first probes in a row were accepted within a factor 2 (after 100 steps at
            most); 0 for none. Default: 10.
        schedule: a warm-up or decay: a scheduler of ``optimizer``, made before. GeN steps it, once in each
            :meth:`step`, and multiplies its rates, relative to ``initial_lr``, with its own. Default: none.
        batches: in a trainer, the batches to probe on, taken in turn, in place of the step's own. Default: none.
        model: whose buffers a probe keeps. Default: those of a trainer's modules, else of all modules that the closure
            calls; a compiled module, or a buffer that is used outside of any module's call, needs it then.
        needs_graph: the closure differentiates inside (forces, gradient penalties), so it is run with a graph. Default:
            what a trainer says of its losses, else False.

    Attributes:
        last_probe: what the last :meth:`step` found; None if it did not probe.

    Under ``torch.distributed`` the losses are averaged over the ranks before the fit, so that every rank gets the same
    rate; every rank must call :meth:`step`. The noise of mini-batches dominates the error of eta*, O(1 / sqrt(batch)).
    Multiplying the loss by c > 0 leaves the path of SGD as it is.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        every: int = 10,
        smoothing: float = 0.9,
        points: Sequence[float] = (-1.0, 0.0, 1.0),
        fit: float = 0.99,
        objective: Mix = None,
        startup: int = 10,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        batches: Sequence[Any] | None = None,
        model: torch.nn.Module | None = None,
        needs_graph: bool = False,
    ) -> None:
        check_gen(optimizer, every, smoothing, points, fit, startup, schedule, batches)
        check_mix(objective)
        self.optimizer, self.schedule, self.model = optimizer, schedule, model
        self.needs_graph = needs_graph
        self.every, self.smoothing, self.fit, self.startup = every, smoothing, fit, startup
        self.points = tuple(float(point) for point in points)
        self.objective = objective
        self.batches = batches
        self.last_probe: Probe | None = None
        self._owner: object = None  # of buffers and generators, while a trainer's losses are probed
        groups = optimizer.param_groups
        self._base = [float(group.get("initial_lr", group["lr"])) for group in groups]
        if not any(self._base):
            raise ValueError("every learning rate of optimizer is 0, and GeN multiplies them; give it a first rate")
        self._written = self._scheduled = [float(group["lr"]) for group in groups]
        self._scale = 1.0
        self._steps = 0
        self._probes = 0
        self._settled = 0
        self._searching = startup > 0

    def step(self, closure: Callable[[], Measured]) -> Probe | None:
        """Decide the rate of the optimizer's step that comes next; ``.grad`` holds what it will take.

        Call it once a step, after clipping and ``scaler.unscale_(optimizer)``, and not for a step that is skipped.

        Args:
            closure: gives the loss with the parameters as they are: a number, a scalar, or losses as
                :func:`mtopt.backward` takes them. It runs without a graph, several times, or not at all where no probe
                is due, and must use the same batch each time; None for every loss that counts means no probe.

        Returns:
            What was found; None where no probe was due.

        Raises:
            ValueError: somebody else changed the optimizer's rates since the last call.
        """
        unit = self._unit()

        def measured() -> Merit | None:
            with graph_where_needed(self.needs_graph, "mtopt.GeN"):
                return merit_of(closure(), self.objective, unit)

        return self._step(measured)

    def get_last_lr(self) -> list[float]:
        """The rate of each parameter group, as the optimizer has it: GeN's times the schedule's factor."""
        return list(self._written)

    def on_gradients(self, trainer: Probed, batch: Any, record: StepRecord) -> None:
        """Probe the losses of the trainer's step."""
        if trainer.optimizer is not self.optimizer:
            raise ValueError("GeN was made for another optimizer than the trainer's; create it from that one")
        batches = batches_of(trainer, batch)
        if self.batches is not None:
            batches = [self.batches[self._probes % len(self.batches)]]
        unit, needs_graph = self._unit(), self.needs_graph or trainer.needs_graph

        def mean() -> Merit | None:
            with graph_where_needed(needs_graph, "the trainer"):
                merits = [merit_of(losses_of(trainer, one), self.objective, unit) for one in batches]
            present = [merit for merit in merits if merit is not None]
            if not present:
                return None
            return Merit(sum(merit.value for merit in present) / len(batches), max(merit.unit for merit in present))

        self._owner = trainer
        try:
            trainer.probe = self._step(mean)
        finally:
            self._owner = trainer.features = None

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that later rates depend on, as plain values."""
        return {
            "base": list(self._base),
            "scheduled": list(self._scheduled),
            "written": list(self._written),
            "scale": self._scale,
            "steps": self._steps,
            "probes": self._probes,
            "settled": self._settled,
            "searching": self._searching,
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a GeN of an optimizer with as many groups, and set the optimizer's rates.

        Raises:
            CheckpointError: the state is truncated, or belongs to another optimizer or schedule.
        """
        missing = [key for key in self.state_dict() if key not in state_dict]
        if missing:
            raise CheckpointError(f"state_dict of GeN lacks {missing}: it is truncated, or not what GeN returned")
        if len(state_dict["base"]) != len(self._base):
            raise CheckpointError(
                f"state_dict of GeN is for {len(state_dict['base'])} parameter groups, found {len(self._base)}; "
                "give it the optimizer that was saved"
            )
        if (state_dict["schedule"] is None) != (self.schedule is None):
            found = "none" if self.schedule is None else type(self.schedule).__name__
            raise CheckpointError(
                f"state_dict of GeN was made {'without' if state_dict['schedule'] is None else 'with'} a schedule, "
                f"found {found}; create GeN as it was"
            )
        self._base, self._scheduled = list(state_dict["base"]), list(state_dict["scheduled"])
        self._scale, self._steps, self._probes = state_dict["scale"], state_dict["steps"], state_dict["probes"]
        self._settled, self._searching = state_dict["settled"], state_dict["searching"]
        if self.schedule is not None:
            self.schedule.load_state_dict(dict(state_dict["schedule"]))
        self._written = self._write(list(state_dict["written"]))

    # -- parts --------------------------------------------------------------------------------------------------

    def _step(self, measure: Callable[[], Merit | None]) -> Probe | None:
        with processes_of():
            return self._decide(measure)

    def _decide(self, measure: Callable[[], Merit | None]) -> Probe | None:
        self._check_rates()
        if self.schedule is not None and self._steps > 0:
            self._scheduled = self._next_scheduled(self.schedule)
        self.last_probe = None
        if self._searching:
            self.last_probe = self._search(measure)
        elif self._steps % self.every == 0:
            self.last_probe = self._refine(measure)
        self._steps += 1
        self._probes += self.last_probe is not None
        self._written = self._write([self._scale * rate for rate in self._scheduled])
        return self.last_probe

    def _next_scheduled(self, schedule: torch.optim.lr_scheduler.LRScheduler) -> list[float]:
        """The schedule's next rates, made from its own last ones as if nobody had multiplied them."""
        self._write(self._scheduled)
        with warnings.catch_warnings():
            # it expects an optimizer that has stepped in this process, which one that was just loaded has not
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before", UserWarning)
            schedule.step()
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _refine(self, measure: Callable[[], Merit | None]) -> Probe:
        """One probe at the present rate, and a smoothed and clipped step towards what it says."""
        before = self._scale
        losses, parabola = self._probe(measure, before)
        if parabola.optimum is not None:
            clipped = min(max(parabola.optimum, 0.5), 2.0)
            self._scale = before * (self.smoothing + (1.0 - self.smoothing) * clipped)
        elif parabola.verdict == "not finite":
            self._scale = before / 2.0
        return self._report(losses, parabola, probed=before, before=before, count=1)

    def _search(self, measure: Callable[[], Merit | None]) -> Probe:
        """Probes at as many rates as it takes."""
        before = self._scale
        losses: list[float] = []

        def parabola_at(scale: float) -> Parabola:
            nonlocal losses
            losses, parabola = self._probe(measure, scale)
            return parabola

        found = search_scale(parabola_at, before)
        if not found.parabola.measured:
            pass  # this step says nothing of the rate
        elif found.count == 1 and found.parabola.optimum is not None:
            self._settled += 1
            self._scale += (found.scale - before) / self._settled  # the mean of the row
        else:
            self._settled = 0
            self._scale = found.scale
        self._searching = self._settled < self.startup and self._steps + 1 < LONGEST_STARTUP
        return self._report(
            losses, found.parabola, probed=found.probed, before=before, count=found.count, searching=True
        )

    def _probe(self, measure: Callable[[], Merit | None], scale: float) -> tuple[list[float], Parabola]:
        """The losses along the optimizer's update at ``scale`` times the first rates, and their parabola."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        held = [float(rate) for rate in rates]
        self._write([scale * base for base in self._base])
        try:
            owner = self._owner if self.model is None else self.model
            merits, moves = along_update(self.optimizer, measure, self.points, owner=owner)
        finally:
            self._write(held)
        *merits, moved = averaged([*merits, Merit(float(moves), 0.0)], processes_of())
        if moved is None or moved.value == 0.0:
            return [], _nothing("no update")
        present = [merit for merit in merits if merit is not None]
        if len(present) < len(self.points):
            return [], _nothing("no loss")
        losses = [merit.value for merit in present]
        unit = max(merit.unit for merit in present)
        return losses, fit_parabola(self.points, losses, least_fit=self.fit, unit=unit)

    def _report(
        self,
        losses: list[float],
        parabola: Parabola,
        *,
        probed: float,
        before: float,
        count: int,
        searching: bool = False,
    ) -> Probe:
        base = self._base[0]
        optimum = parabola.optimum
        return Probe(
            points=self.points,
            losses=tuple(losses),
            slope=parabola.slope,
            curvature=parabola.curvature,
            fit=parabola.fit,
            verdict=parabola.verdict,
            optimum=None if optimum is None else base * probed * optimum,
            previous=base * before,
            rate=base * self._scale,
            count=count,
            searching=searching,
        )

    def _write(self, rates: Sequence[float]) -> list[float]:
        """Set the optimizer's rates, those that are tensors in place. Gives them as the optimizer holds them."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _check_rates(self) -> None:
        found = [float(group["lr"]) for group in self.optimizer.param_groups]
        if found != self._written:
            raise ValueError(
                f"optimizer has the rates {found}, and GeN left it with {self._written}: something else changes them; "
                "give a scheduler to GeN as schedule=..., and load the states of both after a checkpoint"
            )

    def _unit(self) -> float:
        """The rounding error of a loss that comes as a plain number: a float64 model's, or float32's."""
        params = (param for group in self.optimizer.param_groups for param in group["params"])
        double = all(param.dtype == torch.float64 for param in params)
        return torch.finfo(torch.float64 if double else torch.float32).eps


def _nothing(verdict: Literal["no update", "no loss"]) -> Parabola:
    return Parabola(math.nan, math.nan, math.nan, verdict, rises=False, falls=False)
