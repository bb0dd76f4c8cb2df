"""The step below K backwards: a weighted backward, and one product of the Gramian with the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from mtopt._errors import NonFiniteError
from mtopt.autograd._combine import groups_of, non_finite, rule_of, shared_groups, skipped
from mtopt.autograd._finite import are_finite, is_long
from mtopt.autograd._generators import Generators
from mtopt.autograd._passes import OnGraph, Weighted, owned
from mtopt.autograd._products import Point, Product, displaced, exact
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request
from mtopt.autograd._rows import Params, trainable
from mtopt.autograd._second_forward import run
from mtopt.autograd._step import Group, Private, Step
from mtopt.combiners import Combiner, Following, list_combiners
from mtopt.linalg import Array, Place, norm_of

OFF = 0.5
"""A product that misses ``w'Gw = ||d||²`` by more than this share of it moves no weights."""


@dataclass(frozen=True, slots=True)
class MatrixFree:
    """How ``plan=`` makes a step whose cost does not grow with K.

    With ``d = J'w`` from one backward of the weighted losses, ``G w = J d`` is the vector of the losses' directional
    derivatives along d, and comes from one more forward. The rule keeps its weights from step to step and moves them by
    this product; the certificate in the step's record is the error of the weights that the step was made with.

    Args:
        product: ``"exact"``: a forward-mode product, about one more plain step. ``"displacement"``: one forward at
            ``x - e d`` without a graph, ``G w = (L(x) - L(x - e d)) / e``, a third of that and for any model; in
            float32 it is off by 0.1 to 1 %, of which ``w'Gw = ||d||²``, known from d, takes away the common part.
        iterations: updates of the weights in each step; each takes a backward and a product.
        rate: how far an update goes towards the weights that the model of the Gramian gives, in (0, 1]. 0.5 or 1
            follows a Gramian without noise faster; less averages over more mini-batches.
        displacement: for ``product="displacement"``, the share by which the weighted losses are to fall, to first
            order, from x to ``x - e d``. Default: the square root of the losses' relative precision (3.5e-4 in
            float32), which balances rounding and curvature. Under autocast to 16 bits, 0.05 or so.
        needs_graph: the losses differentiate inside (gradient penalties, forces, residuals of differential equations),
            so the second forward keeps a graph. Default: False.
    """

    product: Literal["exact", "displacement"] = "exact"
    iterations: int = 1
    rate: float = 0.2
    displacement: float | None = None
    needs_graph: bool = False

    def __post_init__(self) -> None:
        if self.product not in ("exact", "displacement"):
            raise ValueError(f"product must be 'exact' or 'displacement', found {self.product!r}")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"iterations must be a whole number >= 1, found {self.iterations!r}")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"rate must be in (0, 1], found {self.rate!r}")
        if self.displacement is not None and not 0.0 < self.displacement < 1.0:
            raise ValueError(f"displacement must be None or in (0, 1), found {self.displacement!r}")
        if self.displacement is not None and self.product == "exact":
            raise ValueError("displacement belongs to product='displacement'; leave it out of an exact product")

    def makes(self) -> Product:
        return exact if self.product == "exact" else displaced(self.displacement)

    @property
    def kind(self) -> str:
        """What a product is called in a record's plan."""
        return "forward-mode product" if self.product == "exact" else "displaced forward"


def matrix_free(plan: object, features: object, store: object) -> MatrixFree | None:
    """The settings that ``plan`` stands for; None for another plan."""
    if plan == "matrix_free":
        plan = MatrixFree()
    if not isinstance(plan, MatrixFree):
        return None
    for name, value in (("features", features), ("store", store)):
        if value is not None:
            raise ValueError(f"plan='matrix_free' keeps no gradients and runs the losses itself; leave {name} out")
    return plan


def follow_weights(
    losses: Any,
    params: Params,
    combiner: Combiner,
    options: MatrixFree,
    *,
    scaler: Any,
    private: Private,
    strict: bool,
) -> StepRecord:
    """The step of a rule that follows its weights. Nothing is written, and no state moved, before all is known."""
    require_following(combiner)
    model = require_module(params)
    places = trainable(model)
    generators = Generators.of(model)
    request = requested(losses, places, scaler)
    source = OnGraph(request.losses())
    step = Step.of(request, private=private, trunk=None, strict=strict, plan="matrix-free: one weighted backward")
    groups = groups_of(source.reaches(step), step)
    reason = non_finite([], [], step)
    if reason is not None:
        return skipped(reason, groups, step, backwards=0)
    dtypes = [request.given[k].dtype for k in request.present]  # type: ignore[union-attr]
    point = Point(
        model,
        losses,
        generators,
        request.objectives,
        request.present,
        np.array(step.values),
        dtypes,
        step.scale,
        options.needs_graph,
    )
    shared = shared_groups(groups, step)
    follower = _Follower(point, step, shared, combiner, options)
    rounds = options.iterations if follower.moves else 1
    before = combiner.state_dict() if rounds > 1 or strict else None  # else nothing has moved where a step fails
    backwards = 0
    for number in range(rounds):
        weights = follower.weights()
        found = source.weighted(groups, shared, weights, combiner, step, retain_graph=number + 1 < rounds)
        backwards += found.backwards
        lengths = follower.lengths(found)
        if lengths is None:
            if before is not None:
                combiner.load_state_dict(before)
            return skipped("non-finite gradient of the weighted losses", groups, step, backwards=backwards)
        if before is None and is_long(max(lengths, default=0.0) * step.scale, step):  # what is written may overflow
            before = combiner.state_dict()
        found = follower.move(found, weights, lengths)
    reason = found.refusal(step)
    if reason is not None:
        if before is not None:
            combiner.load_state_dict(before)
        return skipped(reason, groups, step, backwards=backwards)
    if follower.obstacle and before is not None and strict:
        combiner.load_state_dict(before)
        raise NonFiniteError(f"{follower.obstacle}; leave strict=False to keep the weights in such steps")
    follower.keep()
    found.write(step)
    return StepRecord(
        losses=step.losses,
        weights={step.names[k]: weight for k, weight in found.weights.items()} or None,
        certificate=combiner.certificate if shared else None,
        plan=follower.plan(backwards),
        backwards=backwards,
    )


class _Follower:
    """The rule on each group of parameters that several losses reach, and the products that it is moved by."""

    def __init__(
        self, point: Point, step: Step, shared: Sequence[Group], combiner: Combiner, options: MatrixFree
    ) -> None:
        self.point, self.step, self.shared, self.options = point, step, shared, options
        self.product = options.makes()
        self.rules = [rule_of(group, shared, combiner, step) for group in shared]
        self.objectives = [tuple(step.present[k] for k in group.reach) for group in shared]
        total = len(step.objectives)
        each = zip(self.rules, self.objectives, strict=True)
        self.keeps = [rule.kept_weights(present, total) is not None for rule, present in each]
        self.made = 0
        self.off = 0.0  # the largest error of a product along the weights
        self.obstacle = ""

    @property
    def moves(self) -> bool:
        """Whether one of the rules moves its weights in this step."""
        return not all(self.keeps)

    def weights(self) -> list[torch.Tensor]:
        return [_follows(rule).weights_to_follow(each) for rule, each in zip(self.rules, self.objectives, strict=True)]

    def lengths(self, found: Weighted) -> list[float] | None:
        """The length of each group's direction; None where a gradient is not finite."""
        lengths: list[float] = []
        heads = [g for _, gradients in found.pieces[: -len(self.shared) or None] for g in gradients if g is not None]
        for group, (_, gradients) in zip(
            self.shared, reversed(found.pieces), strict=False
        ):  # the main group is the last
            direction = [g for g in gradients[: len(group.indices)] if g is not None]
            heads += [g for g in gradients[len(group.indices) :] if g is not None]
            lengths.append(norm_of(direction) / self.step.scale if direction else 0.0)
        return lengths if all(map(math.isfinite, lengths)) and are_finite(heads) else None

    def move(self, found: Weighted, weights: Sequence[torch.Tensor], lengths: Sequence[float]) -> Weighted:
        """``found`` in the rule's length, and each rule that does not keep its weights moved by their product."""
        pieces = list(found.pieces)
        main = dict(found.weights)
        for number, (group, rule, given) in enumerate(zip(self.shared, self.rules, weights, strict=True)):
            place = len(pieces) - 1 - number  # the main group is the last
            indices, gradients = pieces[place]
            objectives, length = self.objectives[number], lengths[number]
            if self.keeps[number]:
                factor = _follows(rule).lengthening(objectives, length * length)
            else:
                products = self._products(group, gradients[: len(group.indices)], length, given.numpy())
                factor, _ = _follows(rule).follow(objectives, products, length * length, rate=self.options.rate)
            if factor != 1.0:
                # after the group's own come those of heads, which are to be in proportion or are whole already
                ends = len(indices) if self.step.private == "weighted" else len(group.indices)
                taken: set[int] = set()
                own = [g if g is None else owned(g, taken) for g in gradients]
                torch._foreach_mul_([g for g in own[:ends] if g is not None], factor)
                pieces[place] = indices, own
                if number == 0:
                    main = {k: weight * factor for k, weight in main.items()}
        return Weighted(pieces, main, found.backwards)

    def keep(self) -> None:
        """Count the step for the rules that kept their weights in it."""
        for rule, present, keeps in zip(self.rules, self.objectives, self.keeps, strict=True):
            if keeps:
                rule.keep(present, len(self.step.objectives))

    def _products(self, group: Group, gradients: Sequence[torch.Tensor | None], length: float, weights: Array) -> Array:
        """``G w`` (K,) of a group, for a direction of this length."""
        if length == 0.0:
            return np.zeros(len(weights))
        squared = length * length
        if len(weights) == 1:
            return np.asarray(squared / weights)
        reached = [(self.step.places[i], g) for i, g in zip(group.indices, gradients, strict=True) if g is not None]
        places, direction = [place for place, _ in reached], [g for _, g in reached]
        full = np.zeros(len(self.point.present))
        full[list(group.reach)] = weights
        products = self.product(self.point, places, direction, length, full)[list(group.reach)]
        self.made += 1
        along = float(weights @ products) / squared
        if not abs(along - 1.0) <= OFF:
            self.obstacle = (
                f"the weights were kept: the product gives w'Gw = {along:.3g} ||d||², which is lost in rounding, in "
                "curvature, or in losses that were not the same when they were run again"
            )
            return np.full(len(weights), math.nan)
        self.off = max(self.off, abs(along - 1.0))
        return products / along  # exact along w: the part of the error that all the losses share is gone

    def plan(self, backwards: int) -> str:
        plan = f"matrix-free: {_counted(backwards, 'weighted backward')}"
        if self.shared and not self.moves:
            return f"{plan}: the rule keeps weights"
        plan = f"{plan} and {_counted(self.made, self.options.kind)}"
        if self.obstacle:
            return f"{plan}; {self.obstacle}"
        return f"{plan}, {self.off:.1e} off along the weights before correction" if self.made else plan


def require_module(params: Params) -> nn.Module:
    """``params`` itself, once it is the module whose parameters can be replaced."""
    if not isinstance(params, nn.Module):
        raise TypeError(
            f"plan='matrix_free' replaces the model's parameters for a second forward: params must be the module that "
            f"the losses run, found {type(params).__name__}; several modules go into one nn.ModuleList"
        )
    return params


def requested(losses: Any, places: Sequence[Place], scaler: Any) -> Request:
    """The losses of a callable, run with a graph."""
    request = Request(run(losses), places, scaler)
    if not request.all_tensors:
        raise TypeError("plan='matrix_free' takes a callable that returns losses, found one that returns callables")
    return request


def require_following(combiner: Combiner) -> None:
    """Raise for a rule that does not follow its weights."""
    if not (isinstance(combiner, Following) and combiner.matrix_free):
        names = ", ".join(list_combiners(matrix_free=True, draws=combiner.draws))
        raise ValueError(
            f"plan='matrix_free' takes a rule that follows its weights by products of the Gramian with a vector, and "
            f"{combiner!r} does not: one of {names}, or Every around one"
        )


def _follows(rule: Combiner) -> Following:
    return cast(Following, rule)  # one of a kind with the rule that was looked at in the beginning


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
