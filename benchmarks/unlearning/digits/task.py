"""Class unlearning as a task that rules are compared on: nearness to a retrained model, whose score is tug-of-war."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

import mtopt
from mtopt.experiments import Budget, Task

from .batches import PairedBatches
from .ensemble import Ensemble, Training, reference
from .methods import saliency
from .metrics import accuracies, attacks, means
from .rules import DigitTrainer, ScrubTrainer
from .settings import Setting

FORGET_GAP, UTILITY_GAP = "forget gap", "utility gap"

REFERENCE_SEEDS = range(10_000, 10_016)
"""Of the retrained models whose mean accuracies are what is to be reached."""


class DigitUnlearning(Task):
    """Unlearn a part of the digits, starting from a model trained on all of them.

    With the accuracies a of the model and a* of 16 retrained ones (their mean), on the forget, retain and test set, the
    objectives are the **forget gap** ``|a_f - a_f*|`` and the **utility gap**
    ``1 - (1 - |a_r - a_r*|)(1 - |a_t - a_t*|)``. The hypervolume of one point at (1, 1), the score of a run, is
    therefore :func:`tug_of_war`. On the validation split, the validation images stand for the test images.

    Every seed starts from a model of its own. All that is trained before is cached.

    Args:
        setting: what is to be forgotten.
        training: of the original and the retrained models.
        cache_dir: see :func:`reference`.
        budget, quick_budget: see :class:`mtopt.experiments.Budget`. An epoch is 16 steps.
    """

    objectives = (mtopt.Objective(FORGET_GAP), mtopt.Objective(UTILITY_GAP))
    labels = ("forget gap (difference of accuracy to retrained)", "utility gap (retain and test accuracy)")
    reference_point = (1.0, 1.0)
    learning_rates = (1e-4, 3e-2)
    budget = Budget(steps=160, trials=12, seeds=5)
    quick_budget = Budget(steps=80, trials=2, seeds=3)

    def __init__(
        self,
        setting: Setting,
        *,
        training: Training | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        budget: Budget | None = None,
        quick_budget: Budget | None = None,
    ) -> None:
        self.setting = setting
        self.training = training or Training()
        self.name, self.title = setting.name, setting.title
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self.budget, self.quick_budget = budget or self.budget, quick_budget or self.quick_budget

    def prepare(self, seed: int) -> None:
        self.original(seed)
        self.retrained()

    def original(self, seed: int) -> Ensemble:
        """The one model that unlearning starts from."""
        return self._reference("original", [seed])

    def retrained(self) -> Ensemble:
        """The models that never saw what is to be forgotten."""
        return self._reference("retrained", REFERENCE_SEEDS)

    def data(self, split: str, *, seed: int) -> PairedBatches:
        return PairedBatches(self.setting.forget, self.setting.retain, seed=seed)

    def trainer(
        self,
        combiner: mtopt.Combiner,
        *,
        learning_rate: float,
        seed: int,
        point: int,
        points: int,
        method: Literal["losses", "salun", "scrub"] = "losses",
        **options: Any,
    ) -> DigitTrainer:
        """The two losses under the rule.

        Args:
            method: ``"salun"`` takes random labels and trains the salient half of the weights only; ``"scrub"`` is
                :class:`ScrubTrainer`, for the rule ``linear`` with the preference (1, 0).
            options: ``forget`` (see :class:`DigitTrainer`), ``share`` of SalUn, or those of :class:`ScrubTrainer`.
        """
        original = self.original(seed)
        model = original.member(0)
        options = {"learning_rate": learning_rate, "seed": seed, **options}
        if method == "scrub":
            return ScrubTrainer(
                model,
                combiner,
                forget_set=self.setting.forget,
                order=seed,
                steps_per_epoch=len(self.data("train", seed=seed)),
                **options,
            )
        if method not in ("losses", "salun"):
            raise ValueError(f"method must be 'losses', 'salun' or 'scrub', found {method!r}")
        if method == "salun":
            masks = saliency(original, self.setting.forget, options.pop("share", 0.5))
            options = {"forget": "random_labels", "masks": [mask[0] for mask in masks], **options}
        return DigitTrainer(model, combiner, **options)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        assert isinstance(trainer.model, torch.nn.Sequential)
        return self.judged(Ensemble([trainer.model]), split)

    def landmarks(self, trainer: mtopt.MultiLossTrainer) -> Mapping[str, Mapping[str, float]]:
        """The model before unlearning, and the mean of the retrained ones."""
        assert trainer.seed is not None
        return {
            "before unlearning": self.judged(self.original(trainer.seed), "test"),
            "retrained": {FORGET_GAP: 0.0, UTILITY_GAP: 0.0, **self._retrained("test", attacked=True)},
        }

    def judged(self, models: Ensemble, split: str) -> dict[str, float]:
        """The objectives and the accuracies, means over the models; the attacks, too, on the test split."""
        accuracy = means(accuracies(models, self.setting, split))
        wanted = self._retrained(split)
        gap = {name: abs(accuracy[name] - wanted[f"accuracy, {name}"]) for name in accuracy}
        return {
            FORGET_GAP: gap["forget"],
            UTILITY_GAP: 1.0 - (1.0 - gap["retain"]) * (1.0 - gap["test"]),
            **_figures(models, self.setting, split, attacked=split == "test"),
        }

    def _retrained(self, split: str, *, attacked: bool = False) -> dict[str, float]:
        return _figures_of_retrained(self.setting, self.training, self._cache_dir, split, attacked)

    def _reference(self, kind: Literal["original", "retrained"], seeds: Sequence[int]) -> Ensemble:
        return reference(self.setting, kind, seeds, training=self.training, cache_dir=self._cache_dir)


def _figures(models: Ensemble, setting: Setting, split: str, *, attacked: bool) -> dict[str, float]:
    named = {f"accuracy, {name}": value for name, value in accuracies(models, setting, split).items()}
    return means({**named, **(attacks(models, setting, split) if attacked else {})})


@lru_cache
def _figures_of_retrained(
    setting: Setting, training: Training, cache_dir: Path | None, split: str, attacked: bool
) -> dict[str, float]:
    """Kept in each process: every run of a comparison is judged by them, and has a task of its own."""
    models = reference(setting, "retrained", REFERENCE_SEEDS, training=training, cache_dir=cache_dir)
    return _figures(models, setting, split, attacked=attacked)
