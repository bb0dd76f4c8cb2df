"""Class unlearning with any rule of mtopt's registry, in the suite's own trainer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

import mtopt

from ..trainer import Loss, UnlearningTrainer
from .batches import PairedBatches, single_epoch
from .ensemble import Ensemble
from .methods import EPOCHS, distillation
from .settings import Points, Setting


def cross_entropy(model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean over one side of a batch."""
    return torch.nn.functional.cross_entropy(model(batch["images"]), batch["labels"])


def wrong_cross_entropy(model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The same, with the wrong labels of a forget batch."""
    return torch.nn.functional.cross_entropy(model(batch["images"]), batch["wrong_labels"])


FORGET_LOSSES: dict[str, tuple[Loss, Literal["min", "max"]]] = {
    "ascent": (cross_entropy, "max"),
    "random_labels": (wrong_cross_entropy, "min"),
}
"""What is done to the forget set: its cross-entropy is maximised, or that of wrong labels minimised."""


class DigitTrainer(UnlearningTrainer):
    """Two objectives, in the order (retain, forget), on the batches of :class:`PairedBatches`, with Adam.

    Args:
        model: a network of the ensemble; trained in place.
        combiner: any rule, or a name.
        learning_rate: of Adam.
        forget: ``"ascent"``, where the cross-entropy of the forget set is an objective to maximise (NGDiff's), or
            ``"random_labels"``, where that of wrong labels is minimised (MUNBa's and SalUn's): then no loss is ever
            negative, which some rules need.
        masks: for each parameter, what its gradient is multiplied with after the rule (SalUn's). Default: none.
        options: all others of :class:`UnlearningTrainer`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        combiner: mtopt.Combiner | str,
        *,
        learning_rate: float,
        forget: str = "ascent",
        masks: Sequence[Tensor] | None = None,
        **options: Any,
    ) -> None:
        if forget not in FORGET_LOSSES:
            raise mtopt.UnknownNameError(f"unknown forget loss {forget!r}; known names: {', '.join(FORGET_LOSSES)}")
        loss, sense = FORGET_LOSSES[forget]
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        options = {"retain": cross_entropy, **options}
        super().__init__(model, optimizer, combiner, forget=loss, forget_sense=sense, **options)
        self.masks = masks

    def on_gradients(self, batch: Any, record: mtopt.StepRecord) -> None:
        if self.masks is not None:
            for parameter, mask in zip(self.model.parameters(), self.masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad *= mask
        super().on_gradients(batch, record)

    def batch_size(self, batch: Mapping[str, Mapping[str, Tensor]]) -> int:
        """The images of one side."""
        return len(next(iter(batch.values()))["labels"])


class ScrubTrainer(DigitTrainer):
    """SCRUB step by step, see :func:`mtopt_suites.unlearning.digits.methods.scrub`: for the rule ``linear`` with the
    preference (1, 0), which takes the retain loss as it is.

    An epoch has ``steps_per_epoch`` steps on the retain set; the passes over the forget set are made before the first
    step of theirs, and are not counted as steps.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        combiner: mtopt.Combiner | str,
        *,
        learning_rate: float,
        forget_set: Points,
        order: int,
        steps_per_epoch: int,
        forget_epochs: int = 3,
        forget_batch: int = 16,
        alpha: float = 0.5,
        gamma: float = 1.0,
        temperature: float = 2.0,
        **options: Any,
    ) -> None:
        teacher = copy.deepcopy(model).requires_grad_(False)

        def divergence(model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            return distillation(teacher(batch["images"]), model(batch["images"]), temperature)

        def keep(model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            return gamma * cross_entropy(model, batch) + alpha * divergence(model, batch)

        super().__init__(model, combiner, learning_rate=learning_rate, retain=keep, **options)
        self._divergence = divergence
        self._forget_set, self._order = forget_set, order
        self._epochs, self._steps_per_epoch, self._batch = forget_epochs, steps_per_epoch, forget_batch

    def training_step(self, batch: Any) -> mtopt.StepRecord:
        epoch, place = divmod(self.step, self._steps_per_epoch)
        if place == 0 and epoch < self._epochs:
            for images, labels in single_epoch(self._forget_set, [self._order], epoch, batch_size=self._batch):
                self.optimizer.zero_grad()
                torch.autograd.backward(-self._divergence(self.model, {"images": images[0], "labels": labels[0]}))
                self.optimizer.step()
        return super().training_step(batch)


def unlearn_with_rule(
    original: Ensemble,
    setting: Setting,
    *,
    seeds: Sequence[int],
    rule: str,
    learning_rate: float,
    epochs: int = EPOCHS,
    forget: str = "ascent",
    **hyperparameters: Any,
) -> Ensemble:
    """One model after the other, as the baselines are called.

    Args:
        original, setting, seeds, learning_rate, epochs: as for :mod:`mtopt_suites.unlearning.digits.methods`.
        rule: a name in the registry.
        forget: see :class:`DigitTrainer`.
        hyperparameters: the rule's own. One with a seed gets the model's.
    """
    draws = "seed" in type(mtopt.create_combiner(rule, **hyperparameters)).hyperparameter_defaults()
    unlearned = []
    for place, seed in enumerate(seeds):
        own = {"seed": seed} if draws else {}
        combiner = mtopt.create_combiner(rule, **{**own, **hyperparameters})
        model = original.member(place)
        trainer = DigitTrainer(model, combiner, learning_rate=learning_rate, forget=forget)
        trainer.fit(PairedBatches(setting.forget, setting.retain, seed=seed), epochs=epochs)
        unlearned.append(model)
    return Ensemble(unlearned)
