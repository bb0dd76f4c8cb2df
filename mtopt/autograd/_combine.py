"""From K rows to ``.grad``: parameters grouped by the losses that reach them, the rule, the write, the record."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from mtopt.autograd._complex import like_reals
from mtopt.autograd._finite import WHAT, Piece, are_finite, refusal, state_before
from mtopt.autograd._keeping import Laid
from mtopt.autograd._record import StepRecord, geometry
from mtopt.autograd._rows import Row
from mtopt.autograd._step import Group, Reach, Step
from mtopt.autograd._write import spoil, write_pieces
from mtopt.combiners import Combiner, Outcome
from mtopt.linalg import Gradients, Place, cut_to_shapes


def combine_rows(rows: Sequence[Row], combiner: Combiner, step: Step) -> StepRecord:
    """Apply ``combiner`` to ``rows``, one for each loss present, and add the direction to the parameters' ``.grad``.

    The rows are taken over: the lists are emptied, and the gradients may be written to.
    """
    groups = groups_of(reach_of_rows(rows, step.laid), step)
    shared = shared_groups(groups, step)
    gradients = [gradients_of(group, rows, step) for group in shared]
    own = Own.of([group for group in groups if not group.shared], rows, step)
    step.laid = None
    for row in rows:
        row.clear()
    reason = non_finite(shared, gradients, step, own)
    if reason is not None:
        return skipped(reason, groups, step, backwards=len(rows))

    # Everything is computed before anything is written, so that a rule that raises leaves .grad as it was.
    minimised = step.minimised
    before = state_before(combiner, gradients, step)
    outcomes = [
        rule_of(group, shared, combiner, step).combine(
            found, minimised if len(group.reach) == len(minimised) else minimised[list(group.reach)]
        )
        for group, found in zip(shared, gradients, strict=True)
    ]
    weights: dict[int, float] = {}
    if outcomes and outcomes[0].weights is not None:
        weights = dict(zip(shared[0].reach, outcomes[0].weights.tolist(), strict=True))
    factors = {group.reach[0]: own_weight(group, weights, combiner, step) for group in groups if not group.shared}
    pieces: list[Piece] = []
    bounds: list[float] = []
    for group, outcome, found in zip(shared, outcomes, gradients, strict=True):
        bounds.append(
            math.inf if outcome.weights is None or outcome.direction is not None else found.bound(outcome.weights)
        )
        pieces.append((group.indices, direction_of(outcome, found, group, step)))
    if own.indices:
        bounds.append(own.bound(factors, step))
        pieces.append((own.indices, own.times(factors, step)))
    reason = refusal(pieces, step, bounds, what=WHAT)
    if reason is not None:
        if before is not None:
            combiner.load_state_dict(before)
        return skipped(reason, groups, step, backwards=len(rows))
    write_pieces(pieces, step)
    main = (shared[0], gradients[0]) if shared else None
    return record_of(main, weights, combiner, step, backwards=len(rows))


@dataclass(slots=True)
class Own:
    """Gradients of parameters that a single loss reaches: their losses, the parameters' indices, the gradients."""

    losses: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, groups: Sequence[Group], rows: Sequence[Row], step: Step) -> Own:
        own = cls()
        for group in groups:
            (k,) = group.reach
            for index in group.indices:
                gradient = rows[k][index]
                if gradient is None:  # a copy, since a view would keep the matrix
                    assert step.laid is not None
                    gradient = step.laid.gradient(k, index, like_reals(step.places[index].parameter)).clone()
                own.losses.append(k)
                own.indices.append(index)
                own.gradients.append(gradient)
        return own

    def times(self, weights: Mapping[int, float], step: Step) -> list[torch.Tensor]:
        """Each times its loss's weight. The gradients are spent: big ones may be written over."""
        by = {k: weights[k] if step.factors is None else weights[k] * step.factors[k] for k in set(self.losses)}
        # heads are many and small: in one go where they have one factor, else loss by loss
        runs = [range(len(self.losses))] if len(set(by.values())) == 1 else _runs(self.losses)
        parts = [
            (by[self.losses[run[0]]], Gradients([self.gradients[run.start : run.stop]], places=self._places(run, step)))
            for run in runs
        ]
        self.gradients = []
        return [product for factor, part in parts for product in part.combined([factor], spend=True)]

    def bound(self, weights: Mapping[int, float], step: Step) -> float:
        """What no entry of :meth:`times` is larger than: 0, for gradients that are known to be finite, where they are
        only made shorter; infinity where nobody knows."""
        longer = any(abs(weights[k]) > 1.0 for k in set(self.losses))
        return math.inf if longer or step.factors is not None else 0.0

    def _places(self, run: range, step: Step) -> list[Place]:
        return [step.places[index] for index in self.indices[run.start : run.stop]]


def _runs(values: Sequence[int]) -> list[range]:
    """Where equal neighbours stand."""
    ends = [n for n in range(1, len(values)) if values[n] != values[n - 1]]
    return [range(start, end) for start, end in itertools.pairwise([0, *ends, len(values)])]


def reach_of_rows(rows: Sequence[Row], laid: Laid | None = None) -> list[Reach]:
    """Which losses reach each parameter, as their gradients tell."""
    masks = [0] * len(rows[0])  # one bit a loss
    if laid is not None:
        for index in laid.columns:
            masks[index] = (1 << len(rows)) - 1
        for k, index in laid.absent:
            masks[index] -= 1 << k
    for k, row in enumerate(rows):
        bit = 1 << k
        for index, gradient in enumerate(row):
            if gradient is not None:
                masks[index] |= bit
    members = {mask: tuple([k for k in range(len(rows)) if mask >> k & 1]) for mask in set(masks)}
    return [members[mask] for mask in masks]


def groups_of(reaches: Sequence[Reach], step: Step) -> list[Group]:
    """The parameters by the losses that reach them; those that none reaches are in no group."""
    groups: dict[tuple[Reach, bool], Group] = {}
    everyone = tuple(range(len(step.present)))
    for index, (reach, place) in enumerate(zip(reaches, step.places, strict=True)):
        if not reach:
            continue
        if step.private == "combined":
            reach = everyone
        # With a single loss in the step its gradient cannot tell shared parameters from its own: the rule takes all.
        in_trunk = id(place.parameter) in step.trunk if step.trunk is not None else len(everyone) == 1
        shared = len(reach) > 1 or in_trunk or step.private == "combined"
        group = groups.get((reach, shared))
        if group is None:
            group = groups[reach, shared] = Group(reach, shared)
        group.indices.append(index)
    return list(groups.values())


def shared_groups(groups: Sequence[Group], step: Step) -> list[Group]:
    """Those that a rule is applied to, the one that the most losses reach first: its weights are the step's."""
    shared = [group for group in groups if group.shared]
    return shared if len(shared) < 2 else sorted(shared, key=lambda group: _size(group, step), reverse=True)


def rule_of(group: Group, shared: Sequence[Group], combiner: Combiner, step: Step) -> Combiner:
    """The rule for a group: ``combiner`` for the first, with a state of its own for each of the others."""
    if group is shared[0]:
        return combiner
    return combiner.for_group(",".join(step.names[k] for k in group.reach))


def gradients_of(group: Group, rows: Sequence[Row], step: Step) -> Gradients:
    """The rows of a group, with zeros where a loss does not reach."""
    places = [step.places[index] for index in group.indices]
    whole = step.laid is not None and len(group.reach) == len(rows)
    packed = step.laid.packed(group.indices, places) if step.laid and whole else ()
    return Gradients(
        [_dense(k, rows, group.indices, step, skip=bool(packed)) for k in group.reach],
        objectives=[step.present[k] for k in group.reach],
        total=len(step.objectives),
        scale=step.scale,
        places=places,
        factors=None if step.factors is None else [step.factors[k] for k in group.reach],
        packed=packed,
    )


def _dense(
    number: int, rows: Sequence[Row], indices: Sequence[int], step: Step, *, skip: bool
) -> list[torch.Tensor | None]:
    """A row without gaps; ``skip``: but for what lies in the matrix."""
    row, laid = rows[number], step.laid
    dense = [row[index] for index in indices]
    for position, index in enumerate(indices):
        if dense[position] is None and not (skip and laid is not None and index in laid.columns):
            like = like_reals(step.places[index].parameter)
            here = laid is not None and laid.has(number, index)
            dense[position] = laid.gradient(number, index, like) if here else torch.zeros_like(like)  # type: ignore[union-attr]
    return dense


def own_weight(group: Group, weights: dict[int, float], combiner: Combiner, step: Step) -> float:
    """The factor on the gradient of the one loss that reaches a private group."""
    (k,) = group.reach
    if step.private == "own":
        if not step.values:  # streamed: the rule needs norms alone
            return 1.0
        objective = step.present[k]
        return combiner.own_factor(step.objectives[objective].sign * step.values[k], objective)
    if k not in weights:
        raise ValueError(
            f"private='weighted' needs a weight for loss {step.names[k]!r}, and {combiner!r} gives none here; "
            "use private='own'"
        )
    return weights[k]


def non_finite(
    groups: Sequence[Group], gradients: Sequence[Gradients], step: Step, own: Own | None = None
) -> str | None:
    """Which losses or gradients are NaN or infinite, in words; None when all is well."""
    if not all(map(math.isfinite, step.values)):
        bad = [name for name, value in step.losses.items() if not math.isfinite(value)]
        return f"non-finite loss: {', '.join(bad)}"
    rows: set[int] = set()
    single = [] if own is None else list(zip(own.losses, own.gradients, strict=True))
    for group, found in zip(groups, gradients, strict=True):
        if group.shared:
            squares = found.gramian.diagonal().tolist()
            rows.update(k for k, square in zip(group.reach, squares, strict=True) if not math.isfinite(square))
        else:
            single.extend((group.reach[0], gradient) for gradient in found.rows[0])
    rows.update(_bad_among(single))
    return f"non-finite gradient: {', '.join(step.names[k] for k in sorted(rows))}" if rows else None


def _bad_among(gradients: Sequence[tuple[int, torch.Tensor]]) -> set[int]:
    """The losses of which a gradient is NaN or infinite."""
    if are_finite([gradient for _, gradient in gradients]):
        return set()
    return {k for k, gradient in gradients if not bool(gradient.isfinite().all())}


def skipped(reason: str, groups: Sequence[Group], step: Step, *, backwards: int) -> StepRecord:
    """The record of a skipped step, which a GradScaler is told of; or the error in strict mode."""
    record = step.skip(reason, backwards=backwards)
    if step.scaled:
        spoil(step.places[index].parameter for group in groups for index in group.indices)
    return record


def _size(group: Group, step: Step) -> tuple[int, int]:
    return len(group.reach), sum(like_reals(step.places[i].parameter).numel() for i in group.indices)


def direction_of(outcome: Outcome, gradients: Gradients, group: Group, step: Step) -> list[torch.Tensor]:
    """A tensor for each parameter of the group, with the scale that ``.grad`` has."""
    if outcome.direction is None:
        assert outcome.weights is not None
        return gradients.combined(outcome.weights, spend=True)
    gradients.let_go()
    direction = outcome.direction
    if gradients.scale != 1.0:
        direction = direction * gradients.scale
    # copied: a view would keep the whole vector alive, and in-place work on one .grad must not reach another
    params = [like_reals(step.places[i].parameter) for i in group.indices]
    pieces = cut_to_shapes(direction, [param.shape for param in params])
    return [piece.to(param.dtype, copy=True) for piece, param in zip(pieces, params, strict=True)]


def record_of(
    main: tuple[Group, Gradients] | None,
    weights: dict[int, float],
    combiner: Combiner,
    step: Step,
    *,
    backwards: int,
) -> StepRecord:
    """The record, whose norms and cosines are those of the main group."""
    names = step.names
    losses = step.losses
    if main is None:
        plan = f"{step.plan}; no parameter is shared, each loss kept its own gradient"
        return StepRecord(losses=losses, plan=plan, backwards=backwards)
    group, gradients = main
    norms, cosines = geometry(gradients.gramian)
    return StepRecord(
        losses=losses,
        weights={names[k]: weight for k, weight in weights.items()} or None,
        norms={names[k]: norm for k, norm in zip(group.reach, norms, strict=True)},
        cosines=cosines,
        certificate=combiner.certificate,
        plan=step.plan,
        backwards=backwards,
    )
