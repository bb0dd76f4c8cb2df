"""mtopt in the ``Trainer`` of transformers 5: :class:`MultiLossMixin`."""

from __future__ import annotations

import copy
import logging
import math
import os
from functools import partial
from typing import Any

import torch

from mtopt._errors import CheckpointError
from mtopt._losses import Losses
from mtopt._replay import Generators, graph_where_needed
from mtopt.autograd import Private, StepRecord, check_rule
from mtopt.combiners import Combiner
from mtopt.distributed import processes_of, reshard
from mtopt.integrations._extras import require
from mtopt.integrations._micro_batches import MicroBatches
from mtopt.integrations._records import Means, Seen, numbers_of, reevaluate, returned, values_of
from mtopt.integrations.accelerate import refuse_engines
from mtopt.training import (
    count_examples,
    load_rule_state,
    read_checkpoint,
    read_rule,
    refuse_closure,
    whole_rule_state,
    write_checkpoint,
)

require("transformers", "transformers")

from transformers import Trainer, TrainerCallback  # noqa: E402 - only once it is known to be there

__all__ = ["MultiLossMixin"]

LOG = logging.getLogger("mtopt.integrations")

STATE_FILE = "mtopt_combiner.pt"
"""The rule's state, beside the optimizer's in ``checkpoint-N/``."""


class MultiLossMixin(Trainer):  # type: ignore[misc]
    """Makes a ``Trainer`` (or a subclass of it, such as TRL's) train on several losses::

        class Unlearning(MultiLossMixin, Trainer):
            def compute_losses(self, model, inputs):
                return {
                    "retain": model(**inputs["retain"]).loss,
                    mtopt.Objective("forget", sense="max"): model(**inputs["forget"]).loss,
                }

        trainer = Unlearning(model, args, train_dataset=pairs, combiner=mtopt.create_combiner("ngdiff"))
        trainer.train()

    Everything else is the Trainer's own:

    - *Accumulation*: the raw gradients of the micro-batches are summed, and the rule is applied once, when the step is
      complete. ``compute_losses`` returns means over its micro-batch; they are divided here, and only here, by the
      number of micro-batches in the step. Where it divides by a number of its own, ``self.num_items_in_batch`` say,
      which counts the labels of the whole step, set ``loss_is_scaled_for_ga = True`` in the class: nothing is divided.
    - *Mixed precision*: bf16 by the Trainer's autocast; under fp16 the rule sees unscaled gradients, and a NaN or
      infinity makes the GradScaler skip the step.
    - *Clipping* acts on the combined direction. The Trainer's default is ``max_grad_norm=1.0``, which many rules'
      directions are longer than: 0 keeps their length.
    - *Checkpoints* hold the rule's state in ``mtopt_combiner.pt``, and ``resume_from_checkpoint`` restores it.
    - *Logs* have ``loss``, the sum of what is minimised, and the means since the last log of every loss, weight,
      gradient norm and cosine, of the number of conflicts, and of the share of skipped steps. With
      ``logging_nan_inf_filter``, the default, a micro-batch whose losses are not finite is left out of ``loss``.
    - *Evaluation* gives ``eval_loss`` and one ``eval_loss_<name>`` for each loss.

    The batch reaches ``compute_losses`` whole: ``remove_unused_columns`` is False here, and where the arguments say
    otherwise (it is the Trainer's default) a warning is logged; the trainer has a copy of them.
    Under ``torchrun`` losses and gradients are means over the ranks (DDP, FSDP2) before a rule sees them, in logs, too.
    A skipped step leaves the parameters, the optimizer's state and the rule's as they are. The step and the
    learning-rate schedule count it, but under fp16 the schedule does not.

    Args:
        combiner: the rule, or a name in the registry; a rule created from its name gets ``args.seed``, if it takes one.
        private: what a parameter gets that only one loss reaches, see :func:`mtopt.backward`.
        strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
        needs_graph: the losses differentiate inside (forces, gradient penalties), so evaluation and a rule's second
            look keep a graph. The Trainer's own forward for logits, where ``compute_metrics`` asks for them, has none.
            Default: False.
        others: as ``Trainer`` takes them.

    Attributes:
        record: the :class:`mtopt.StepRecord` of the last step; callbacks find it on the trainer.
        num_items_in_batch: what the Trainer counted for the step, or None; of several ranks, this one's share of it.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        RuntimeError: an engine with its own backward pass, when the first step is made.
        CheckpointError: the checkpoint to resume from has no state of the rule, or that of another rule.
    """

    args: Any
    loss_is_scaled_for_ga: bool | None = False

    def __init__(
        self,
        *args: Any,
        combiner: Combiner | str,
        private: Private | None = None,
        strict: bool = False,
        needs_graph: bool = False,
        **kwargs: Any,
    ) -> None:
        if type(self).compute_losses is MultiLossMixin.compute_losses:
            raise TypeError(f"{type(self).__name__} must define compute_losses(self, model, inputs)")
        super().__init__(*args, **kwargs)
        self.combiner = read_rule(combiner, self.args.seed)
        check_rule(self.combiner, private)
        self.private, self.strict, self.needs_graph = private, strict, needs_graph
        self._refuse_what_has_no_place()
        self._keep_columns()
        self.record: StepRecord | None = None
        self.num_items_in_batch: torch.Tensor | int | None = None
        self._micro_batches = MicroBatches()
        self._seen: list[Seen] = []  # of the step, for a rule that asks for its losses again
        self._since_log, self._totals, self._evaluated = Means(), Means(), Means()
        self.add_callback(_StepWatch(self))

    def compute_losses(self, model: torch.nn.Module, inputs: Any) -> Losses:
        """The losses of a micro-batch, as :func:`mtopt.backward` takes them: a mapping from names or
        :class:`mtopt.Objective` (or a sequence) of scalar tensors, callables, or None where a task is absent.

        ``inputs`` is what the data collator gave, on the model's device. In evaluation it is called without a graph,
        and ``model.training`` is False.
        """
        raise NotImplementedError

    # -- training -----------------------------------------------------------------------------------------------

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One micro-batch; with the last of a step, the direction is in ``.grad``. Returns its part of the loss."""
        refuse_engines(self.accelerator)
        refuse_closure(self.optimizer, "the Trainer")
        with processes_of() as processes:  # what is raised on one rank is raised on all
            if processes.several and num_items_in_batch is not None and self.args.average_tokens_across_devices:
                num_items_in_batch = num_items_in_batch / processes.size  # type: ignore[assignment]
            return self._one_micro_batch(model, inputs, num_items_in_batch)

    def _one_micro_batch(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # an optimizer that averages its iterates has two modes
            self.optimizer.train()
        inputs = self._prepare_inputs(inputs)
        self.num_items_in_batch = num_items_in_batch
        count = self.current_gradient_accumulation_steps
        share = 1.0 if self.loss_is_scaled_for_ga else 1.0 / count
        own = self.accelerator.unwrap_model(model)
        if self.combiner.reevaluates:
            self._seen.append(Seen(inputs, share, Generators.of(own, self)))
        with self.compute_loss_context_manager():
            losses = self._losses(model, inputs)
            record = self._micro_batches.add(
                losses,
                own,
                self.combiner,
                last=self.accelerator.sync_gradients,
                share=share,
                scaler=self.accelerator.scaler,
                private=self.private,
                strict=self.strict,
            )
        filters = self.args.logging_nan_inf_filter  # the Trainer leaves such losses out of its mean, too
        total = self._micro_batches.total * share
        if math.isfinite(total) or not filters:
            self._totals.add({"loss": total * count}, weight=1.0 / count)
        if record is not None:
            self.record = record
            numbers = numbers_of(record)
            if filters:
                numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
            self._since_log.add(numbers)
        return torch.tensor(total, device=self.args.device)

    def _losses(self, model: torch.nn.Module, inputs: Any) -> Losses:
        return returned(self.compute_losses(model, inputs), self, "compute_losses")

    def _after_optimizer_step(self) -> None:
        if self.combiner.awaits_losses:
            model = self.model_wrapped
            with self.compute_loss_context_manager():
                again = partial(self._losses, model)
                own = self.accelerator.unwrap_model(model)
                reevaluate(self.combiner, self._seen, again, own, self, needs_graph=self.needs_graph)

    def _start_step(self) -> None:
        self._micro_batches.clear()  # a step that was broken off: out of memory, or told to stop
        self._seen.clear()

    def _keep_columns(self) -> None:
        if self.args.remove_unused_columns:
            LOG.warning(
                "remove_unused_columns=True is taken as False: it would drop the columns that the model's forward does "
                "not take, and compute_losses may; give remove_unused_columns=False in the arguments to say so yourself"
            )
            self.args = copy.copy(self.args)  # another Trainer may have the same
            self.args.remove_unused_columns = False

    def _refuse_what_has_no_place(self) -> None:
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func would not be called; compute the losses in compute_losses")
        if self.args.label_smoothing_factor != 0:
            raise ValueError(
                f"label_smoothing_factor={self.args.label_smoothing_factor} would have no effect; "
                "smooth the labels in compute_losses"
            )
        optimizer = getattr(self.args.optim, "value", self.args.optim)
        if "lomo" in optimizer:
            raise ValueError(
                f"optim={optimizer!r} updates parameters during backward, before a rule can see all the "
                "gradients; choose another optimizer"
            )

    def call_model_init(self, trial: Any = None) -> Any:
        """As of the Trainer, which then starts over with a new model and optimizer: with a fresh rule, too."""
        if hasattr(self, "combiner"):
            self.combiner = self.combiner.fresh()
        return super().call_model_init(trial)

    # -- logs and evaluation ------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As of the Trainer; what it logs of training has the step records' numbers besides."""
        if "loss" in logs:
            totals, numbers = self._totals.take(processes_of()), self._since_log.take()
            if numbers:  # the Trainer has a sum in which a loss that it filtered may stand as zero
                logs["loss"] = totals.get("loss", math.nan)
            logs.update(numbers)
        super().log(logs, *args, **kwargs)

    def prediction_step(
        self, model: torch.nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """The losses; logits and labels are the Trainer's, where ``compute_metrics`` asks for them."""
        inputs = self._prepare_inputs(inputs)
        with graph_where_needed(self.needs_graph, "the trainer"), self.compute_loss_context_manager():
            values, total = values_of(self._losses(model, inputs))
        self._evaluated.add(values, weight=self._count_once(inputs))
        loss = torch.tensor(total, device=self.args.device)
        if prediction_loss_only:
            return loss, None, None
        try:
            _, logits, labels = super().prediction_step(model, inputs, False, ignore_keys=ignore_keys)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise RuntimeError(
                "compute_metrics asks for logits, whose forward the Trainer runs without a graph, and the model "
                f"differentiates inside it: open torch.enable_grad() there, or override prediction_step ({error})"
            ) from error
        return loss, logits, labels

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As of the Trainer, with one metric more for each loss."""
        self._evaluated = Means()
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            reshard(self.model)  # else an optimizer that is made next is given gathered copies of the parameters
        means = self._evaluated.take(processes_of())
        output.metrics.update({f"{metric_key_prefix}_loss_{name}": value for name, value in means.items()})
        return output

    def _count_once(self, inputs: Any) -> int:
        """The examples of a batch, without those that only make the last batches of all ranks equally large."""
        count: int = count_examples(inputs)
        state = self.accelerator.gradient_state
        if self.args.world_size == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return count
        return int(min(max(state.remainder - self.args.process_index * count, 0), count))

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        with processes_of() as processes:
            state = whole_rule_state(self.combiner, self.model, processes)
            if self.args.should_save:
                write_checkpoint(os.path.join(output_dir, STATE_FILE), state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = os.path.join(checkpoint, STATE_FILE)
        if os.path.isfile(path):
            load_rule_state(self.combiner, read_checkpoint(path), self.model)
        elif self.combiner.stateful:
            raise CheckpointError(
                f"{checkpoint} has no {STATE_FILE}, and {self.combiner!r} carries a state from step to step; resume "
                "from a checkpoint that this trainer wrote with save_only_model=False, or load the model and start anew"
            )


class _StepWatch(TrainerCallback):  # type: ignore[misc]
    """Tells the mixin where a step begins and where the optimizer has stepped."""

    def __init__(self, trainer: MultiLossMixin) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._start_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._after_optimizer_step()
