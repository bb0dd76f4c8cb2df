"""``mtopt.backward``: what stands in a training loop instead of ``loss.backward()``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mtopt._losses import Absent, Batch, Losses, NoLossError
from mtopt.autograd._call import Call, Features, Params, PlanName, Private, Store, weighs_by_products
from mtopt.autograd._matrix_free_options import MatrixFree
from mtopt.autograd._record import StepRecord
from mtopt.autograd._step import Plan, run_step
from mtopt.autograd.plans import (
    Blockwise,
    Draws,
    FollowedDraws,
    FollowedWeights,
    KeptRows,
    KeptWeights,
    Layers,
    LossValues,
    Representation,
    SeveralBatches,
    StreamedRows,
    TwoPoints,
    alive_in_rounds,
)
from mtopt.combiners import Combiner, NormCombiner
from mtopt.distributed import processes_of
from mtopt.linalg import rows_fit

LOG = logging.getLogger("mtopt.autograd")

KEPT_BYTES = 1 << 24
"""Bytes of K gradients up to which they are kept: adding them up as they come takes longer than it saves memory."""

MANY = 1 << 22
"""Numbers in K gradients from which a look at the graph, some milliseconds, may pay."""

SPARED, PAYS = 1 << 25, 0.95
"""Multiplications that the plan by layers must spare, a millisecond of one core, and its share of all."""


def backward(
    losses: Losses | Draws | Callable[[], Losses],
    params: Params,
    combiner: Combiner,
    *,
    features: Features = None,
    scaler: Any = None,
    private: Private | None = None,
    strict: bool = False,
    plan: PlanName | MatrixFree = "auto",
    store: Store = None,
    absent: Absent = None,
    retain_graph: bool = False,
) -> StepRecord:
    """Differentiate K losses, combine their gradients by a rule, and add the direction to ``.grad``.

    It stands where ``loss.backward()`` stood; the optimizer, clipping and schedulers stay as they are::

        record = mtopt.backward({"retain": retain_loss, "forget": -forget_loss}, model.parameters(), combiner)
        optimizer.step()

    Args:
        losses: a sequence, a tensor (K,), a mapping from names (or :class:`Objective`), or a callable that returns one
            of these. A loss is a scalar tensor; a callable that returns one, which is run, differentiated and freed
            before the next; or None where it is absent. A rule on several draws takes a sequence of such collections.
        params: what to fill: a module, its ``named_parameters()``, or bare parameters. Under several ranks each has
            them all, wrapped in DDP or not, and a part of the batch: see docs/distributed.md.
        combiner: the rule. Create it once, before the loop: it may carry state.
        features: the shared trunk's output, or several: heads are differentiated once, the trunk K times.
        scaler: a ``torch.amp.GradScaler``. The rule sees unscaled gradients, ``.grad`` is scaled.
        private: what a parameter gets that one loss alone reaches: ``"own"`` gradient (default of rules on gradients),
            ``"weighted"`` (of rules on losses), or ``"combined"``: it counts as shared.
        strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
        plan: ``"auto"``, ``"loop"``, ``"layers"``, ``"batched"``, ``"features"``, ``"matrix_free"``, a MatrixFree;
        store: None, ``torch.bfloat16``, ``torch.float16`` or ``"recompute"``: see docs/plans.md.
        absent: ``"nan"``: a loss whose value is NaN is absent, as None is. Default: it has the step skipped.
        retain_graph: keep the graph, as in ``loss.backward``.

    Returns:
        The step's record, which says if the step was skipped, and why.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        NonFiniteError: in strict mode, naming the objectives.
    """
    with processes_of(params) as processes:
        call = Call.of(
            losses,
            params,
            combiner,
            scaler=scaler,
            private=private,
            strict=strict,
            features=features,
            plan=plan,
            store=store,
            absent=absent,
            retain_graph=retain_graph,
            processes=processes,
        )
        try:
            with hints():
                return logged(run_step(call, choose(call)))
        except NoLossError:
            if absent is None:
                raise
            return logged(nothing_present())


@contextmanager
def hints() -> Iterator[None]:
    """Adds what to do to an error of torch that only several passes of one graph meet, and lets every error pass."""
    try:
        yield
    except RuntimeError as error:
        if "donated buffer" in str(error):
            error.add_note(_DONATED)
        raise


def choose(call: Call) -> Plan:
    """How the step of a call is made."""
    rule = call.rule
    if call.free is not None:
        return FollowedDraws.of_draws(call) if rule.draws > 1 else FollowedWeights(call)
    if rule.draws > 1:
        return SeveralBatches.of_draws(call)
    if rule.revisits:
        return TwoPoints(call)
    batch = Batch(call.losses, call.scale, retain_graph=call.retain_graph, processes=call.processes)
    if batch.all_tensors and rule.needs == "losses" and call.private in (None, "weighted"):
        return LossValues(call, batch)
    if rule.kept_weights((), len(batch.objectives)) is not None and (kept := KeptWeights.of(call, batch)) is not None:
        return kept
    if call.plan == "features" or (rule.on_features and call.features is not None and batch.all_tensors):
        on_features = Representation(call, batch)
        if on_features.obstacle is None:
            return on_features
    layers, why = _by_layers(call, batch)
    if layers is not None:
        return layers
    if batch.all_tensors and _adds_up(call, len(batch.present)):
        return StreamedRows(call, batch)
    if len(batch.present) > 2 and (short := _no_room(call, batch)):
        return Blockwise(call, batch, short)
    return KeptRows(call, batch, why=why)


def _by_layers(call: Call, batch: Batch) -> tuple[Layers | None, str]:
    """The plan by layers where it was asked for, or pays; and why it is not followed, though it was asked for."""
    if call.plan == "layers":
        layers, obstacle = Layers.of(call, batch)
        return layers, f"; not by layers, since {obstacle}" if obstacle else ""
    count, entries = len(batch.present), sum([p.numel() for p in call.params])
    at_choice = call.plan == "auto" and call.store in (None, "recompute") and weighs_by_products(call.rule)
    if not at_choice or call.processes.several or count < 2 or count * entries < MANY:
        return None, ""
    if short := _no_room(call, batch):
        layers, _ = Layers.of(call, batch, short)
        return layers if layers is not None and layers.alive <= alive_in_rounds(call.params, count) else None, ""
    layers, _ = Layers.of(call, batch)
    return layers if layers is not None and layers.spared > SPARED and layers.share < PAYS else None, ""


def _adds_up(call: Call, count: int) -> bool:
    """Whether rows are to be added up as they come: two gradients, the sum and the next, whatever K."""
    separable = isinstance(call.rule, NormCombiner) and call.rule.separable
    if not separable or count < 3 or call.store not in (None, "recompute"):
        return False
    large = count * sum([p.numel() * p.element_size() for p in call.params]) > KEPT_BYTES
    return call.store == "recompute" or (call.plan == "auto" and large)


def _no_room(call: Call, batch: Batch) -> str:
    """Why no rows are to be kept, in words; none where they are."""
    if call.store == "recompute":
        return "store='recompute'"
    at_choice = call.store is None and call.plan == "auto" and batch.all_tensors and weighs_by_products(call.rule)
    if not at_choice or not call.processes.meet(not rows_fit(call.params, len(batch.present))):
        return ""
    return f"{len(batch.present)} gradients do not fit in the free memory"


_DONATED = (
    "A compiled model whose first backward did not keep the graph (a plain loss.backward(), or a rule on losses) gives "
    "its activations away in every backward, and K backward passes of one graph need them kept. Set "
    "torch._functorch.config.donated_buffer = False (import torch._functorch.config) before the model is compiled, or "
    "give the losses as callables, each with a forward of its own."
)


def logged(record: StepRecord) -> StepRecord:
    """``record`` itself, with its plan in the debug log."""
    if LOG.isEnabledFor(logging.DEBUG):
        LOG.debug("%d backwards; %s%s", record.backwards, record.plan, f"; {record.reason}" if record.reason else "")
    return record


def nothing_present() -> StepRecord:
    """The record of a step that no loss is left for."""
    return StepRecord(
        losses={},
        skipped=True,
        reason="no loss is present: all of them are NaN (or None), which absent='nan' takes as absent",
        plan="no backward",
    )
