"""``mtopt.per_instance``: one loss per sample, at the cost of a few backwards whatever the size of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from mtopt._losses import Batch, Objective
from mtopt.autograd._agreement import require_agreement
from mtopt.autograd._call import Call, check_rule, weighs_by_products
from mtopt.autograd._instance_gramian import InstancePass
from mtopt.autograd._instance_groups import GroupRows, SampleGroups
from mtopt.autograd._layer_hooks import LayerHooks
from mtopt.autograd._reach import Grouping, Reach, refuse_reentrant, require_dense
from mtopt.autograd._record import StepRecord
from mtopt.autograd._step import Evidence, Plan, Update, run_step
from mtopt.autograd.plans import WHAT, LossValues
from mtopt.combiners import Combiner, Outcome
from mtopt.linalg import InnerProducts

_APART = (
    "Samples must lie along the first dimension of every layer (and no other dimension that comes first may be as "
    "long), and no sample's loss may depend on another's activations; else give mtopt.backward(list(losses), ...), "
    "which takes one backward pass per loss"
)

WHO = "mtopt.per_instance, whose losses belong to the samples of one process,"


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
    parameter with several such uses is exact, too. All others (recurrent layers, say) take one backward pass per
    loss, which ends at them; the record's ``plan`` names them.

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
        self._hooks = LayerHooks(model)
        self._has_listened = self._has_checked = False

    def __enter__(self) -> Self:
        self._hooks.listen()
        self._has_listened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hooks.stop()

    def gramian(self, losses: torch.Tensor) -> torch.Tensor:
        """``G[i, j] = <g_i, g_j>`` (B, B), float64 on the CPU, of the gradients of ``losses`` (B,).

        The graph is kept, so that :meth:`backward` may follow.
        """
        self._check(losses)
        return InstancePass(self._hooks, losses, 1.0).gramian

    def backward(
        self,
        losses: torch.Tensor,
        combiner: Combiner,
        *,
        groups: Mapping[str, Any] | Mapping[Objective, Any] | Mapping[str | Objective, Any] | None = None,
        scaler: Any = None,
        strict: bool = False,
        retain_graph: bool = False,
    ) -> StepRecord:
        """Combine the gradients of ``losses`` by a rule, and add the direction to ``.grad``.

        Args:
            losses: (B,), loss i of sample i alone.
            combiner: a rule on inner products, norms or losses. The weights it gives are those of this batch's samples;
                a rule that keeps something for each objective from step to step keeps it for a place in the batch.
                With ``groups``: any rule on one mini-batch.
            groups: the objectives, each the mean loss of some samples, by name or :class:`Objective`: a slice,
                positions or a mask (B,). One pass makes a gradient for each. Default: each sample is one.
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
        check_rule(combiner, None)
        _require_fitting(combiner, grouped=groups is not None)
        call = Call.of(
            losses,
            self._model,
            combiner,
            scaler=scaler,
            strict=strict,
            takes_absent=False,
            retain_graph=retain_graph,
            what=WHO,
        )
        self._hooks.listening = False
        samples = None if groups is None else SampleGroups(groups, len(losses))
        if combiner.needs == "losses":
            each = losses if samples is None else dict(zip(samples.objectives, samples.losses(losses), strict=True))
            return run_step(call, LossValues(call, Batch(each, call.scale, retain_graph=retain_graph)))
        if samples is not None:
            record = run_step(call, GroupRows(call, losses, samples, self._hooks, checked=not self._has_checked))
            self._has_checked = True
            return record
        record = run_step(call, _ByLayers(call, losses, self._hooks))
        if not retain_graph:
            self._hooks.found = []
        return record

    def _check(self, losses: torch.Tensor) -> None:
        if not self._has_listened:
            raise RuntimeError("the forward pass must run inside the with block: with mtopt.per_instance(model) as ...")
        if not isinstance(losses, torch.Tensor):
            raise TypeError(
                f"losses must be a tensor of shape (B,), one loss per sample, found {type(losses).__name__}; "
                "losses of several objectives go to mtopt.backward"
            )
        if losses.ndim != 1 or len(losses) == 0:
            raise ValueError(
                f"losses must have shape (B,) with B >= 1, one loss per sample, found {tuple(losses.shape)}; "
                'compute them with reduction="none" and take the mean over everything but the first dimension'
            )
        if not losses.requires_grad:
            raise ValueError("losses have no graph: nothing they were computed from requires gradients")
        refuse_reentrant([losses])


class _ByLayers(Plan):
    """The Gramian layer by layer, and one weighted backward pass."""

    description = "no backward"

    def __init__(self, call: Call, losses: torch.Tensor, hooks: LayerHooks) -> None:
        count = len(losses)
        objectives = [Objective(f"loss_{k}") for k in range(count)]
        super().__init__(call, Batch.of_values(objectives, range(count), losses.detach().double().tolist()))
        self.private = "combined"
        self.losses, self.hooks = losses, hooks

    def reach(self) -> Sequence[Reach]:
        self.found: InstancePass | None = None
        if self.batch.non_finite():  # all that the step might have written to
            return [(0,)] * len(self.call.params)
        found = self.found = InstancePass(self.hooks, self.losses, self.call.scale)
        self.description, self.backwards = found.tell("loss"), found.backwards
        return [(0,) if id(param) in found.params else () for param in self.call.params]

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        assert self.found is not None
        places = [self.call.places[index] for index in grouping.indices]
        yield Evidence([InnerProducts(self.found.gramian, self.found.dtype, places=places)])

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        (outcome,) = outcomes
        assert outcome.weights is not None  # the rule declares that it is weighted
        assert self.found is not None
        indices = grouping.indices
        direction = torch.autograd.grad(
            self.losses,
            [self.call.params[index] for index in indices],
            (outcome.weights * self.call.scale).to(self.losses.device, self.losses.dtype),
            retain_graph=self.call.retain_graph,
            allow_unused=True,
        )
        self.backwards += 1
        require_dense(self.batch.names, direction)
        require_agreement(
            [piece for piece in direction if piece is not None],
            self.found.gramian,
            outcome.weights,
            scale=self.call.scale,
            dtype=self.found.dtype,
            what="the samples' gradients",
            advice=_APART,
        )
        return Update([(indices, direction)], what=WHAT, borrowed=True)


def _require_fitting(combiner: Combiner, *, grouped: bool) -> None:
    """Raise for a rule on several mini-batches or points, and for one that needs coordinates of single instances."""
    if combiner.draws > 1:
        raise ValueError(f"{combiner!r} takes {combiner.draws} mini-batches per step, and instances are those of one")
    if combiner.revisits:
        raise ValueError(f"{combiner!r} looks at a second point, and instances are those of one forward pass")
    if not (grouped or weighs_by_products(combiner)):
        raise ValueError(
            f"{combiner!r} works on the coordinates of the gradients, which are never made for single instances; take "
            "a rule on inner products, norms or losses (mtopt.list_combiners(needs='gramian')), or give "
            "mtopt.backward(list(losses), ...), which takes one backward pass per loss"
        )
