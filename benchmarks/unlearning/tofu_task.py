"""TOFU in miniature as a task that rules are compared on: forgetting against utility, over training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import mtopt
from mtopt.experiments import Budget

from .unlearning_task import UnlearningTask

if TYPE_CHECKING:
    from .metrics.evaluation import Evaluation
    from .models import ReferenceConfig

GAP, UTILITY, ROUGE = "forgetting gap", "model utility", "forget ROUGE-L"


class TofuTask(UnlearningTask):
    """Unlearn ``forget10`` of a generated world, judged by TOFU's figures along the way.

    The two objectives are the **forgetting gap** (lower is better), the Kolmogorov-Smirnov distance between the truth
    ratios of the unlearned model and of one that never saw what is to be forgotten, of which TOFU's forget quality
    is the p-value; and the **model utility** (higher is better), the harmonic mean of TOFU's nine figures on what is to
    be kept. A run is judged by both together, as the hypervolume of all its evaluations up to the reference point
    (1, 0): a wrecked model has no utility, and one that overshoots has other ratios than the retrained one.
    """

    name = "tofu"
    title = "TOFU in miniature: forgetting 40 answers about four authors"
    objectives = (mtopt.Objective(GAP), mtopt.Objective(UTILITY, "max"))
    reference_point = (1.0, 0.0)
    views = ((GAP, UTILITY), (ROUGE, UTILITY))
    axis_labels = {  # noqa: RUF012  (a class-level constant)
        GAP: "forgetting gap (KS distance)",
        ROUGE: "ROUGE-L recall on the forget set",
    }
    budget = Budget(steps=60, trials=8, seeds=3, evaluations=6)
    quick_budget = Budget(steps=40, trials=2, seeds=3, evaluations=2)

    def config_of(self, seed: int) -> ReferenceConfig:
        from .models import ReferenceConfig

        config = ReferenceConfig() if self.config is None else self.config
        return replace(config, corpus=replace(config.corpus, seed=seed), seed=seed)

    def figures(self, evaluation: Evaluation, retain: Evaluation) -> dict[str, float]:
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
