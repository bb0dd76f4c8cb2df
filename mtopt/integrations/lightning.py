"""mtopt in Lightning: :class:`MultiLossMixin` for a ``LightningModule``, :func:`backward` for Fabric."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_map

from mtopt._counts import check_count
from mtopt._errors import CheckpointError
from mtopt._losses import Losses
from mtopt._replay import Generators, graph_where_needed
from mtopt.autograd import Private, StepRecord, check_rule
from mtopt.combiners import Combiner
from mtopt.distributed import processes_of
from mtopt.integrations._extras import require
from mtopt.integrations._micro_batches import MicroBatches, micro_batches_of
from mtopt.integrations._records import Seen, numbers_of, reevaluate, returned, total_of, values_of
from mtopt.training import load_rule_state, read_rule, refuse_closure, whole_rule_state

require("lightning", "lightning", "pytorch_lightning", "lightning_fabric")

__all__ = ["MultiLossMixin", "backward"]

STATE_KEY = "mtopt_combiner"
"""Where a Lightning checkpoint has the rule's state."""

STEPS_KEY = "mtopt_steps"
"""Where it has the number of steps that were not skipped."""


class MultiLossMixin:
    """Makes a ``LightningModule`` train on several losses, by manual optimization::

        class TwoTasks(MultiLossMixin, LightningModule):
            def __init__(self):
                super().__init__(combiner=mtopt.create_combiner("mgda"), gradient_clip_val=1.0)
                self.trunk, self.left, self.right = ...

            def losses(self, batch):
                features = self.trunk(batch.images)
                return {"left": ..., "right": ...}

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters())

    ``training_step`` is here. Lightning leaves a manual step accumulation, clipping and schedulers to do; it does them
    as Lightning's own does, under arguments of the same names, which belong here and not in ``Trainer(...)``:

    - *Accumulation*: the raw gradients of ``accumulate_grad_batches`` micro-batches are summed, and the rule is applied
      once. ``losses`` returns means over its micro-batch; they are divided by the number of micro-batches in the step,
      of which an epoch's last has what is left.
    - *Clipping* acts on the combined direction, unscaled.
    - *Mixed precision*: under ``16-mixed`` the rule sees unscaled gradients, and a NaN or infinity makes the GradScaler
      skip the step. ``bf16-mixed`` needs nothing.
    - *Schedulers* are stepped at the ``interval`` (default ``"epoch"``) and ``frequency`` that ``configure_optimizers``
      gives them, after the step. A step that is skipped does not count, but an epoch whose last step it is does.
    - *Checkpoints* hold the rule's state.
    - *Logs* have every loss, weight, gradient norm and cosine, and the number of conflicts, of every
      ``log_every_n_steps``-th step.

    A skipped step leaves parameters, the optimizer's state and the rule's as they are. With ``Trainer(strategy="ddp")``
    and ``ModelParallelStrategy`` (FSDP2) losses and gradients are means over the ranks before the rule sees them.

    Args:
        combiner: the rule, or a name in the registry.
        accumulate_grad_batches: micro-batches per step.
        gradient_clip_val, gradient_clip_algorithm: as in ``Trainer``; None: no clipping.
        private: what a parameter gets that only one loss reaches, see :func:`mtopt.backward`.
        strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
        needs_graph: the losses differentiate inside (forces, gradient penalties), so :meth:`loss_values` and a rule's
            second look keep a graph. A ``validation_step`` that calls ``losses`` itself would need
            ``Trainer(inference_mode=False)`` and ``torch.enable_grad()``. Default: False.
        others: as ``LightningModule`` takes them.

    Attributes:
        record: the :class:`mtopt.StepRecord` of the last step. Callbacks find it in the step's outputs, too.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        CheckpointError: a checkpoint has no state of the rule, or that of another rule.
    """

    trainer: Any
    optimizers: Any
    clip_gradients: Any
    lr_scheduler_step: Any
    log_dict: Any

    def __init__(
        self,
        *args: Any,
        combiner: Combiner | str,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        private: Private | None = None,
        strict: bool = False,
        needs_graph: bool = False,
        **kwargs: Any,
    ) -> None:
        if type(self).losses is MultiLossMixin.losses:
            raise TypeError(f"{type(self).__name__} must define losses(self, batch)")
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.combiner = read_rule(combiner, None)
        check_rule(self.combiner, private)
        check_count("accumulate_grad_batches", accumulate_grad_batches)
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.private, self.strict, self.needs_graph = private, strict, needs_graph
        self.record: StepRecord | None = None
        self._micro_batches = MicroBatches()
        self._seen: list[Seen] = []  # of the step, for a rule that asks for its losses again
        self._taken = 0  # steps that were not skipped, which schedulers count

    def losses(self, batch: Any) -> Losses:
        """The losses of a micro-batch, as :func:`mtopt.backward` takes them: a mapping from names or
        :class:`mtopt.Objective` (or a sequence) of scalar tensors, callables, or None where a task is absent."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any] | None:
        """One micro-batch; with the last of a step, the rule, the optimizer and the schedulers."""
        with processes_of():  # what is raised on one rank is raised on all
            return self._one_micro_batch(batch, batch_idx)

    def _one_micro_batch(self, batch: Any, batch_idx: int) -> dict[str, Any] | None:
        optimizer = self._optimizer()
        size, position = self._step_around(batch_idx)
        if position == 0:
            self._micro_batches.clear()
            self._seen.clear()
        if self.trainer.global_step == 0:
            self._taken = 0  # of another Trainer
        if self.combiner.reevaluates:
            self._seen.append(Seen(batch, 1.0 / size, Generators.of(self)))  # type: ignore[arg-type]
        losses = self._losses(batch)
        last = position == size - 1 or self.trainer.is_last_batch
        if last:
            optimizer.zero_grad()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        record = self._micro_batches.add(
            losses,
            self,  # type: ignore[arg-type]  # a LightningModule is a torch.nn.Module
            self.combiner,
            last=last,
            share=1.0 / size,
            scaler=scaler,
            private=self.private,
            strict=self.strict,
        )
        if record is None:
            return None
        if self.gradient_clip_val is not None:
            factor = 1.0 if scaler is None else scaler.get_scale()  # what the gradients carry until the step
            self.clip_gradients(optimizer, self.gradient_clip_val * factor, self.gradient_clip_algorithm)
        optimizer.step()  # a skipped step, too: there is no gradient to go by, and a GradScaler must see it
        if self.combiner.awaits_losses:
            reevaluate(self.combiner, self._seen, self._losses, self, needs_graph=self.needs_graph)
        self.record = record
        self._taken += not record.skipped
        self.step_schedulers()
        self._log(record)
        return {"loss": torch.tensor(total_of(record, losses)), "record": record}

    def loss_values(self, batch: Any) -> dict[str, float]:
        """The losses of a batch as numbers, for ``validation_step`` and ``test_step``: without a graph, or with one
        where ``needs_graph`` says so, in Lightning's inference mode, too."""
        with torch.inference_mode(False) if self.needs_graph else nullcontext():
            if self.needs_graph:
                batch = tree_map(_made_normal, batch)
            with graph_where_needed(self.needs_graph, "the module"):
                return values_of(self._losses(batch))[0]

    def step_schedulers(self) -> None:
        """Step the learning-rate schedulers that are due after a step, ``self.record.skipped`` or not. Override it for
        one that Lightning knows nothing of."""
        assert self.record is not None
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                raise ValueError(
                    "ReduceLROnPlateau needs a metric: override step_schedulers to leave it out, and step it in "
                    "on_validation_epoch_end"
                )
            if config.interval == "step":
                due = not self.record.skipped and self._taken % config.frequency == 0
            else:
                due = self.trainer.is_last_batch and (self.trainer.current_epoch + 1) % config.frequency == 0
            if due:
                self.lr_scheduler_step(config.scheduler, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the rule's state. A subclass that has this hook calls ``super()``'s."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        with processes_of() as processes:
            checkpoint[STATE_KEY] = whole_rule_state(self.combiner, self, processes)  # type: ignore[arg-type]
        checkpoint[STEPS_KEY] = self._taken

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the rule's state. A subclass that has this hook calls ``super()``'s."""
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        self._taken = checkpoint.get(STEPS_KEY, checkpoint["global_step"])
        if STATE_KEY in checkpoint:
            load_rule_state(self.combiner, checkpoint[STATE_KEY], self)  # type: ignore[arg-type]
        elif self.combiner.stateful:
            raise CheckpointError(
                f"the checkpoint has no {STATE_KEY!r}, and {self.combiner!r} carries a state from step to step; "
                "resume from one that a module with MultiLossMixin wrote, or load the model's weights alone"
            )

    def _log(self, record: StepRecord) -> None:
        """Once a step: left to Lightning, what is logged by step is written with every micro-batch."""
        numbers = {name: torch.tensor(value) for name, value in numbers_of(record).items()}
        self.log_dict(numbers, batch_size=1, logger=False)
        trainer = self.trainer
        if trainer.global_step % trainer.log_every_n_steps == 0 or trainer.should_stop or trainer.fast_dev_run:
            trainer._logger_connector.log_metrics(numbers)

    def _losses(self, batch: Any) -> Losses:
        return returned(self.losses(batch), self, "losses")

    def _optimizer(self) -> Any:
        optimizer = self.optimizers()
        if isinstance(optimizer, list):
            raise ValueError(
                f"configure_optimizers must return one optimizer for all the losses, found {len(optimizer)}; give one "
                "optimizer several parameter groups"
            )
        refuse_closure(optimizer, "this mixin")
        return optimizer

    def _step_around(self, batch_idx: int) -> tuple[int, int]:
        """The number of micro-batches in the step that a batch of the epoch belongs to, and its position there."""
        position = batch_idx % self.accumulate_grad_batches
        left = self.trainer.num_training_batches - (batch_idx - position)  # infinity where nobody knows
        return int(min(self.accumulate_grad_batches, left)), position


def backward(
    fabric: Any,
    losses: Losses,
    model: Any,
    combiner: Combiner,
    *,
    accumulate: bool = False,
    private: Private | None = None,
    strict: bool = False,
) -> StepRecord | None:
    """Differentiate K losses, combine their gradients by a rule, and add the direction to ``.grad``: for Fabric.

    ::

        combiner = mtopt.create_combiner("mgda")  # once, before the loop
        for batch in loader:
            optimizer.zero_grad()
            backward(fabric, losses_of(model, batch), model, combiner)  # instead of fabric.backward(loss)
            optimizer.step()
        fabric.save("last.ckpt", {"model": model, "optimizer": optimizer, "combiner": combiner})  # load alike

    Under ``16-mixed`` Fabric's GradScaler scales the losses and the rule sees unscaled gradients;
    ``fabric.clip_gradients`` works as always.
    With ``ModelParallelStrategy``, ``fabric.load`` leaves the rule as it is and puts its state in the dictionary: save
    ``mtopt.training.whole_rule_state(combiner, model.module, processes)``, and load it by ``load_rule_state``.

    Args:
        fabric: a ``Fabric``, in one process or under the strategy ``ddp`` or ``ModelParallelStrategy`` (FSDP2).
        losses: as :func:`mtopt.backward` takes them. As with ``fabric.backward``, nothing is divided: for the mean over
            n micro-batches, divide them by n.
        model: what ``fabric.setup`` returned.
        combiner: the rule. Create it once, before the loop: it may carry state from step to step.
        accumulate: more micro-batches of this step will come: keep the K raw gradients, and leave ``.grad`` alone.
        private, strict: as in :func:`mtopt.backward`.

    Returns:
        The step's record; None while gradients are accumulated. A step that is ``skipped`` leaves ``.grad`` as it was.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        NonFiniteError: in strict mode.
    """
    if type(model).__name__ != "_FabricModule":
        raise TypeError(f"model must be what fabric.setup(model, optimizer) returned, found {type(model).__name__}")
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    with _inside_fabric_backward(model):
        return micro_batches_of(model).add(
            losses, model.module, combiner, last=not accumulate, scaler=scaler, private=private, strict=strict
        )


def _made_normal(value: Any) -> Any:
    """A tensor that was made in inference mode has no place in a graph; its copy has."""
    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value


@contextmanager
def _inside_fabric_backward(model: Any) -> Iterator[None]:
    """Fabric refuses a backward pass that ``fabric.backward`` did not start: it would miss the scaling, done here."""
    wrappers: Any = sys.modules[type(model).__module__]
    before = wrappers._in_fabric_backward
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = before
