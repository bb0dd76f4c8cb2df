"""The published methods as plain data: which two losses, which rule, and the hyper-parameters of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import mtopt

from .automatic_rate import VARIANTS, AutomaticRate
from .primal_dual import PrimalDual
from .trainer import Loss, UnlearningTrainer


@dataclass(frozen=True)
class Recipe:
    """One method. ``create_trainer`` makes a trainer of it.

    Args:
        forget, retain: The losses, by the names of :class:`UnlearningTrainer`; ``retain=None`` for none.
        rule: A name in mtopt's registry, or ``"primal_dual"`` for :class:`PrimalDual`.
        forget_options, retain_options, rule_options: Hyper-parameters of the three, where they differ from the defaults
            or a paper says so.
        automatic_rate: How the rate is found while training. Default: it is not.
        learning_rate, epochs: Of AdamW and over the forget set, as published or as open-unlearning runs the method on
            TOFU with models from 1 billion parameters on; the suite's tiny models need other rates.
        warmup_epochs: In which PDU's multiplier is held.
        note: What the data cannot say.
    """

    forget: str
    retain: str | None
    rule: str
    forget_options: Mapping[str, Any] = field(default_factory=dict)
    retain_options: Mapping[str, Any] = field(default_factory=dict)
    rule_options: Mapping[str, Any] = field(default_factory=dict)
    automatic_rate: AutomaticRate | None = None
    learning_rate: float = 1e-5
    epochs: int = 10
    warmup_epochs: int = 0
    note: str = ""

    def combiner(self, *, steps_per_epoch: int = 0) -> mtopt.Combiner:
        """The rule, a fresh one. ``steps_per_epoch`` turns ``warmup_epochs`` into steps."""
        if self.rule != "primal_dual":
            return mtopt.create_combiner(self.rule, **self.rule_options)
        if self.warmup_epochs and steps_per_epoch < 1:
            raise ValueError("steps_per_epoch is needed for warmup_epochs: give the number of batches in an epoch")
        return PrimalDual(**self.rule_options, warmup=self.warmup_epochs * steps_per_epoch)


_SUM = {"reduction": "sum"}
"""``retain + forget``; the default of ``linear`` is their mean."""


def _weighted(retain: float, forget: float) -> dict[str, Any]:
    """``retain L_R + forget L_F`` up to the factor ``2 / (retain + forget)``, which Adam does not see."""
    return {"preference": (retain / (retain + forget), forget / (retain + forget)), **_SUM}


def _gdiff(c: float) -> Recipe:
    return Recipe("nll", "nll", "linear", rule_options={"preference": (c, 1.0 - c)}, note=f"{c} L_R - {1 - c:g} L_F")


METHODS: dict[str, Recipe] = {
    "GA": Recipe("nll", None, "linear"),
    "GDiff": Recipe("nll", "nll", "linear", rule_options=_SUM, note="L_R - L_F, TOFU's"),
    "GDiff(0.1)": _gdiff(0.1),
    "GDiff(0.5)": _gdiff(0.5),
    "GDiff(0.9)": _gdiff(0.9),
    "KL": Recipe("nll", "kl", "linear", rule_options=_SUM),
    "NPO": Recipe("npo", None, "linear", forget_options={"beta": 0.1}),
    "NPO+NLL": Recipe("npo", "nll", "linear", forget_options={"beta": 0.1}, rule_options=_SUM),
    "NPO+KL": Recipe("npo", "kl", "linear", forget_options={"beta": 0.1}, rule_options=_SUM),
    "SimNPO": Recipe(
        "simnpo", "nll", "linear", forget_options={"beta": 4.5, "delta": 0.0}, rule_options=_weighted(1.0, 0.125)
    ),
    "IdkNLL": Recipe("idk_nll", "nll", "linear", rule_options=_SUM, epochs=5, note="needs alternatives in the batches"),
    "IdkDPO": Recipe(
        "idk_dpo",
        "nll",
        "linear",
        forget_options={"beta": 0.1},
        rule_options=_SUM,
        note="needs alternatives in the batches; AltPO, where they are the model's own answers",
    ),
    "RMU": Recipe("rmu", "rmu", "linear", forget_options={"coefficient": 2.0}, rule_options=_SUM),
    "UNDIAL": Recipe("undial", None, "linear", forget_options={"beta": 10.0}, learning_rate=1e-4),
    "WGA": Recipe("wga", "nll", "linear", forget_options={"beta": 1.0}, rule_options=_SUM, epochs=5),
    "SatImp": Recipe(
        "satimp",
        "nll",
        "linear",
        forget_options={"beta1": 5.0, "beta2": 1.0},
        rule_options=_weighted(1.0, 0.1),
        epochs=5,
        note="the weights of open-unlearning's configuration; its page of the method swaps them",
    ),
    "CE-U": Recipe("ce_u", None, "linear", forget_options={"ignore_first": 1}),
    "ME": Recipe("max_entropy", "nll", "linear", rule_options=_SUM, note="ME+GD"),
    "PDU": Recipe(
        "logit_flattening",
        "nll",
        "primal_dual",
        rule_options={"multiplier": 100.0, "step": 5.0, "threshold": 0.3},
        warmup_epochs=5,
    ),
    "LossNGDiff": Recipe("nll", "nll", "loss_ngdiff"),
    "NGDiff": Recipe("nll", "nll", "ngdiff"),
    **{
        f"NGDiff+GeN{rate.suffix}": Recipe(
            "nll", "nll", "ngdiff", automatic_rate=rate, note="the rate is the one to begin with"
        )
        for rate in VARIANTS
    },
    "PCGrad": Recipe("nll", "nll", "pcgrad"),
    "MGDA": Recipe("nll", "nll", "mgda"),
    "BLUR": Recipe("npo", "nll", "blur", forget_options={"beta": 0.1}, note="the authors' beta is 0.05 on MUSE-News"),
    "GRU": Recipe("nll", "nll", "gru", note="the authors pair the rule with NPO, SimNPO and IDK, too"),
    "HAMU": Recipe(
        "nll",
        "nll",
        "hamu",
        rule_options={"constraint": 0.5, "relative": True},
        note="the authors clip both gradients to norm 1, which makes their constraint relative",
    ),
    "MUNBa": Recipe(
        "nll", "nll", "munba", note="the paper's forget loss is the cross-entropy of random labels, for classifiers"
    ),
}
"""The methods by their published names."""


def method(name: str) -> Recipe:
    """The recipe of that name, whatever its case.

    Raises:
        UnknownNameError: No such method.
    """
    found = {known.lower(): recipe for known, recipe in METHODS.items()}.get(name.lower())
    if found is None:
        raise mtopt.UnknownNameError(f"unknown method {name!r}; known names: {', '.join(METHODS)}")
    return found


def create_trainer(
    recipe: Recipe | str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    combiner: mtopt.Combiner | str | None = None,
    steps_per_epoch: int = 0,
    probe_batches: Sequence[Any] | None = None,
    callbacks: Iterable[mtopt.Callback] = (),
    **options: Any,
) -> UnlearningTrainer:
    """The trainer of a method; with ``combiner``, of its pair of losses under another rule.

    Args:
        recipe: A recipe or the name of one.
        model, optimizer: As in :class:`UnlearningTrainer`.
        combiner: A rule in place of the method's own, or a name in mtopt's registry.
        steps_per_epoch: Batches in an epoch, for PDU.
        probe_batches: What GeN probes on, for a method with an automatic rate (:meth:`AutomaticRate.probe_batches`); a
            ``fresh`` one needs them. Default: the step's own batch.
        callbacks: Told after GeN.
        options: All others of :class:`UnlearningTrainer`; ``forget_options`` and ``retain_options`` go on top of the
            recipe's.
    """
    recipe = method(recipe) if isinstance(recipe, str) else recipe
    if combiner is None:
        combiner = recipe.combiner(steps_per_epoch=steps_per_epoch)
    rate: list[mtopt.Callback] = []
    if recipe.automatic_rate is not None:
        rate = [recipe.automatic_rate.callback(optimizer, probe_batches)]
    elif probe_batches is not None:
        raise ValueError("probe_batches is for a method with an automatic rate, and this one has none; leave it out")
    forget_options = {**recipe.forget_options, **options.pop("forget_options", {})}
    retain_options = {**recipe.retain_options, **options.pop("retain_options", {})}
    losses: dict[str, str | Loss | None] = {"forget": recipe.forget, "retain": recipe.retain}
    return UnlearningTrainer(
        model,
        optimizer,
        combiner,
        **{**losses, **options},
        forget_options=forget_options,
        retain_options=retain_options,
        callbacks=[*rate, *callbacks],
    )
