"""One step, one way: evidence, rule, realisation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from mtopt._errors import NonFiniteError
from mtopt._losses import Batch
from mtopt.autograd._call import Call, Private
from mtopt.autograd._reach import Group, Grouping, Reach
from mtopt.autograd._record import StepRecord, Vector
from mtopt.combiners import Combiner, Outcome
from mtopt.distributed import Processes, as_gradient_of, cut_row
from mtopt.linalg import (
    Gradients,
    are_finite,
    columns_in_parts,
    copy_unless_alone,
    finite_limit,
    join_complex,
    read_geometry,
    sums_are_finite,
    takes_writes,
    view_shard,
)

Piece = tuple[Sequence[int], Sequence[torch.Tensor | None]]
"""Indices of parameters, and the gradient of each; None for one that is not reached after all."""

_SHORT = 1e-3
"""Gradients shorter than this share of their dtype's largest number make no infinite direction by any rule on
coordinates, whose direction is at most some times as long."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a rule is to see.

    Attributes:
        gradients: of shared groups, those of a grouping in order; none for a rule that needs no gradients.
        which: the positions of these groups; None for all.
        own: losses whose gradients are NaN or infinite in parameters that they alone reach: see ``find_non_finite``.
        bad: what else is not finite, in words.
    """

    gradients: Sequence[Gradients] = ()
    which: Sequence[int] | None = None
    own: Set[int] = frozenset()
    bad: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be added to ``.grad``.

    Attributes:
        pieces: the gradients.
        bounds: for each piece what no entry of it is larger than; infinity, or no bounds, where nobody knows.
        what: what the pieces are, for the reason of a skip.
        borrowed: autograd made them, which may hand out the same or an expanded tensor twice.
        obstacle: why the rule was not asked in full, which strict mode does not let pass.
    """

    pieces: Sequence[Piece]
    bounds: Sequence[float] | None = None
    what: str = "direction, of finite gradients"
    borrowed: bool = False
    obstacle: str = ""


class Plan(ABC):
    """How the gradients of a step are made and combined. A plan never skips, writes, or moves a rule but in ``ask``.

    Attributes:
        batch: the losses, of which the record tells.
        description: how the gradients are made, in words.
        backwards: passes that were run so far.
        trunk: ids of parameters that are shared whatever reaches them in this step; None when nobody said.
        late: what is written is differentiated only after the rule was asked, so it may be anything.
    """

    description: str = ""
    trunk: Set[int] | None = None
    late: bool = False

    def __init__(self, call: Call, batch: Batch) -> None:
        self.call, self.batch = call, batch
        # a weighted sum of whole rows is what the weighted backward of a rule on losses gives
        weighs_losses = call.rule.needs == "losses" and call.private in (None, "weighted")
        self.private: Private = "combined" if weighs_losses else call.private or "own"
        self.backwards = 0

    @abstractmethod
    def reach(self) -> Sequence[Reach]:
        """Which losses reach each parameter. After it all losses of ``batch`` are run."""

    def group(self) -> Grouping:
        """The parameters by the losses that reach them."""
        reaches = self.reach()  # which tells how many losses are present
        combined = self.private == "combined"
        return Grouping.of(reaches, self.call.places, len(self.batch.present), combined=combined, trunk=self.trunk)

    @abstractmethod
    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        """What the rule is to see: once, or in several rounds, each of which is realised before the next."""

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        """The rule's answer for each group of the evidence."""
        rules = grouping.rules if evidence.which is None else [grouping.rules[n] for n in evidence.which]
        outcomes = []
        for rule, gradients in zip(rules, evidence.gradients, strict=True):
            combine = partial(_combine, rule, self.batch.signed(gradients.objectives))
            outcomes.append(ask_on_columns(rule, [gradients], combine, self.call.processes))
        return outcomes

    @abstractmethod
    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        """What these outcomes, whose main group has these weights by the positions of losses, come to."""

    def reached(self, grouping: Grouping) -> Iterable[torch.Tensor]:
        """The parameters that a skipped step would have written to."""
        return [self.call.params[index] for index in grouping.indices]

    def objectives(self, group: Group) -> tuple[int, ...]:
        """Those of the losses that reach a group."""
        return tuple([self.batch.present[k] for k in group.reach])

    def note_written(self, grouping: Grouping) -> None:
        """The update was written."""
        return

    def own_factors(self, grouping: Grouping, weights: Mapping[int, float]) -> dict[int, float]:
        """By the loss, the factors on gradients of parameters that it alone reaches."""
        return {group.loss: self.own_factor(group.loss, weights) for group in grouping.own}

    def own_factor(self, k: int, weights: Mapping[int, float]) -> float:
        """That of one loss."""
        batch, rule = self.batch, self.call.rule
        if self.private == "own":
            objective = batch.present[k]
            return rule.own_factor(batch.objectives[objective].sign * batch.values[k], objective)
        if k not in weights:
            raise ValueError(
                f"private='weighted' needs a weight for loss {batch.names[k]!r}, and {rule!r} gives none here; "
                "use private='own'"
            )
        return weights[k]


def run_step(call: Call, plan: Plan) -> StepRecord:
    """Take the step that ``plan`` makes: the only code that skips, restores the rule, writes ``.grad`` and records.

    Everything is computed before anything is written, so that a rule that raises leaves ``.grad`` as it was.
    """
    grouping = plan.group()
    grouping.rules = rules_of(grouping, call.rule, plan.batch)
    reason = plan.batch.non_finite()
    if reason:
        return _skip(reason, plan, grouping)
    with _Undo(call.rule) as undo:
        answer = _ask(plan, grouping, undo)
        update = answer.update
        reason = call.processes.join_words(answer.reason or _refusal(update, call))
        if update.obstacle and call.strict and not reason:
            raise NonFiniteError(f"{update.obstacle}; leave strict=False to keep the weights in such steps")
        if reason:
            undo.now()
            return _skip(reason, plan, grouping)
        undo.forget()
    call.processes.part()
    _write(update, call)
    plan.note_written(grouping)
    names, weights, norms = plan.batch.names, answer.weights, answer.norms
    words = plan.description
    if not grouping.shared:
        words += "; no parameter is shared, each loss kept its own gradient"
    return StepRecord(
        losses=plan.batch.named_values,
        weights={names[k]: weights[k] for k in sorted(weights)} or None,
        norms={names[k]: norms[k] for k in sorted(norms)} or None,
        cosines=answer.cosines,
        certificate=call.rule.certificate if grouping.shared else None,
        plan=words,
        backwards=plan.backwards,
    )


class _Undo:
    """Takes a rule back to where it was before it was asked, if the step comes to nothing or something raises."""

    def __init__(self, rule: Combiner) -> None:
        self.rule = rule
        self.before: dict[str, Any] | None = None

    def __enter__(self) -> _Undo:
        return self

    def __exit__(self, *error: object) -> None:
        self.now()

    def now(self) -> None:
        if self.before is not None:
            self.rule.load_state_dict(self.before)
            self.before = None

    def forget(self) -> None:
        self.before = None


@dataclass(slots=True)
class _Answer:
    """What came of the rounds of a step: the update, or why there is none; and what the record tells, by positions."""

    update: Update = field(default_factory=lambda: Update(()))
    reason: str = ""
    weights: dict[int, float] = field(default_factory=dict)
    norms: dict[int, float] = field(default_factory=dict)
    cosines: Vector | None = None


def _ask(plan: Plan, grouping: Grouping, undo: _Undo) -> _Answer:
    """Show the rule the evidence, round by round."""
    answer = _Answer()
    bad: list[str] = []
    processes = plan.call.processes
    for number, evidence in enumerate(plan.evidence(grouping)):
        if processes.several and processes.shards is None:  # those of shards are the same already
            _share_products(evidence, processes)
        answer.reason = answer.reason or evidence.bad
        bad += [] if answer.reason else name_non_finite(evidence, plan.batch)
        if answer.reason or bad:
            continue  # the rows to come are looked at, too
        if number == 0:
            undo.before = _state_before(plan, evidence)
        outcomes = plan.ask(grouping, evidence)
        if grouping.shared and (evidence.which is None or 0 in evidence.which):
            main = evidence.gradients[0] if evidence.gradients else None
            positions = _positions_of(main, grouping, plan.batch)
            if outcomes[0].weights is not None:
                answer.weights.update(zip(positions, outcomes[0].weights.tolist(), strict=True))
            if main is not None:
                lengths, of_round = read_geometry(main.gramian)
                answer.norms.update(zip(positions, lengths, strict=True))
                answer.cosines = of_round if number == 0 else None
        answer.update = plan.realise(grouping, outcomes, answer.weights)
        del outcomes
    answer.reason = answer.reason or tell_non_finite(bad)
    return answer


def _combine(rule: Combiner, losses: torch.Tensor, found: Sequence[Gradients]) -> Outcome:
    return rule.combine(found[0], losses)


def ask_on_columns(
    rule: Combiner,
    found: Sequence[Gradients],
    ask: Callable[[Sequence[Gradients]], Outcome],
    processes: Processes,
) -> Outcome:
    """The rule's answer to gradients on its columns: those of a process's shards, or all, gathered for it, where it
    cannot do with these."""
    shards = processes.shards
    if rule.stateful and rule.needs == "jacobian" and found[0].places is not None:
        rule.owners.note_coordinates(place.parameter for place in found[0].places)
    if shards is None or rule.shardable:
        return ask(found)
    assert found[0].places is not None
    params = [place.parameter for place in found[0].places]
    whole = [shards.gather(gradients, params) for gradients in found]
    with columns_in_parts(None):
        outcome = ask(whole)
    direction = outcome.direction
    return outcome if direction is None else Outcome(outcome.weights, cut_row(direction, params))


def _share_products(evidence: Evidence, processes: Processes) -> None:
    """Take the inner products of the first process: a weight that differs in its last bit would spread."""
    tables = [gradients.gramian for gradients in evidence.gradients]
    if tables:
        shared = processes.share(torch.cat([table.flatten() for table in tables]))
        pieces = shared.split_with_sizes([table.numel() for table in tables])
        for gradients, table, piece in zip(evidence.gradients, tables, pieces, strict=True):
            gradients.gramian = piece.reshape(table.shape)


def rules_of(grouping: Grouping, rule: Combiner, batch: Batch) -> list[Combiner]:
    """The rule for each shared group: itself for the first, with a state of its own for each of the others."""
    rest = [rule.for_group(",".join(batch.names[k] for k in group.reach)) for group in grouping.shared[1:]]
    return [rule, *rest] if grouping.shared else []


def _positions_of(gradients: Gradients | None, grouping: Grouping, batch: Batch) -> Sequence[int]:
    """Which of the losses present the rows of the main group are of."""
    reach = grouping.shared[0].reach
    if gradients is None or len(gradients.objectives) == len(reach):
        return reach
    return [batch.present.index(objective) for objective in gradients.objectives]


def _state_before(plan: Plan, evidence: Evidence) -> dict[str, Any] | None:
    """The rule's state, to go back to where what comes of it is not finite; None where it has none.

    That of a rule on coordinates is as large as the gradients, and is copied only where they are long: what such a rule
    tracks or projects is not longer than a few of them; or where what ``.grad`` holds is.
    """
    rule = plan.call.rule
    if not (rule.stateful or rule.matrix_free):
        return None
    if not plan.late and rule.needs == "jacobian":
        longest = max((float(g.gramian.diagonal().max()) ** 0.5 * g.scale for g in evidence.gradients), default=0.0)
        short = longest < _SHORT * min(torch.finfo(dtype).max for dtype in {param.dtype for param in plan.call.params})
        held = [view_shard(param.grad) for param in plan.call.params if param.grad is not None] if short else []
        safe = short and sums_are_finite([(gradient, gradient, math.inf) for gradient in held])
        if not plan.call.processes.meet(not safe):
            return None
    return rule.state_dict()


def _skip(reason: str, plan: Plan, grouping: Grouping) -> StepRecord:
    """The record of a skipped step, which a GradScaler is shown; or the error in strict mode."""
    call, losses = plan.call, plan.batch.named_values
    if call.strict:
        raise NonFiniteError(f"{reason}; lower the learning rate, or leave strict=False to skip such steps")
    if call.scaled:
        _spoil(plan.reached(grouping))
    if call.takes_absent and any(map(math.isnan, losses.values())):
        reason += "; where NaN means that this batch has no labels of it, give None for the loss, or absent='nan'"
    return StepRecord(losses=losses, skipped=True, reason=reason, plan=plan.description, backwards=plan.backwards)


def find_non_finite(gradients: Sequence[tuple[int, torch.Tensor]]) -> set[int]:
    """The losses of which a gradient is NaN or infinite."""
    if are_finite([gradient for _, gradient in gradients]):
        return set()
    return {k for k, gradient in gradients if not bool(gradient.isfinite().all())}


def name_non_finite(evidence: Evidence, batch: Batch) -> list[str]:
    """The losses whose gradients are NaN or infinite, as their inner products tell."""
    found = set(evidence.own)
    for gradients in evidence.gradients:
        squares = gradients.gramian.diagonal().tolist()
        if not all(map(math.isfinite, squares)):
            objectives = [
                o for o, square in zip(gradients.objectives, squares, strict=True) if not math.isfinite(square)
            ]
            found.update(map(batch.present.index, objectives))
    return [batch.names[k] for k in sorted(found)]


def tell_non_finite(names: Sequence[str]) -> str:
    """That the gradients of these losses are; nothing of none."""
    return f"non-finite gradient: {', '.join(names)}" if names else ""


def _refusal(update: Update, call: Call) -> str:
    """Why an update cannot be written, in words; none where all that would stand in ``.grad`` is finite."""
    unknown: list[torch.Tensor] = []
    added: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for number, (indices, gradients) in enumerate(update.pieces):
        bound = math.inf if update.bounds is None else update.bounds[number]
        for index, gradient in zip(indices, gradients, strict=True):
            if gradient is None:
                continue
            param = call.params[index]
            gradient = join_complex(gradient, param)
            if not bound < finite_limit(param.dtype):  # else it is known without a look
                unknown.append(gradient.to(param.dtype))
            if param.grad is not None:
                added.append((view_shard(param.grad), gradient, bound))
    if not are_finite(unknown):
        return f"non-finite {update.what}"
    return "" if sums_are_finite(added) else f"non-finite sum of the {update.what} and what .grad holds"


def _write(update: Update, call: Call) -> None:
    """Accumulate as ``loss.backward()`` does, then fire the hooks that wait for it. The tensors become the parameters'
    own."""
    taken: set[int] = set()
    written: list[torch.Tensor] = []
    with torch.no_grad():  # a gradient may require one itself
        for index, gradient in [pair for piece in update.pieces for pair in zip(*piece, strict=True)]:
            if gradient is None:
                continue
            param = call.params[index]
            gradient = join_complex(copy_unless_alone(gradient, taken) if update.borrowed else gradient, param)
            _accumulate(param, gradient, sharded=call.processes.shards is not None)
            written.append(param)
        # all is written by then: a hook may step an optimizer, free .grad, or raise
        for param in written:
            # Autograd calls these where it accumulates itself. Letting it do so (a backward from the parameter) would
            # call the parameter's other hooks a second time.
            hooks = getattr(param, "_post_accumulate_grad_hooks", None)
            for hook in list(hooks.values()) if hooks else ():
                hook(param)


def _accumulate(param: torch.Tensor, gradient: torch.Tensor, *, sharded: bool) -> None:
    """Add ``gradient``, or what lies here of one, to ``.grad``, in place where there is something."""
    if param.grad is not None:
        held = view_shard(param.grad) if sharded else param.grad
        if takes_writes(held):
            held.add_(gradient)
            return
        gradient = gradient + held  # in this order for a sparse one
    gradient = gradient if gradient.dtype == param.dtype else gradient.to(param.dtype)
    param.grad = as_gradient_of(param, gradient) if sharded else gradient


def _spoil(params: Iterable[torch.Tensor]) -> None:
    """Write NaN to ``.grad``: a GradScaler skips its step and lowers its factor only when it meets such a gradient.

    The gradients themselves will not do: those of an infinite loss may be finite.
    """
    with torch.no_grad():
        for param in params:
            if param.grad is not None and takes_writes(param.grad):
                param.grad.fill_(torch.nan)
            else:
                param.grad = torch.full_like(param, torch.nan)
