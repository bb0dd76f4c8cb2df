"""TOFU in miniature as a task that rules are compared on: forgetting against utility, over training."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import mtopt
from mtopt.experiments import Budget, Task

if TYPE_CHECKING:
    from .metrics.evaluation import Evaluation
    from .trainer import UnlearningTrainer
    from .world import World

GAP, UTILITY, ROUGE = "forgetting gap", "model utility", "forget ROUGE-L"
BEFORE, RETRAINED = "before unlearning", "retrained without the forget set"


class TofuTask(Task):
    """Unlearn ``forget10`` of a generated world, judged by TOFU's figures along the way.

    The two objectives are the **forgetting gap** (lower is better), the Kolmogorov-Smirnov distance between the truth
    ratios of the unlearned model and of one that never saw what is to be forgotten, of which TOFU's forget quality
    is the p-value; and the **model utility** (higher is better), the harmonic mean of TOFU's nine figures on what is to
    be kept. A run is judged by both together, as the hypervolume of all its evaluations up to the reference point
    (1, 0): a wrecked model has no utility, and one that overshoots has other ratios than the retrained one.

    Every seed has a world of its own: authors, base, target and two retrained models, trained once and cached. The
    seed that learning rates are chosen on has one, too, so the tables show worlds that nothing was tuned on.

    Args:
        cache_dir: Where the models are kept. Default: :func:`mtopt_suites.unlearning.models.prepare`'s.
        batch_size: Rows of each side in a batch.
        config: Of the models; each seed puts its own in. Default: the quick tier.
        budget, quick_budget: See :class:`mtopt.experiments.Budget`.
    """

    name = "tofu"
    title = "TOFU in miniature: forgetting 40 answers about four authors"
    objectives = (mtopt.Objective(GAP), mtopt.Objective(UTILITY, "max"))
    reference_point = (1.0, 0.0)
    learning_rates = (3e-5, 3e-3)
    splits_differ = False
    static_front = False
    start = BEFORE
    views = ((GAP, UTILITY), (ROUGE, UTILITY))
    axis_labels = {  # noqa: RUF012  (a class-level constant)
        GAP: "forgetting gap (KS distance)",
        ROUGE: "ROUGE-L recall on the forget set",
    }
    budget = Budget(steps=60, trials=8, seeds=3, evaluations=6)
    quick_budget = Budget(steps=40, trials=2, seeds=3, evaluations=2)

    def __init__(
        self,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 8,
        config: Any = None,
        budget: Budget | None = None,
        quick_budget: Budget | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.config = config
        self._cache_dir = None if cache_dir is None else os.fspath(cache_dir)
        self.budget, self.quick_budget = budget or self.budget, quick_budget or self.quick_budget

    def world(self, seed: int) -> World:
        """The world of a seed; kept in this process once it was opened."""
        return _world(self.config, self._cache_dir, seed)

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
        return figures(world.evaluate(trainer.model), world.evaluations["retain"])

    def landmarks(self, trainer: mtopt.MultiLossTrainer) -> Mapping[str, Mapping[str, float]]:
        assert trainer.seed is not None
        known = self.world(trainer.seed).evaluations
        names = {"retain_second": RETRAINED, "target": BEFORE}
        return {name: figures(known[role], known["retain"]) for role, name in names.items()}


def figures(evaluation: Evaluation, retain: Evaluation) -> dict[str, float]:
    """The two objectives, and what a reader wants to see beside them."""
    from scipy.stats import ks_2samp

    from .metrics.tofu import log_truth_ratios

    ratios, wanted = (log_truth_ratios(found.items, "forget") for found in (evaluation, retain))
    summary = evaluation.summary
    chosen = {
        "forget quality": "forget_quality",
        ROUGE: "forget_rouge_l_recall",
        "forget probability": "forget_probability",
        "forget extraction strength": "forget_extraction_strength",
        "retain exact match": "retain_exact_match",
        "PrivLeak": "privleak",
    }
    found = {GAP: ks_2samp(ratios, wanted).statistic, UTILITY: summary["model_utility"]}
    found.update({name: summary[key] for name, key in chosen.items()})
    # with a retain model and held-out items at hand, as here, none of them is None
    return {name: float(value) for name, value in found.items() if value is not None}


@lru_cache(maxsize=8)
def _world(config: Any, cache_dir: str | None, seed: int) -> World:
    from .models import ReferenceConfig
    from .world import open_world

    config = ReferenceConfig() if config is None else config
    own = replace(config, corpus=replace(config.corpus, seed=seed), seed=seed)
    return open_world(own, cache_dir)
