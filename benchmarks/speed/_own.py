"""mtopt's steps: every plan, every way of keeping the rows."""

from __future__ import annotations

from typing import Any

import torch

import mtopt

from ._floor import Step, descent
from .models import Shared


def stepped(model: Shared, rule: mtopt.Combiner, **options: Any) -> Step:
    """The losses as tensors, the whole model's parameters."""
    optimizer = descent(model)
    params = list(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        mtopt.backward(model.losses(), params, rule, **options)
        optimizer.step()

    return step


def named(model: Shared, name: str, **options: Any) -> Step:
    """The rule of that name."""
    return stepped(model, mtopt.create_combiner(name), **options)


def features_first(model: Shared, name: str) -> Step:
    """The heads first, then K backwards of the trunk."""
    optimizer = descent(model)
    params, rule = list(model.parameters()), mtopt.create_combiner(name)

    def step() -> None:
        optimizer.zero_grad()
        features = model.features()
        mtopt.backward(model.losses_of(features), params, rule, features=features)
        optimizer.step()

    return step


def representation(model: Shared) -> Step:
    """MGDA-UB: the Gramian of the features' gradients, and one backward of the trunk."""
    return features_first(model, "mgda_ub")


def every_tenth(model: Shared, name: str) -> Step:
    """The weights anew in every tenth step, a weighted backward in the others."""
    return stepped(model, mtopt.Every(mtopt.create_combiner(name), 10))


def matrix_free(model: Shared, name: str, product: Any) -> Step:
    """A weighted backward, and one product of the Gramian with the weights."""
    optimizer = descent(model)
    rule, plan = mtopt.create_combiner(name), mtopt.MatrixFree(product)

    def step() -> None:
        optimizer.zero_grad()
        mtopt.backward(model.losses, model, rule, plan=plan)
        optimizer.step()

    return step


def separate(model: Shared, other: torch.Tensor) -> Step:
    """NGDiff of a loss to keep on one batch and one to raise on another, each run and freed in turn."""
    optimizer = descent(model)
    params, rule = list(model.parameters()), mtopt.create_combiner("ngdiff")
    losses = {
        "retain": lambda: model.loss(0, model.features()),
        "forget": lambda: -model.loss(0, model.features(other)),
    }

    def step() -> None:
        optimizer.zero_grad()
        mtopt.backward(losses, params, rule)
        optimizer.step()

    return step
