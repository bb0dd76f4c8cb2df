"""The step below K backward passes: one pass of weighted losses, and one product of the Gramian with the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad

from mtopt._forward_mode import forward_kernels, load_formulas, make_dual, scratch_like
from mtopt._losses import Batch, Losses, read_losses, run_loss
from mtopt._replay import Generators, exchanged, graph_where_needed
from mtopt.autograd._call import Call
from mtopt.autograd._matrix_free_options import MatrixFree
from mtopt.autograd._reach import Group, Grouping
from mtopt.autograd._step import Evidence, Update
from mtopt.autograd.plans._weighted import WHAT, OnGraph, differentiate_weighted
from mtopt.combiners import Combiner, Following, Outcome, list_combiners
from mtopt.linalg import Array, are_finite, copy_unless_alone, norm_of

Move = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A parameter, the direction's part by it, and memory of the same shape that may be written to."""

OFF = 0.5
"""A product that misses ``w'Gw = ||d||²`` by more than this share of it moves no weights."""


class FollowedWeights(OnGraph):
    """A rule that follows its weights: the product that moves them belongs to the pass that was made with them."""

    late = True

    def __init__(self, call: Call) -> None:
        _require_following(call.rule)
        assert call.free is not None
        self.options = call.free
        self.generators = Generators.of(require_module(call))
        super().__init__(call, run_batch(call.losses, call))
        self.made, self.off, self.obstacle = 0, 0.0, ""  # products, and the largest error of one along the weights
        self.keeps: list[bool] = []

    @property
    def description(self) -> str:  # type: ignore[override]
        """How the step was made so far."""
        words = f"matrix-free: {_counted(self.backwards or 1, 'weighted backward')}"
        if self.keeps and all(self.keeps):
            return f"{words}: the rule keeps weights"
        if self.backwards:
            words += f" and {_counted(self.made, kind_of(self.options))}"
        if self.obstacle:
            return f"{words}; {self.obstacle}"
        return f"{words}, {self.off:.1e} off along the weights before correction" if self.made else words

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        self.point = Point(self.call, self.call.losses, self.batch, self.generators)
        total = len(self.batch.objectives)
        self.rules = [cast(Following, rule) for rule in grouping.rules]  # of a kind with the one that was looked at
        objectives = [self.objectives(group) for group in grouping.shared]
        kept = [rule.kept_weights(of, total) for rule, of in zip(grouping.rules, objectives, strict=True)]
        self.keeps = [weights is not None for weights in kept]
        rounds = 1 if all(self.keeps) else self.options.iterations
        for number in range(rounds):
            self.weights = [rule.weights_to_follow(of) for rule, of in zip(self.rules, objectives, strict=True)]
            main = dict(zip(grouping.shared[0].reach, self.weights[0].tolist(), strict=True)) if objectives else {}
            own = self.own_factors(grouping, main)
            keep = number + 1 < rounds
            self.pieces = differentiate_weighted(self, self.losses, grouping, self.weights, own, retain_graph=keep)
            found = [[g for g in gradients if g is not None] for _, gradients in self.pieces]
            lengths = [
                norm_of(direction) / self.call.scale if direction else 0.0 for direction in found[: len(objectives)]
            ]
            self.lengths = self.call.processes.share(torch.tensor(lengths, dtype=torch.float64)).tolist()
            if not (all(map(math.isfinite, self.lengths)) and all(map(are_finite, found[len(objectives) :]))):
                yield Evidence(bad=f"non-finite {WHAT}")
                return
            yield Evidence()

    def ask(self, grouping: Grouping, evidence: Evidence) -> list[Outcome]:
        self.factors = []
        for number, (rule, group) in enumerate(zip(self.rules, grouping.shared, strict=True)):
            objectives, length = self.objectives(group), self.lengths[number]
            if self.keeps[number]:
                factor = rule.lengthening(objectives, length * length)
            else:
                products = self._products(group, self.pieces[number][1], length, self.weights[number].numpy())
                factor, _ = rule.follow(objectives, products, length * length, rate=self.options.rate)
            self.factors.append(factor)
        each = zip(self.weights, self.factors, strict=True)
        return [Outcome(weights if factor == 1.0 else weights * factor) for weights, factor in each]

    def _products(self, group: Group, gradients: Sequence[torch.Tensor | None], length: float, weights: Array) -> Array:
        """``G w`` (K,) of a group, for a direction of this length."""
        if length == 0.0:
            return np.zeros(len(weights))
        squared = length * length
        if len(weights) == 1:
            return np.asarray(squared / weights)
        products = self.point.multiply(group, gradients, length, weights)
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

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        # heads that are weighted are to be in proportion
        of_heads = self.factors[0] if self.factors and self.private == "weighted" else 1.0
        factors = [*self.factors, *[of_heads] * (len(self.pieces) - len(self.factors))]
        pieces = [
            (indices, gradients if factor == 1.0 else _lengthened(gradients, factor))
            for (indices, gradients), factor in zip(self.pieces, factors, strict=True)
        ]
        return Update(pieces, what=WHAT, borrowed=True, obstacle=self.obstacle)

    def note_written(self, grouping: Grouping) -> None:
        for rule, group, keeps in zip(grouping.rules, grouping.shared, self.keeps, strict=True):
            if keeps:
                rule.keep(self.objectives(group), len(self.batch.objectives))


def _lengthened(gradients: Sequence[torch.Tensor | None], factor: float) -> list[torch.Tensor | None]:
    taken: set[int] = set()
    own = [g if g is None else copy_unless_alone(g, taken) for g in gradients]
    torch._foreach_mul_([g for g in own if g is not None], factor)
    return own


def kind_of(options: MatrixFree) -> str:
    """What a product is called in a record."""
    return "forward-mode product" if options.product == "exact" else "displaced forward"


def require_module(call: Call) -> nn.Module:
    """The module of the call, whose parameters can be replaced."""
    if call.model is None:
        raise TypeError(
            "plan='matrix_free' replaces the model's parameters for a second forward: params must be the module that "
            "the losses run; several modules go into one nn.ModuleList"
        )
    return call.model


def run_batch(losses: Any, call: Call) -> Batch:
    """The losses of a callable, run with a graph."""
    batch = Batch(run_losses_of(losses, some=not call.processes.several), call.scale, processes=call.processes)
    if not batch.all_tensors:
        raise TypeError("plan='matrix_free' takes a callable that returns losses, found one that returns callables")
    return batch


def _require_following(rule: Combiner) -> None:
    """Raise for a rule that does not follow its weights."""
    if not (isinstance(rule, Following) and rule.matrix_free):
        names = ", ".join(list_combiners(matrix_free=True, draws=rule.draws))
        raise ValueError(
            f"plan='matrix_free' takes a rule that follows its weights by products of the Gramian with a vector, and "
            f"{rule!r} does not: one of {names}, or Every around one"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def run_losses_of(losses: Any, *, some: bool = True) -> Losses:
    """The losses of a callable that returns them all, or of a collection of callables; ``some`` must be there."""
    if callable(losses):
        found: Losses = losses()
        return found
    objectives, values = read_losses(losses, some=some)
    for objective, value in zip(objectives, values, strict=True):
        if isinstance(value, torch.Tensor):
            raise TypeError(
                f"plan='matrix_free' runs the losses twice, and loss {objective.name!r} is a tensor; give a callable "
                "that computes them all, such as lambda: losses(batch)"
            )
    return {objective: run_loss(value) for objective, value in zip(objectives, values, strict=True)}


class Point:
    """Where the products of a step are taken: the losses of ``batch``, run again by what they were run by.

    ``generators``: as they were before the first run.
    """

    def __init__(self, call: Call, losses: Any, batch: Batch, generators: Generators) -> None:
        assert call.free is not None
        self.call, self.options, self.processes = call, call.free, call.processes
        self.model, self.losses, self.batch, self.generators = require_module(call), losses, batch, generators
        self.values = batch.signed(batch.present).numpy()

    def multiply(self, group: Group, gradients: Sequence[torch.Tensor | None], length: float, weights: Array) -> Array:
        """``J d`` (K,) of a group, for the direction d that its gradients with these weights are.

        ``gradients`` carry a GradScaler's factor; ``length`` is that of d without it.
        """
        reached = [(self.call.places[i], g) for i, g in zip(group.indices, gradients, strict=True) if g is not None]
        scratch = scratch_like(self.model, {str(place.name): place.parameter for place, _ in reached})
        moves = [(place.parameter, along, free) for (place, along), free in zip(reached, scratch, strict=True)]
        reach = list(group.reach)
        if self.options.product == "exact":
            found = self._differentiate(moves, length)
        else:
            found = self._displace(moves, length, float(weights @ np.abs(self.values[reach])))
        return np.asarray(self.processes.share(torch.from_numpy(found[reach])))

    def _differentiate(self, moves: Sequence[Move], length: float) -> Array:
        """The directional derivatives of all losses, by forward-mode differentiation."""
        # a tangent as long as the parameters: those of the activations are then of their size, in 16 bits, too
        load_formulas()
        size = _rough_norm([param for param, _, _ in moves]) or 1.0
        with torch.no_grad(), forward_ad.dual_level(), forward_kernels(self.model):
            factor = size / (length * self.call.scale)
            replaced = {
                id(param): make_dual(param, torch.mul(along, factor, out=tangent)) for param, along, tangent in moves
            }
            # Zeros for heads: torch takes a millisecond per operation to add up a tangent and one that is not there.
            for param in self.model.parameters():
                if param.requires_grad and id(param) not in replaced:
                    replaced[id(param)] = make_dual(param, torch.zeros_like(param))
            try:
                found = [forward_ad.unpack_dual(loss) for loss in self._run_again(replaced)]  # type: ignore[no-untyped-call]
            except NotImplementedError as error:
                if "forward" not in str(error):
                    raise
                raise NotImplementedError(
                    f"plan='matrix_free' differentiates forwards, and the model has a part that cannot: "
                    f"{str(error).splitlines()[0]} Use plan=mtopt.MatrixFree(product='displacement'), which needs no "
                    "derivative"
                ) from error
        change = float(np.linalg.norm(self._means([loss.primal for loss in found]) - self.values))
        if change > 1e-2 * float(np.linalg.norm(self.values)):
            raise ValueError(
                f"losses must give the same values when they are run again, found a change of {change:.2g}: draw the "
                "batch outside of them, and random numbers from torch's, numpy's or Python's global generators; where "
                "fused attention drops out on a GPU, train with SDPBackend.MATH or use product='displacement'"
            )
        tangents = [torch.zeros_like(loss.primal) if loss.tangent is None else loss.tangent for loss in found]
        return self._means(tangents) * (length / size)

    def _displace(self, moves: Sequence[Move], length: float, size: float) -> Array:
        """``(L(x) - L(x - e d)) / e``: one more forward, without a graph.

        Along d the weighted losses, of modulus ``size``, fall by ``e ||d||²`` to first order. With a fall of a share s
        of their size, rounding to relative precision u costs ``u / s`` of the result, and curvature about s of it (a
        quarter of it for a quadratic loss with minimum zero, a half for an exponential): both are small and alike at
        ``s = sqrt(u)``, whatever the units of the losses and the parameters. Near a stationary point, where the losses
        do not fall, e is bounded by a displacement of ``cbrt(u)`` of the parameters' norm.
        """
        params = [param.detach() for param, _, _ in moves]
        dtypes = [self.batch.given[k].dtype for k in self.batch.here]  # type: ignore[union-attr]
        unit = max(torch.finfo(dtype).eps for dtype in [*dtypes, *(param.dtype for param in params)])
        share = math.sqrt(unit) if self.options.displacement is None else self.options.displacement
        fall = share * size / length  # e ||d||
        bound = unit ** (1.0 / 3.0) * _rough_norm(params)
        far = min(fall, bound) if bound > 0.0 and fall > 0.0 else max(fall, bound)
        far = float(self.processes.share(torch.tensor([far], dtype=torch.float64)))
        if not far > 0.0:
            raise ValueError(
                "the parameters and the losses are all zero, and tell no length to displace by; use product='exact'"
            )
        step = far / (length * self.call.scale)
        with torch.no_grad():
            replaced = {id(param): torch.add(param, along, alpha=-step, out=moved) for param, along, moved in moves}
            values = self._means(self._run_again(replaced))
        return np.asarray((self.values - values) * (length / far))

    def _run_again(self, replaced: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        """The losses that are here, signed, from a forward with some parameters, by their ids, replaced."""
        needs_graph, batch = self.options.needs_graph, self.batch
        with graph_where_needed(needs_graph, "mtopt.MatrixFree (or to the trainer)"):
            if needs_graph:  # they may differentiate with respect to parameters, too
                replaced = {key: tensor.requires_grad_() for key, tensor in replaced.items()}
            with exchanged(self.model, replaced), self.generators.replayed():
                some = not self.processes.several
                objectives, values = read_losses(run_losses_of(self.losses, some=some), some=some)
        present = [k for k, value in enumerate(values) if value is not None]
        if (objectives, present) != (batch.objectives, batch.here):
            raise ValueError(
                "losses must give the same objectives when they are run again, found first "
                f"{[batch.objectives[k].name for k in batch.here]}, then {[objectives[k].name for k in present]}"
            )
        found = [(values[k].reshape(()), objectives[k].sign) for k in present]  # type: ignore[union-attr]
        return [-value if sign < 0.0 else value for value, sign in found]  # a factor would have a tangent, slowly

    def _means(self, scalars: Sequence[torch.Tensor]) -> Array:
        """Numbers of the losses that are here as means over the processes, of all that are present."""
        found = [scalar.detach().reshape(()).double() for scalar in scalars]
        numbers: Array = torch.stack(found).cpu().numpy() if found else np.zeros(0)
        if not self.processes.several:
            return numbers
        by_loss = dict(zip(self.batch.here, numbers.tolist(), strict=True))
        sums = self.processes.sum_numbers([by_loss.get(k, 0.0) for k in self.batch.present])
        return np.asarray(np.array(sums) / np.array([self.batch.holders[k] for k in self.batch.present]))


def _rough_norm(tensors: Sequence[torch.Tensor]) -> float:
    """The norm of all of them together to a few digits, in one pass: a length to measure others by."""
    wide = [torch.promote_types(tensor.dtype, torch.float32) for tensor in tensors]
    parts = [torch.linalg.vector_norm(t.detach(), dtype=dtype).double() for t, dtype in zip(tensors, wide, strict=True)]
    found = float(torch.linalg.vector_norm(torch.stack([part.cpu() for part in parts])))
    return found if 1e-12 < found < 1e15 else norm_of(tensors)
