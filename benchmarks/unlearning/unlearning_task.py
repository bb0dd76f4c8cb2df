"""What the suite's language tasks share: a world a seed, two losses under any rule, and judging against retraining."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import mtopt
from mtopt.experiments import Budget, Task

if TYPE_CHECKING:
    from .metrics.evaluation import Evaluation
    from .models import ReferenceConfig
    from .trainer import UnlearningTrainer
    from .world import World

BEFORE, RETRAINED = "before unlearning", "retrained without the forget set"


class UnlearningTask(Task):
    """Unlearn a part of what a tiny language model was trained on, judged beside one that never saw it.

    Every seed has a world of its own: texts, base, target and two retrained models, trained once and cached. The seed
    that learning rates are chosen on has one, too, so the tables show worlds that nothing was tuned on.

    Args:
        cache_dir: Where the models are kept. Default: :func:`mtopt_suites.unlearning.models.prepare`'s.
        batch_size: Rows of each side in a batch.
        config: Of the models; each seed puts its own in. Default: the quick tier.
        budget, quick_budget: See :class:`mtopt.experiments.Budget`.
    """

    learning_rates = (3e-5, 3e-3)
    splits_differ = False
    static_front = False
    start = BEFORE

    def __init__(
        self,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 8,
        config: ReferenceConfig | None = None,
        budget: Budget | None = None,
        quick_budget: Budget | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.config = config
        self._cache_dir = None if cache_dir is None else os.fspath(cache_dir)
        self.budget, self.quick_budget = budget or self.budget, quick_budget or self.quick_budget

    @abstractmethod
    def config_of(self, seed: int) -> ReferenceConfig:
        """The models of a seed."""

    @abstractmethod
    def figures(self, evaluation: Evaluation, retain: Evaluation) -> dict[str, float]:
        """The objectives, and what a reader wants to see beside them, of one model and of the retrained one."""

    def world(self, seed: int) -> World:
        """The world of a seed; kept in this process once it was opened."""
        return _world(self.config_of(seed), self._cache_dir)

    def prepare(self, seed: int) -> None:
        self.world(seed)

    def data(self, split: str, *, seed: int) -> Any:
        from .batches import ForgetRetainBatches

        world = self.world(seed)
        return ForgetRetainBatches(
            world.forget,
            world.retained,
            batch_size=self.batch_size,
            pad_id=world.prepared.tokenizer.pad_token_id,
            alternatives=world.refusals,
            seed=seed,
        )

    def trainer(
        self,
        combiner: mtopt.Combiner,
        *,
        learning_rate: float,
        seed: int,
        point: int,
        points: int,
        forget: str = "nll",
        retain: str | None = "nll",
        forget_options: Mapping[str, Any] | None = None,
        retain_options: Mapping[str, Any] | None = None,
        automatic_rate: Mapping[str, Any] | None = None,
    ) -> UnlearningTrainer:
        """The two losses under the rule, with AdamW; a contestant's options choose the losses, and ``automatic_rate``
        holds the parts of an :class:`~mtopt_suites.unlearning.automatic_rate.AutomaticRate`."""
        import torch

        from .automatic_rate import AutomaticRate
        from .trainer import UnlearningTrainer

        world = self.world(seed)
        model = copy.deepcopy(world.prepared.target).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
        callbacks: list[mtopt.Callback] = []
        if automatic_rate is not None:
            rate = AutomaticRate(**automatic_rate)
            pad_id = world.prepared.tokenizer.pad_token_id
            probes = rate.probe_batches(world.retained, batch_size=self.batch_size, pad_id=pad_id, seed=seed)
            callbacks.append(rate.callback(optimizer, probes))
        return UnlearningTrainer(
            model,
            optimizer,
            combiner,
            forget=forget,
            retain=retain,
            forget_options=forget_options,
            retain_options=retain_options,
            reference=world.prepared.target,
            callbacks=callbacks,
            seed=seed,
        )

    def values(self, trainer: mtopt.MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        world = self.world(seed)
        return self.figures(world.evaluate(trainer.model), world.evaluations["retain"])

    def landmarks(self, trainer: mtopt.MultiLossTrainer) -> Mapping[str, Mapping[str, float]]:
        assert trainer.seed is not None
        known = self.world(trainer.seed).evaluations
        names = {"retain_second": RETRAINED, "target": BEFORE}
        return {name: self.figures(known[role], known["retain"]) for role, name in names.items()}


@lru_cache(maxsize=8)
def _world(config: ReferenceConfig, cache_dir: str | None) -> World:
    from .world import open_world

    return open_world(config, cache_dir)
