"""All methods under one budget: tuned alike on models of their own, then judged on as many as KLoM takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from . import methods
from .ensemble import Ensemble, Training, reference
from .klom import gaussian_klom, klom, margins
from .metrics import accuracies, attacks, means, tug_of_war
from .protected import dp2unlearning
from .recent_history import mini_unlearning
from .rules import unlearn_with_rule
from .settings import Setting

LEARNING_RATES = (1e-4, 3e-2)
TRIALS = 12
TUNING_SEEDS = range(1_000_003, 1_000_006)
ATTACKED = 20
"""Models that membership is inferred from: an attack takes longer than unlearning."""

RETRAINED_SEEDS, SECOND_SEEDS = 10_000, 20_000
"""Where the seeds of the retrained models begin, and of those that are compared with them as a floor."""


@dataclass(frozen=True)
class Method:
    """A function that is called as those of :mod:`mtopt_suites.unlearning.digits.methods` are, the values of its own
    hyper-parameters that are tried, and the range of its learning rates, by default for Adam."""

    unlearn: Callable[..., Ensemble]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    learning_rates: tuple[float, float] = LEARNING_RATES

    def configurations(self, trials: int = TRIALS) -> list[dict[str, Any]]:
        """As many for each method, so far as they divide: the fewer hyper-parameters, the more learning rates."""
        own = [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]
        low, high = self.learning_rates
        count = trials // len(own)
        rates = np.geomspace(low, high, count) if count > 1 else [(low * high) ** 0.5]
        return [{"learning_rate": float(f"{rate:.3g}"), **values} for values in own for rate in rates]


def by_rule(rule: str, *, forget: str = "ascent", grid: Mapping[str, Sequence[Any]] | None = None) -> Method:
    """Any rule of mtopt's registry as a method."""
    return Method(partial(unlearn_with_rule, rule=rule, forget=forget), grid or {})


METHODS: dict[str, Method] = {
    "fine-tuning": Method(methods.fine_tune),
    "NegGrad+": Method(methods.neg_grad_plus, {"beta": (0.9, 0.95, 0.99)}),
    "random labels": Method(methods.random_labels),
    "SalUn": Method(methods.salun, {"share": (0.3, 0.5)}),
    "SCRUB": Method(methods.scrub, {"forget_epochs": (2, 5, 8)}),
    "SCRUB+R": Method(partial(methods.scrub, rewind=True), {"forget_epochs": (2, 5, 8)}),
    "Mini-Unlearning": Method(mini_unlearning, {"keep": (20, 100)}, learning_rates=(1e-2, 1.0)),
    "DP2Unlearning": Method(dp2unlearning, {"epsilon": (1.0, 10.0, 100.0)}),
    "from scratch": Method(methods.train_anew),
    "NGDiff": by_rule("ngdiff"),
    "PCGrad": by_rule("pcgrad"),
    "MGDA": by_rule("mgda"),
    "MUNBa": by_rule("munba", forget="random_labels"),
}
"""MUNBa on random labels, as in its paper. NegGrad+ is the rule ``linear``, see :func:`methods.neg_grad_plus`. Rates of
Mini-Unlearning are those of gradient descent on all images at once. "from scratch" is DP2Unlearning from new weights in
place of a base."""

DEFAULT = tuple(name for name in METHODS if name != "DP2Unlearning")
"""Who takes part unless names are given: Opacus, which finds DP2Unlearning's noise, is not in the suite's extra."""


@dataclass(frozen=True)
class Row:
    """One method on one setting.

    Attributes:
        method: its name; ``"original"`` and ``"retrained"`` are the models before, and a second set of retrained ones.
        values: by figure, one value for each model: accuracies and tug-of-war of all, attacks of the first twenty.
        divergences: KLoM and its Gaussian variant, on the forget, retain and test points.
        configuration: what was chosen.
        cpu_seconds: of unlearning one model; those of an ensemble are divided by its size.
    """

    method: str
    values: Mapping[str, list[float]]
    divergences: Mapping[str, float]
    configuration: Mapping[str, Any]
    cpu_seconds: float


def compare_methods(
    setting: Setting,
    *,
    members: int = 100,
    trials: int = TRIALS,
    chosen: Sequence[str] | None = None,
    jobs: int = 1,
    training: Training | None = None,
    cache_dir: Path | None = None,
) -> list[Row]:
    """A row for the models before unlearning, one for retrained ones, and one a method.

    Each method tries ``trials`` configurations on three models of seeds kept for that; the one with the largest mean
    tug-of-war on the validation images is run on ``members`` others and judged on the test images. So the retrained
    models' accuracies are known to the tuning, which in earnest they are not. ``chosen`` are names in :data:`METHODS`;
    by default :data:`DEFAULT`.
    """
    names = list(DEFAULT if chosen is None else chosen)
    if unknown := sorted(set(names) - set(METHODS)):
        raise ValueError(f"chosen has unknown methods {unknown}; known names: {', '.join(METHODS)}")
    get = partial(reference, setting, training=training, cache_dir=cache_dir)
    original = get("original", range(members))
    retrained = get("retrained", range(RETRAINED_SEEDS, RETRAINED_SEEDS + members))
    second = get("retrained", range(SECOND_SEEDS, SECOND_SEEDS + members))
    tuned_on = get("original", TUNING_SEEDS)

    def run(name: str) -> Row:
        torch.set_num_threads(1)
        configuration = tune(METHODS[name], setting, tuned_on, retrained, trials)
        started = time.process_time()
        models = METHODS[name].unlearn(original, setting, seeds=range(members), **configuration)
        seconds = (time.process_time() - started) / members
        return judge(name, models, setting, retrained, configuration, seconds)

    known = [
        judge(name, models, setting, retrained) for name, models in (("original", original), ("retrained", second))
    ]
    return known + list(joblib.Parallel(n_jobs=jobs)(joblib.delayed(run)(name) for name in names))


def tune(method: Method, setting: Setting, original: Ensemble, retrained: Ensemble, trials: int) -> dict[str, Any]:
    """The configuration with the largest mean tug-of-war on the validation images; the first of equals."""
    wanted = means(accuracies(retrained, setting, "validation"))

    def score(configuration: Mapping[str, Any]) -> float:
        models = method.unlearn(original, setting, seeds=TUNING_SEEDS, **configuration)
        return float(np.mean(tugs_of_war(models, setting, wanted, "validation")))

    return max(method.configurations(trials), key=score)


def tugs_of_war(models: Ensemble, setting: Setting, wanted: Mapping[str, float], split: str) -> list[float]:
    """That of each model."""
    found = accuracies(models, setting, split)
    return [tug_of_war({name: value[place] for name, value in found.items()}, wanted) for place in range(len(models))]


def judge(
    name: str,
    models: Ensemble,
    setting: Setting,
    retrained: Ensemble,
    configuration: Mapping[str, Any] | None = None,
    cpu_seconds: float = 0.0,
) -> Row:
    """Every figure of the models on the test images."""
    figures = {**accuracies(models, setting), **attacks(models[:ATTACKED], setting)}
    values = {key: value.tolist() for key, value in figures.items()}
    values["ToW"] = tugs_of_war(models, setting, means(accuracies(retrained, setting)), "test")
    divergences = {}
    for part, points in (("forget", setting.forget), ("retain", setting.retain), ("test", setting.heldout("test"))):
        both = margins(models, points), margins(retrained, points)
        divergences[f"KLoM, {part}"] = float(klom(*both).mean())
        divergences[f"Gaussian KLoM, {part}"] = float(gaussian_klom(*both).mean())
    return Row(name, values, divergences, configuration or {}, cpu_seconds)
