"""A matrix-free step of a rule on several mini-batches, whose weights move by one product of its cross-Gramian."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch

from mtopt._losses import Batch
from mtopt._replay import Generators, graph_where_needed
from mtopt.autograd._call import Call
from mtopt.autograd._matrix_free_options import MatrixFree
from mtopt.autograd._reach import Group, Grouping
from mtopt.autograd._step import Evidence, Plan
from mtopt.autograd.plans._matrix_free import Point, kind_of, require_module, run_batch, run_losses_of
from mtopt.autograd.plans._several_batches import check_same, draws_of, kept_on_last
from mtopt.autograd.plans._weighted import WHAT, OnGraph, differentiate_weighted
from mtopt.combiners import Combiner, FollowingDraws, Outcome, list_combiners
from mtopt.linalg import Array, norm_of


class FollowedDraws(OnGraph):
    """``J1 J2' w`` as ``J1 d``: a weighted pass on the second draw, a product along it on the first, and with the
    weights that the rule makes of it a weighted pass on the third."""

    late = True

    @classmethod
    def of_draws(cls, call: Call) -> Plan:
        """The plan for a call with several draws; where the rule keeps weights, that of the last one alone."""
        assert call.free is not None
        _require_following(call.rule, call.free)
        require_module(call)
        draws = draws_of(call.losses, call.rule)
        last, kept = kept_on_last(call, lambda: run_batch(draws[-1], call))
        return kept or cls(call, draws, last)

    def __init__(self, call: Call, draws: Sequence[object], last: Batch | None) -> None:
        assert call.free is not None
        self.draws, self.last = draws, last
        self.generators = Generators.of(require_module(call))
        self.first = _run_without_graph(draws[0], call)
        super().__init__(call, run_batch(draws[1], call))
        check_same(self.first, self.batch, 1)
        self.description = f"matrix-free: one weighted backward on draws 1 and 2, one {kind_of(call.free)} on draw 0"

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        second = self.batch
        self.batch = self.first  # whose losses the record tells of, where the step ends here
        reason = self.first.non_finite()
        if reason:
            yield Evidence(bad=reason)
            return
        self.batch = second
        self.followed = [self.objectives(group) for group in grouping.shared]
        self.rules = [cast(FollowingDraws, rule) for rule in grouping.rules]
        weights = [rule.weights_to_follow(each) for rule, each in zip(self.rules, self.followed, strict=True)]
        shared = Grouping(grouping.shared)
        along = differentiate_weighted(self, self.losses, shared, weights, {})
        self.products = [
            self._product(group, gradients, given.numpy())
            for group, (_, gradients), given in zip(grouping.shared, along, weights, strict=True)
        ]
        if not all(np.isfinite(product).all() for product in self.products):
            yield Evidence(bad=f"non-finite {WHAT}, or product with it")
            return
        self.batch = run_batch(self.draws[2], self.call) if self.last is None else self.last
        check_same(self.first, self.batch, 2)
        again = self.group()
        reason = self.batch.non_finite()
        if reason:
            yield Evidence(bad=reason)
            return
        if [group.reach for group in again.shared] != [group.reach for group in grouping.shared]:
            raise ValueError("the losses of the draws reach different parameters; leave plan='matrix_free' out")
        grouping.shared, grouping.own = again.shared, again.own
        yield Evidence()

    def _product(self, group: Group, gradients: Sequence[torch.Tensor | None], weights: Array) -> Array:
        """``J1 d`` (K,) of a group; NaN where d is not finite."""
        direction = [gradient for gradient in gradients if gradient is not None]
        length = norm_of(direction) / self.call.scale if direction else 0.0
        length = float(self.call.processes.share(torch.tensor([length], dtype=torch.float64)))
        if not 0.0 < length < np.inf:
            return np.full(len(weights), 0.0 if length == 0.0 else np.nan)
        point = Point(self.call, self.draws[0], self.first, self.generators)
        return point.multiply(group, gradients, length, weights)

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        each = zip(self.rules, self.followed, self.products, strict=True)
        return [Outcome(rule.weights_of_product(known, product)) for rule, known, product in each]


def _run_without_graph(losses: object, call: Call) -> Batch:
    """The losses of a draw as they are: what the product along a direction is checked, or made, with."""
    assert call.free is not None
    with graph_where_needed(call.free.needs_graph, "mtopt.MatrixFree (or to the trainer)"):
        found = run_losses_of(losses, some=not call.processes.several)
    batch = Batch(found, 1.0, processes=call.processes, graph=False)
    batch.losses()
    return batch


def _require_following(rule: Combiner, options: MatrixFree) -> None:
    if not (isinstance(rule, FollowingDraws) and rule.matrix_free):
        names = ", ".join(list_combiners(matrix_free=True, draws=rule.draws))
        raise ValueError(
            f"plan='matrix_free' takes a rule on draws that one product of their Gramian will do for, and {rule!r} "
            f"needs more: {names}, or Every around it"
        )
    default = MatrixFree()
    if (options.iterations, options.rate) != (default.iterations, default.rate):
        raise ValueError(
            f"iterations and rate are of rules that follow their weights, and {rule!r} makes its own step; leave "
            "them out of MatrixFree"
        )
