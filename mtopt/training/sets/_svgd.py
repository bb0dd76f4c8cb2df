"""Several models that descend together and keep apart, by MOO-SVGD."""

from __future__ import annotations

from typing import Any

import torch

from mtopt.autograd import (
    Group,
    Piece,
    Request,
    Row,
    Step,
    StepRecord,
    direction_of,
    gradients_of,
    logged,
    non_finite,
    refusal,
    refuse_ranks,
    rows_of,
    skipped,
    trainable,
    write_pieces,
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
                ...  # as with SetTrainer

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
        assert isinstance(self.combiner, MOOSVGD)
        refuse_ranks()
        places = self._places()
        coordinates = self._coordinates(places)
        request = Request(losses_of(self, batch), places, self.precision.scaler)
        self.features = None
        count = _losses_each(request, len(coordinates))
        rows, _, plan = rows_of(request)
        step = Step.of(
            request,
            private="combined",
            trunk=None,
            strict=self.strict,
            plan=f"{plan}; MOO-SVGD mixes the gradients of {len(coordinates)} models",
        )
        groups = [
            Group(tuple(range(n * count, (n + 1) * count)), shared=True, indices=indices)
            for n, indices in enumerate(_reached(coordinates, rows))
        ]
        gradients = [gradients_of(group, rows, step) for group in groups]
        backwards = len(rows)
        rows.clear()
        reason = non_finite(groups, gradients, step)
        if reason is not None:
            return logged(skipped(reason, groups, step, backwards=backwards))
        jacobians = []
        for found in gradients:
            jacobians.append(found.jacobian())
            found.let_go()
        directions = self.combiner.of_set(step.minimised.reshape(-1, count), torch.stack(jacobians))
        pieces: list[Piece] = [
            (group.indices, direction_of(Outcome(None, direction), found, group, step))
            for group, found, direction in zip(groups, gradients, directions, strict=True)
        ]
        bad = [n for n, piece in enumerate(pieces) if refusal([piece], step) is not None]
        if bad:  # an overflow
            return logged(skipped(f"non-finite direction: models {bad}", groups, step, backwards=backwards))
        write_pieces(pieces, step)
        norms = torch.cat([found.gramian.diagonal() for found in gradients]).sqrt().tolist()
        return logged(
            StepRecord(
                losses=step.losses,
                norms=dict(zip(step.names, norms, strict=True)),
                plan=step.plan,
                backwards=backwards,
            )
        )

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

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        raise TypeError(f"{self!r} moves a set of models; train it by mtopt.training.SVGDTrainer")


def _look(param: torch.Tensor) -> tuple[Any, ...]:
    return param.shape, param.dtype, param.device


def _losses_each(request: Request, models: int) -> int:
    """How many losses each model has, once it is clear that all have the same."""
    lacking = [request.objectives[k].name for k in range(len(request.given)) if request.given[k] is None]
    if lacking:
        raise ValueError(f"losses {lacking} are None, and MOO-SVGD takes all losses of every model in every step")
    count, rest = divmod(len(request.objectives), models)
    named = [(objective.name.rpartition(" ")[0], objective.sense) for objective in request.objectives]
    if rest or named != named[:count] * models:
        raise ValueError(f"member_losses must name the same losses for each model, found {request.names}")
    return count


def _reached(coordinates: list[list[int]], rows: list[Row]) -> list[list[int]]:
    """``coordinates`` without those that no loss of any model reaches."""
    kept = [
        position
        for position, indices in enumerate(zip(*coordinates, strict=True))
        if any(row[index] is not None for index in indices for row in rows)
    ]
    return [[indices[position] for position in kept] for indices in coordinates]
