"""mtopt in a loop with Hugging Face Accelerate: :func:`backward` stands where ``accelerator.backward`` stood."""

from __future__ import annotations

from typing import Any

import torch

from mtopt._losses import Losses
from mtopt.autograd import Private, StepRecord, check_rule
from mtopt.combiners import Combiner
from mtopt.distributed import is_sharded
from mtopt.integrations._extras import require
from mtopt.integrations._micro_batches import micro_batches_of
from mtopt.training import refuse_closure

require("accelerate", "accelerate")

__all__ = ["backward"]


def backward(
    accelerator: Any,
    losses: Losses,
    model: torch.nn.Module,
    combiner: Combiner,
    *,
    private: Private | None = None,
    strict: bool = False,
) -> StepRecord | None:
    """Differentiate K losses, combine their gradients by a rule, and add the direction to ``.grad``.

    ::

        combiner = mtopt.create_combiner("mgda")  # once, before the loop
        accelerator.register_for_checkpointing(combiner)  # save_state and load_state then keep its state
        for batch in loader:
            with accelerator.accumulate(model):
                backward(accelerator, losses_of(model, batch), model, combiner)  # instead of accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()

    With gradient accumulation the K raw gradients of the micro-batches are summed, and the rule is applied when
    ``accelerator.sync_gradients`` says that the step is complete. The losses are divided here, and only here, by
    ``accelerator.gradient_accumulation_steps``, as ``accelerator.backward`` does. Under fp16 its GradScaler scales the
    losses, the rule sees unscaled gradients, and ``accelerator.clip_grad_norm_`` works as always. bf16 needs nothing.

    Args:
        accelerator: an ``accelerate.Accelerator``, in one process or several (DDP, FSDP2), and without DeepSpeed.
        losses: of this micro-batch, undivided, as :func:`mtopt.backward` takes them.
        model: what ``accelerator.prepare`` returned.
        combiner: the rule. Create it once, before the loop: it may carry state from step to step.
        private, strict: as in :func:`mtopt.backward`.

    Returns:
        The step's record; None while gradients are accumulated. A step that is ``skipped`` leaves ``.grad`` empty, and
        ``optimizer.step`` then changes nothing.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        RuntimeError: an engine that makes its own backward passes.
        NonFiniteError: in strict mode.
    """
    if not hasattr(accelerator, "sync_gradients"):
        raise TypeError(f"accelerator must be an accelerate.Accelerator, found {type(accelerator).__name__}")
    refuse_engines(accelerator)
    check_rule(combiner, private)
    if combiner.needs == "jacobian" and combiner.stateful:
        _refuse_part(accelerator, combiner, model)
    if combiner.needs != "losses":  # one on losses may be called within the closure
        held = set(model.parameters())
        for optimizer in accelerator._optimizers:
            if any(param in held for group in optimizer.param_groups for param in group["params"]):
                refuse_closure(optimizer, f"{combiner!r}, which combines gradients,")
    return micro_batches_of(model).add(
        losses,
        accelerator.unwrap_model(model),
        combiner,
        last=accelerator.sync_gradients,
        share=1.0 / accelerator.gradient_accumulation_steps,
        scaler=accelerator.scaler,
        private=private,
        strict=strict,
    )


def _refuse_part(accelerator: Any, combiner: Combiner, model: torch.nn.Module) -> None:
    """Raise where Accelerate would save what a rule keeps of the first process's shards, and load it on all."""
    if any(each is combiner for each in accelerator._custom_objects) and is_sharded(model.parameters()):
        raise ValueError(
            f"combiner is {combiner!r}, which keeps something of each process's shard, and is registered for "
            "checkpoints, which the first process writes alone; save mtopt.training.whole_rule_state(combiner, model, "
            "processes) yourself, with all processes, and load it by load_rule_state"
        )


def refuse_engines(accelerator: Any) -> None:
    """Raise where gradients are not the parameters' own, but kept by an engine with a backward pass of its own."""
    engine = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    if engine in ("DEEPSPEED", "MEGATRON_LM", "XLA"):
        raise RuntimeError(
            f"accelerator runs {engine}, which makes its own backward passes and keeps the gradients; "
            "mtopt needs them one loss at a time: run without it"
        )
