"""Steps of one backward pass of weighted losses: rules on the loss values, and rules that keep their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import SHORT, Call
from mtopt.autograd._reach import (
    Group,
    Grouping,
    Reach,
    leaves_behind,
    losses_on_graph,
    on_all,
    reach_on_graph,
    require_dense,
    trunk_of_call,
)
from mtopt.autograd._step import Evidence, Piece, Plan, Update, rules_of
from mtopt.combiners import Outcome

WHAT = "gradient of the weighted losses"


class LossValues(Plan):
    """A rule that needs only the losses: they are weighed, and differentiated once. Every loss counts as shared."""

    description = "one weighted backward: the rule needs only the losses"
    late = True

    def reach(self) -> Sequence[Reach]:
        self.losses = losses_on_graph(self.batch, self.call)
        return [(0,)] * len(self.call.params)  # whichever it is: all count as shared

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        yield Evidence()

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        batch = self.batch
        return [Outcome(self.call.rule.weigh(batch.signed(batch.present), batch.present, len(batch.objectives)))]

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        self.backwards = 1
        gradients = self.call.processes.differentiate(
            self.losses, self.call.params, seeds_of(self.losses, weights.values()), retain_graph=self.batch.retain_graph
        )
        gradients = self.call.processes.sum_gradients(WHAT, gradients, self.call.params)
        if all(gradient is None for gradient in gradients):
            names = self.batch.names
            raise ValueError(f"none of the losses {names} reaches params; give the parameters they were computed from")
        return Update([(range(len(gradients)), gradients)], what=WHAT, borrowed=True)

    def reached(self, grouping: Grouping) -> Iterable[torch.Tensor]:
        behind = on_all(leaves_behind(self.losses), self.call)
        return [param for param in self.call.params if id(param) in behind]


class OnGraph(Plan):
    """A plan for losses on one graph, whose answer comes to one backward pass of the weighted losses.

    Attributes:
        losses: signed and scaled.
    """

    losses: list[torch.Tensor]

    def reach(self) -> Sequence[Reach]:
        self.losses = losses_on_graph(self.batch, self.call)
        self.trunk = trunk_of_call(self.call)
        return reach_on_graph(self.losses, self.call, self.batch)

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        return realise_by_pass(self, self.losses, grouping, outcomes, weights)


class KeptWeights(OnGraph):
    """A rule that keeps the weights of an earlier step.

    Gradients are looked at before they are written, as those of any rule on gradients are: a step that is skipped does
    not count as one with these weights.
    """

    description = "one weighted backward: the rule keeps weights"

    def __init__(self, call: Call, batch: Batch) -> None:
        super().__init__(call, batch)
        self.grouping = super().group()

    @classmethod
    def of(cls, call: Call, batch: Batch) -> Self | None:
        """This plan, where the rule keeps weights for each group of these losses."""
        if not batch.all_tensors:
            return None
        plan, total = cls(call, batch), len(batch.objectives)
        kept = zip(rules_of(plan.grouping, call.rule, batch), plan.grouping.shared, strict=True)
        is_kept = all(rule.kept_weights(plan.objectives(group), total) is not None for rule, group in kept)
        return plan if is_kept else None

    def group(self) -> Grouping:
        return self.grouping

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        yield Evidence()

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        total = len(self.batch.objectives)
        each = zip(grouping.rules, grouping.shared, strict=True)
        return [Outcome(rule.kept_weights(self.objectives(group), total)) for rule, group in each]

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        update = super().realise(grouping, outcomes, weights)
        if self.backwards > 1:
            self.description = f"{self.description}; {self.backwards - 1} more for what not all the losses reach"
        return update

    def note_written(self, grouping: Grouping) -> None:
        for rule, group in zip(grouping.rules, grouping.shared, strict=True):
            rule.keep(self.objectives(group), len(self.batch.objectives))


def realise_by_pass(
    plan: Plan,
    losses: Sequence[torch.Tensor],
    grouping: Grouping,
    outcomes: Sequence[Outcome],
    weights: Mapping[int, float],
) -> Update:
    """The update of one backward pass of the losses, weighted as a rule said."""
    given = [outcome.weights for outcome in outcomes if outcome.weights is not None]
    pieces = differentiate_weighted(plan, losses, grouping, given, plan.own_factors(grouping, weights))
    return Update(pieces, what=WHAT, borrowed=True)


def differentiate_weighted(
    plan: Plan,
    losses: Sequence[torch.Tensor],
    grouping: Grouping,
    weights: Sequence[torch.Tensor],
    own: Mapping[int, float],
    *,
    retain_graph: bool | None = None,
) -> list[Piece]:
    """Each shared group's gradient with its weights (K,), then the others', times ``own``, by their losses.

    One pass does for all parameters that share their weights. Parameters that only some of the losses reach take a pass
    for each set of losses. Those of single losses that get their own gradients are had from the main pass, divided by
    the weight; where that would lose digits (weights below 1e-3 or above 1e3, parameters of 16 bits) they take one pass
    together, which ends at these parameters. The graph is freed, unless ``retain_graph`` or the batch says otherwise.
    """
    call, batch = plan.call, plan.batch
    by_group = [
        dict(zip(group.reach, given.tolist(), strict=True))
        for group, given in zip(grouping.shared, weights, strict=True)
    ]
    main = by_group[0] if by_group else {}
    along: list[int] = []
    apart: list[int] = []
    factors: dict[int, float] = {}
    corrections: dict[int, float] = {}  # by the parameter
    for group in grouping.own:
        k, factor = group.loss, own[group.loss]
        if k in main and (factor == main[k] or _is_divisible(main[k], group, call)):
            along += group.indices
            if factor != main[k]:
                corrections.update(dict.fromkeys(group.indices, factor / main[k]))
        else:
            apart += group.indices
            factors[k] = factor
    passes = [(group.indices, of_losses) for group, of_losses in zip(grouping.shared, by_group, strict=True)]
    if along:
        passes[0] = [*passes[0][0], *along], main
    if apart:
        passes.append((apart, factors))
    keep = batch.retain_graph if retain_graph is None else retain_graph
    pieces: list[Piece] = []
    # the main pass is the last, which frees the graph: it is the longest
    for number, (indices, of_losses) in reversed(list(enumerate(passes))):
        outputs = [losses[k] for k in of_losses]
        params = [call.params[index] for index in indices]
        gradients = call.processes.differentiate(
            outputs, params, seeds_of(outputs, of_losses.values()), retain_graph=keep or number > 0
        )
        gradients = call.processes.sum_gradients(WHAT, gradients, params)
        require_dense([batch.names[k] for k in of_losses], gradients)
        pieces.insert(0, (indices, _corrected(indices, gradients, corrections) if corrections else gradients))
    plan.backwards += len(passes)
    if along:
        (indices, gradients), end = pieces[0], len(grouping.shared[0].indices)
        pieces[0] = indices[:end], gradients[:end]
        pieces.append((indices[end:], gradients[end:]))
    return pieces


def _is_divisible(weight: float, group: Group, call: Call) -> bool:
    """Whether a head's own gradient may be had from the weighted one: without loss, in its dtype."""
    exact = all(call.params[index].dtype not in SHORT for index in group.indices)
    return exact and 1e-3 <= abs(weight) <= 1e3


def _corrected(
    indices: Sequence[int], gradients: Sequence[torch.Tensor | None], factors: Mapping[int, float]
) -> list[torch.Tensor | None]:
    found = list(gradients)
    chosen = [n for n, index in enumerate(indices) if index in factors and found[n] is not None]
    if chosen:
        given: list[Any] = [found[n] for n in chosen]
        products = torch._foreach_mul(given, [factors[indices[n]] for n in chosen])
        for n, product in zip(chosen, products, strict=True):
            found[n] = product
    return found


def seeds_of(losses: Sequence[torch.Tensor], weights: Iterable[float]) -> list[torch.Tensor]:
    """What autograd starts from. K seeds and not a sum: the graph is not extended, each loss stays in its own dtype."""
    dtype = losses[0].dtype
    if all(loss.is_cpu and loss.ndim == 0 and loss.dtype == dtype for loss in losses):
        return list(torch.tensor(list(weights), dtype=dtype).unbind())  # made at once, K times as fast
    return [torch.full_like(loss, weight) for loss, weight in zip(losses, weights, strict=True)]
