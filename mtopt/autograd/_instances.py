"""``mtopt.per_instance``: one loss a sample, at the cost of a few backwards whatever the size of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from mtopt.autograd._calls import Calls
from mtopt.autograd._combine import record_of, skipped
from mtopt.autograd._finite import state_before
from mtopt.autograd._graph import refuse_reentrant
from mtopt.autograd._inner_products import InnerProducts, require_gramian_rule
from mtopt.autograd._instance_gramian import InstancePass, require_dense
from mtopt.autograd._objective import Objective
from mtopt.autograd._passes import Weighted
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request
from mtopt.autograd._rows import trainable
from mtopt.autograd._step import Group, Step
from mtopt.autograd._weighted import weigh_losses
from mtopt.combiners import Combiner
from mtopt.linalg import norm_of


def per_instance(model: nn.Module) -> Instances:
    """Take down the calls of ``model``'s layers, for a rule over the losses of single samples.

    ::

        with mtopt.per_instance(model) as instances:
            losses = criterion(model(x), y)             # (B,), e.g. nn.CrossEntropyLoss(reduction="none")
        record = instances.backward(losses, combiner)   # instead of losses.mean().backward()
        optimizer.step()

    The Gramian ``G[i, j] = <g_i, g_j>`` of the B gradients comes from one backward, of the sum of the losses, and from
    the inputs and output gradients of the layers: no gradient of a single sample is made as a whole. A second backward,
    of the weighted losses, makes the direction. Both are exact.

    Samples must lie along the first dimension, and the loss of a sample must depend on no other's activations, so that
    batch normalisation in training mode is refused. Taken apart are linear layers, convolutions, embeddings, layer,
    group, instance, RMS and (in eval mode) batch normalisation, the projections of ``nn.MultiheadAttention``,
    transformers' ``Conv1D``, and parameters that are added to a tensor with samples or multiplied with one; a
    parameter with several such uses is exact, too. All others (recurrent layers, say) take a backward a loss, which
    ends at them; the record's ``plan`` names them.

    Args:
        model: the module whose trainable parameters get their ``.grad``. Not compiled; nothing of it is changed.
    """
    return Instances(model)


class Instances:
    """The calls of a model's layers between ``__enter__`` and ``__exit__``; see :func:`per_instance`."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, found {type(model).__name__}")
        self._model = model
        self._calls = Calls(model)
        self._has_listened = False

    def __enter__(self) -> Self:
        self._calls.listen()
        self._has_listened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._calls.stop()

    def gramian(self, losses: torch.Tensor) -> torch.Tensor:
        """``G[i, j] = <g_i, g_j>`` (B, B), float64 on the CPU, of the gradients of ``losses`` (B,).

        The graph is kept, so that :meth:`backward` may follow.
        """
        self._check(losses)
        return InstancePass(self._calls, losses, 1.0).gramian

    def backward(
        self,
        losses: torch.Tensor,
        combiner: Combiner,
        *,
        scaler: Any = None,
        strict: bool = False,
        retain_graph: bool = False,
    ) -> StepRecord:
        """Combine the gradients of ``losses`` by a rule, and add the direction to ``.grad``.

        Args:
            losses: (B,), loss i of sample i alone.
            combiner: a rule on inner products, norms or losses. The weights it gives are those of this batch's samples;
                a rule that keeps something for each objective from step to step keeps it for a place in the batch.
            scaler: a ``torch.amp.GradScaler``, as in :func:`mtopt.backward`.
            strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
            retain_graph: keep the graph, for another backward. Default: it is freed.

        Returns:
            The step's record, whose losses are named ``loss_0``, ``loss_1``, ... by their place in the batch.

        Raises:
            TypeError, ValueError: a wrong argument, a layer that mixes samples, or a rule that needs coordinates.
            RuntimeError: the inner products do not belong to the direction: samples are not along the first dimension,
                or a loss depends on another sample. Nothing is written then, but the rule has weighed.
            NonFiniteError: in strict mode, naming the losses.
        """
        self._check(losses)
        require_gramian_rule(combiner)
        places = trainable(self._model)
        self._calls.listening = False
        if combiner.needs == "losses":
            request = Request(list(losses.unbind()), places, scaler, retain_graph=retain_graph)
            return weigh_losses(request, combiner, strict)
        count = len(losses)
        scaled = scaler is not None and scaler.is_enabled()
        scale = float(scaler.scale(torch.ones((), device=losses.device))) if scaled else 1.0
        step = Step(
            objectives=[Objective(f"loss_{k}") for k in range(count)],
            present=range(count),
            values=losses.detach().double().tolist(),
            private="combined",
            trunk=None,
            scale=scale,
            scaled=scaled,
            strict=strict,
            plan="",
            places=places,
        )
        bad = [k for k, value in enumerate(step.values) if not math.isfinite(value)]
        if bad:
            everything = Group(tuple(range(count)), shared=True, indices=list(range(len(places))))
            return skipped(f"non-finite loss: {_named(bad)}", [everything], step.with_plan("no backward"), backwards=0)
        found = InstancePass(self._calls, losses, scale)
        step = step.with_plan(found.plan)
        indices = [index for index, place in enumerate(places) if id(place.parameter) in found.reached]
        group = Group(tuple(range(count)), shared=True, indices=indices)
        bad = (~found.gramian.diagonal().isfinite()).nonzero()[:, 0].tolist()
        if bad:
            return skipped(f"non-finite gradient: {_named(bad)}", [group], step, backwards=found.backwards)
        gradients = InnerProducts(found.gramian, [places[index] for index in indices], found.dtype)
        before = state_before(combiner, [], step)
        weights = combiner.combine(gradients, step.minimised).weights
        assert weights is not None  # the rule declares that it is weighted
        seeds = (weights * scale).to(losses.device, losses.dtype)
        params = [places[index].parameter for index in indices]
        direction = torch.autograd.grad(losses, params, seeds, retain_graph=retain_graph, allow_unused=True)
        if not retain_graph:
            self._calls.found = []
        require_dense(direction)
        made = Weighted([(indices, direction)], {}, 1)
        reason = made.refusal(step)
        if reason is not None:
            if before is not None:
                combiner.load_state_dict(before)
            return skipped(reason, [group], step, backwards=found.backwards + 1)
        _require_agreement(direction, found, weights, scale)
        made.write(step)
        by_position = dict(enumerate(weights.tolist()))
        return record_of((group, gradients), by_position, combiner, step, backwards=found.backwards + 1)

    def _check(self, losses: torch.Tensor) -> None:
        if not self._has_listened:
            raise RuntimeError("the forward pass must run inside the with block: with mtopt.per_instance(model) as ...")
        if not isinstance(losses, torch.Tensor):
            raise TypeError(
                f"losses must be a tensor of shape (B,), one loss a sample, found {type(losses).__name__}; "
                "losses of several objectives go to mtopt.backward"
            )
        if losses.ndim != 1 or len(losses) == 0:
            raise ValueError(
                f"losses must have shape (B,) with B >= 1, one loss a sample, found {tuple(losses.shape)}; "
                'compute them with reduction="none" and take the mean over everything but the first dimension'
            )
        if not losses.requires_grad:
            raise ValueError("losses have no graph: nothing they were computed from requires gradients")
        refuse_reentrant([losses])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks = torch.distributed.get_world_size()
            if ranks > 1:
                raise RuntimeError(
                    f"the samples of {ranks} ranks would each be combined on their own, and the ranks drift apart; "
                    "train in one process"
                )


def _require_agreement(
    direction: Sequence[torch.Tensor | None], found: InstancePass, weights: torch.Tensor, scale: float
) -> None:
    """Raise unless ``||d||² = w' G w`` for the direction d that autograd gave."""
    square = (norm_of([piece for piece in direction if piece is not None]) / scale) ** 2
    expected = float(weights @ found.gramian @ weights)
    bound = float((weights.abs() * found.gramian.diagonal().sqrt()).sum()) ** 2
    tolerance = min(1000 * torch.finfo(found.dtype).eps, 0.02)
    if abs(square - expected) > tolerance * bound:
        raise RuntimeError(
            f"the inner products of the samples' gradients do not belong to the direction: its squared length is "
            f"{square:.6g}, and they say {expected:.6g}. Samples must lie along the first dimension of every layer "
            "(and no other dimension that comes first may be as long), and no sample's loss may depend on another's "
            "activations; else give mtopt.backward(list(losses), ...) a backward a loss"
        )


def _named(positions: Sequence[int]) -> str:
    return ", ".join(f"loss_{k}" for k in positions)
