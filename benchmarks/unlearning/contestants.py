"""What the suite enters in a comparison: the published methods, and every forget loss under every rule."""

from __future__ import annotations

from dataclasses import asdict

import mtopt
from mtopt.experiments import Contestant

from .methods import METHODS, Recipe
from .trainer import FORGET_LOSSES

PRIMAL_DUAL = f"{__package__}.primal_dual:PrimalDual"
STEPS_PER_EPOCH = 5
"""Of the miniature: 40 rows to forget, 8 in a batch."""


def published(name: str, recipe: Recipe) -> Contestant:
    """A method as its authors set it up; what they tuned and the recipe leaves open, the comparison tunes."""
    hyperparameters = dict(recipe.rule_options)
    if recipe.rule == "primal_dual":
        hyperparameters["warmup"] = recipe.warmup_epochs * STEPS_PER_EPOCH
    elif "preference" in mtopt.combiners.combiner_class(recipe.rule).hyperparameter_defaults():
        # equal where the paper gives none; a rule that is entered by its own name has it tuned
        hyperparameters.setdefault("preference", None)
    return Contestant(
        name,
        PRIMAL_DUAL if recipe.rule == "primal_dual" else recipe.rule,
        hyperparameters=hyperparameters,
        options={
            "forget": recipe.forget,
            "retain": recipe.retain,
            "forget_options": dict(recipe.forget_options),
            "retain_options": dict(recipe.retain_options),
            **({} if recipe.automatic_rate is None else {"automatic_rate": asdict(recipe.automatic_rate)}),
        },
        tuned=recipe.automatic_rate is None,
    )


def pair(forget: str, rule: str) -> Contestant:
    """``"npo:pcgrad"``: that forget loss, with the published method's settings of the loss, and the NLL on what is to
    be retained, under that rule."""
    known = next((recipe for recipe in METHODS.values() if recipe.forget == forget), None)
    return Contestant(
        f"{forget}:{rule}",
        rule,
        options={"forget": forget, "forget_options": {} if known is None else dict(known.forget_options)},
    )


CONTESTANTS = (
    *(published(name, recipe) for name, recipe in METHODS.items()),
    *(pair(forget, rule) for forget in FORGET_LOSSES for rule in mtopt.list_combiners()),
)
