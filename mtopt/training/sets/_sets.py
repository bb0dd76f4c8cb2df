"""Several models trained together, so that as a set they cover the front."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from mtopt._losses import Losses, LossValue, Objective, read_losses
from mtopt.combiners import LossCombiner
from mtopt.pareto import hypervolume_weights
from mtopt.training._trainer import MultiLossTrainer


class HypervolumeGradient(LossCombiner):
    """Hypervolume-gradient ascent: weights that make the hypervolume of N models grow, all of them in one step.

    A rule over N K losses, model by model: first the K losses of model 0, then those of model 1. The weights are those
    of :func:`mtopt.pareto.hypervolume_weights`, which has the formula and the sources; one backward of their weighted
    sum trains all the models. :class:`SetTrainer` feeds it so, and any other loop may: N solutions that are the rows
    of one tensor, say.

    Args:
        reference: (K,), worse than what the models are to reach, in the losses' units (minimised).
        fronts, normalize, stretch: see :func:`mtopt.pareto.hypervolume_weights`. With ``normalize``, the default, each
            model gets weights of norm one, whatever it adds to the volume: let the learning rate decay.

    No loss may be absent from a batch. A loss that is NaN makes the step a skipped one for all models, as ever.
    """

    homogeneous = False
    symmetric = False

    def __init__(
        self,
        *,
        reference: Sequence[float] | torch.Tensor,
        fronts: bool = True,
        normalize: bool = True,
        stretch: float = 1.1,
    ) -> None:
        if torch.as_tensor(reference).ndim != 1 or len(reference) < 2:
            raise ValueError(f"reference must hold one value for each of two or more objectives, found {reference!r}")
        self.reference = reference
        self.fronts = fronts
        self.normalize = normalize
        self.stretch = stretch

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The weights (N K,) of losses (N K,)."""
        count = len(self.reference)
        total = self.objectives_of_rows(len(losses))[1]
        if len(losses) % count or len(losses) != total:
            raise ValueError(
                f"HypervolumeGradient with a reference of {count} objectives takes {count} losses of every model, "
                f"found {len(losses)} of {total} losses; give all of them in every step"
            )
        found = hypervolume_weights(
            losses.detach().reshape(-1, count),
            self.reference,
            fronts=self.fronts,
            normalize=self.normalize,
            stretch=self.stretch,
        )
        return found.flatten().to(losses)


class SetTrainer(MultiLossTrainer):
    """Trains N models on the same batches: a subclass says what the losses of one of them are.

    ::

        class TwoDigits(mtopt.training.SetTrainer):
            def member_losses(self, member, batch):
                image, left, right = batch
                features = member.trunk(image)
                return {
                    "left": cross_entropy(member.left(features), left),
                    "right": cross_entropy(member.right(features), right),
                }

        models = torch.nn.ModuleList(build(seed) for seed in range(8))
        optimizer = torch.optim.Adam(models.parameters(), lr=1e-3)
        rule = mtopt.training.HypervolumeGradient(reference=[2.5, 2.5])
        trainer = TwoDigits(models, optimizer, rule)
        trainer.fit(loader, epochs=10, checkpoint_dir="set")
        trainer.points(validation)  # (8, 2), minimised

    The losses of the step are named ``"left 0"``, ``"right 0"``, ``"left 1"``, ... Everything else is as with any
    :class:`mtopt.MultiLossTrainer`: checkpoints, callbacks, precision, the history. Memory holds the graphs of all
    models at once. Start the models from different parameters: copies that are equal stay equal.

    Args:
        model: a ``torch.nn.ModuleList`` of at least two models.
        optimizer, combiner, options: as for :class:`mtopt.MultiLossTrainer`; the rule sees the losses of all models.

    Raises:
        TypeError: ``model`` is no ModuleList.
        ValueError: it holds fewer than two models, or models that share parameters.
    """

    model: torch.nn.ModuleList

    def __init__(self, model: torch.nn.ModuleList, *args: Any, **options: Any) -> None:
        if not isinstance(model, torch.nn.ModuleList):
            raise TypeError(
                f"model must be a torch.nn.ModuleList, found {type(model).__name__}; make one of the models to train"
            )
        if len(model) < 2:
            raise ValueError(f"model must hold at least two models to make a set, found {len(model)}")
        held = [id(param) for member in model for param in member.parameters()]
        if len(held) != len(set(held)):
            raise ValueError("model must hold models of their own, found parameters that two share; use copy.deepcopy")
        super().__init__(model, *args, **options)

    @abstractmethod
    def member_losses(self, member: torch.nn.Module, batch: Any) -> Losses:
        """The losses of one model, as :meth:`mtopt.MultiLossTrainer.losses` gives them; the same for each model."""

    def losses(self, batch: Any) -> dict[Objective, LossValue]:
        """The losses of all models, model by model, each under its name and its model's number."""
        every: dict[Objective, LossValue] = {}
        for number, member in enumerate(self.model):
            objectives, losses = read_losses(self.member_losses(member, batch))
            for objective, loss in zip(objectives, losses, strict=True):
                every[Objective(f"{objective.name} {number}", objective.sense)] = loss
        return every

    def points(self, data: Iterable[Any] | None = None, objectives: Sequence[str | Objective] | None = None) -> Any:
        """What :meth:`evaluate` finds for each model: (N, K) float64, minimised, one row per model.

        Args:
            data: batches; none where ``member_losses`` takes none.
            objectives: names of the metrics without the model's number; an :class:`mtopt.Objective` for one to
                maximise. Default: all metrics, as ``losses`` names them, to minimise.
        """
        values = self.evaluate(data)
        if objectives is None:
            objectives = list(dict.fromkeys(name.rpartition(" ")[0] for name in values))
        chosen = [one if isinstance(one, Objective) else Objective(one) for one in objectives]
        rows = [[values[f"{one.name} {number}"] * one.sign for one in chosen] for number in range(len(self.model))]
        return torch.tensor(rows, dtype=torch.float64)
