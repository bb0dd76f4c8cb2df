"""Several models that descend together and keep apart, by MOO-SVGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from mtopt._losses import Batch
from mtopt.autograd import (
    Call,
    Evidence,
    Group,
    Grouping,
    KeptRows,
    StepRecord,
    logged,
    run_step,
    trainable,
)
from mtopt.combiners import Combiner, Outcome
from mtopt.linalg import Gradients, Place
from mtopt.pareto import moo_svgd
from mtopt.training._gradients import losses_of
from mtopt.training.sets._sets import SetTrainer

_OPTIONS = ("accumulate", "plan", "private", "store")


class SVGDTrainer(SetTrainer):
    """Trains N models on the same batches along the MOO-SVGD direction: a subclass says what the losses of one are.

    ::

        class TwoDigits(mtopt.training.SVGDTrainer):
            def member_losses(self, member, batch):
                return losses_of(member, batch)

        models = torch.nn.ModuleList(perturbed(network, seed) for seed in range(8))
        trainer = TwoDigits(models, torch.optim.Adam(models.parameters(), lr=1e-3), repulsion=0.01)
        trainer.fit(loader, epochs=10, checkpoint_dir="set")

    Each model gets the direction of :func:`mtopt.pareto.moo_svgd`, which has the formula and the source: a mixture of
    the gradients of all models, parameter by parameter. So it is no rule that weighs each model's own losses, and the
    trainer takes none. The models must be alike in their parameters, and start near each other: copies of one with
    small changes. A step takes N K backward passes, and about four times the memory of their N K gradients.

    Parameters that no loss of any model reaches keep their ``.grad``. A step in which a loss or a gradient of any model
    is NaN or infinite is skipped for all, and the record's reason names it with its model's number. The record has the
    norms of all gradients, no weights and no cosines.

    Args:
        model: a ``torch.nn.ModuleList`` of at least two models, on one device.
        optimizer: over parameters of these models, the same ones of each.
        repulsion, bandwidth: see :func:`mtopt.pareto.moo_svgd`. At 1, the default and the paper's, repulsion drives
            some models off the front; 0.01 did best of five values on VLMOP2.
        options: as for :class:`mtopt.MultiLossTrainer`, but for ``private``, ``plan``, ``store`` and ``accumulate``.

    Raises:
        TypeError: ``model`` is no ModuleList, or an option that has no meaning here.
        ValueError: fewer than two models, models that share parameters or differ in those to train, or, in a step,
            models with different losses, or without one of them.
        SolverError: in a step, see :func:`mtopt.pareto.moo_svgd`.
    """

    def __init__(
        self,
        model: torch.nn.ModuleList,
        optimizer: torch.optim.Optimizer,
        *,
        repulsion: float = 1.0,
        bandwidth: float | None = None,
        **options: Any,
    ) -> None:
        refused = [name for name in _OPTIONS if name in options]
        if refused:
            raise TypeError(
                f"SVGDTrainer keeps a gradient of each loss of each model and mixes them all; leave {refused} out"
            )
        super().__init__(model, optimizer, MOOSVGD(repulsion=repulsion, bandwidth=bandwidth), **options)
        if self.absent is not None:
            raise ValueError(
                f"absent={self.absent!r}: MOO-SVGD takes all losses of every model in every step; leave it out"
            )
        self._coordinates(self._places())

    def make_gradients(self, batch: Any) -> StepRecord:
        """The MOO-SVGD direction in ``.grad``."""
        options: dict[str, Any] = {"scaler": self.precision.scaler, "strict": self.strict, "takes_absent": False}
        options["what"] = "SVGDTrainer"
        places = self._places()
        call = Call.of(None, [place.parameter for place in places], self.combiner, **options)
        plan = MixedModels(call, Batch(losses_of(self, batch), call.scale), self._coordinates(places))
        self.features = None
        record = run_step(call, plan)
        return logged(record if record.skipped else replace(record, norms=plan.norms(), cosines=None))

    def _places(self) -> list[Place]:
        """The parameters to train."""
        return trainable([param for group in self.optimizer.param_groups for param in group["params"]])

    def _coordinates(self, places: list[Place]) -> list[list[int]]:
        """For each model its parameters to train, as positions in ``places``: the same ones in the same order."""
        at = {id(place.parameter): index for index, place in enumerate(places)}
        trained = [
            {name: at[id(param)] for name, param in member.named_parameters() if id(param) in at}
            for member in self.model
        ]
        looks = [{name: _look(places[index].parameter) for name, index in one.items()} for one in trained]
        for number, look in enumerate(looks):
            if look != looks[0]:
                differ = sorted(name for name in look.keys() | looks[0] if look.get(name) != looks[0].get(name))
                raise ValueError(
                    "model must hold models that are alike in the parameters to train, their shapes, dtypes and "
                    f"devices, and models 0 and {number} differ in {differ}; copy one model, and give the optimizer "
                    "the parameters of all"
                )
        if sum(map(len, trained)) != len(places):
            raise ValueError(
                f"optimizer holds {len(places) - sum(map(len, trained))} parameters that are in none of the models; "
                "MOO-SVGD moves models, so give it model.parameters()"
            )
        return [[one[name] for name in trained[0]] for one in trained]


class MixedModels(KeptRows):
    """The rows of all models' losses, mixed coordinate by coordinate: ``coordinates`` has each model's parameters."""

    def __init__(self, call: Call, batch: Batch, coordinates: Sequence[Sequence[int]]) -> None:
        super().__init__(call, batch)
        self.coordinates = coordinates
        self.count = _losses_each(batch, len(coordinates))

    def group(self) -> Grouping:
        """The parameters of each model, in one order, without those that no loss of any model reaches."""
        known, count = self.reach(), self.count
        self.description += f"; MOO-SVGD mixes the gradients of {len(self.coordinates)} models"
        kept = [alike for alike in zip(*self.coordinates, strict=True) if any(known[index] for index in alike)]
        models = enumerate(zip(*kept, strict=True))
        return Grouping([Group(tuple(range(n * count, (n + 1) * count)), True, list(indices)) for n, indices in models])

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        rule = self.call.rule
        assert isinstance(rule, MOOSVGD)
        jacobians = []
        for found in evidence.gradients:
            jacobians.append(found.jacobian())
            found.let_go()
        points = self.batch.signed(self.batch.present).reshape(-1, self.count)
        return [Outcome(None, direction) for direction in rule.of_set(points, torch.stack(jacobians))]

    def norms(self) -> dict[str, float]:
        """Those of all gradients."""
        found = torch.cat([gradients.gramian.diagonal() for gradients in self.gradients]).sqrt().tolist()
        return dict(zip(self.batch.names, found, strict=True))


class MOOSVGD(Combiner):
    """The settings of MOO-SVGD where a trainer has its rule, so that checkpoints know them."""

    needs = "jacobian"
    features = False
    homogeneous = False
    weighted = False

    def __init__(self, *, repulsion: float = 1.0, bandwidth: float | None = None) -> None:
        self.repulsion = repulsion
        self.bandwidth = bandwidth

    def of_set(self, points: torch.Tensor, jacobians: torch.Tensor) -> torch.Tensor:
        """The direction (N, D) of N solutions with points (N, K) and Jacobians (N, K, D)."""
        return moo_svgd(points, jacobians, repulsion=self.repulsion, bandwidth=self.bandwidth)

    def for_group(self, key: str) -> MOOSVGD:
        """The rule itself: it mixes the groups."""
        return self

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        raise TypeError(f"{self!r} moves a set of models; train it by mtopt.training.SVGDTrainer")


def _look(param: torch.Tensor) -> tuple[Any, ...]:
    return param.shape, param.dtype, param.device


def _losses_each(batch: Batch, models: int) -> int:
    """How many losses each model has, once it is clear that all have the same."""
    lacking = [batch.objectives[k].name for k in range(len(batch.given)) if batch.given[k] is None]
    if lacking:
        raise ValueError(f"losses {lacking} are None, and MOO-SVGD takes all losses of every model in every step")
    count, rest = divmod(len(batch.objectives), models)
    named = [(objective.name.rpartition(" ")[0], objective.sense) for objective in batch.objectives]
    if rest or named != named[:count] * models:
        raise ValueError(f"member_losses must name the same losses for each model, found {batch.names}")
    return count
