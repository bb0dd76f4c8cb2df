"""The trainer: a subclass says what the losses are, the rest is here."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from mtopt._counts import check_count
from mtopt._losses import Absent, Losses, Objective, check_absent, run_losses, without_nan
from mtopt._replay import buffers_kept
from mtopt.autograd import MatrixFree, PlanName, Private, Probe, StepRecord, Store
from mtopt.combiners import Combiner
from mtopt.diagnosis import Diagnosis
from mtopt.distributed import Processes, is_sharded, reshard
from mtopt.training._checks import check_accumulate, check_callbacks, check_how, check_limits, check_parts, read_rule
from mtopt.training._closure import check_closure
from mtopt.training._deterministic import deterministic_kernels
from mtopt.training._evaluation import averages, count_examples, evaluation_mode, generators_kept
from mtopt.training._feed import Feed
from mtopt.training._gradients import batches_of, generators_of, mean_losses, step_gradients
from mtopt.training._history import History
from mtopt.training._loop import Limits, callbacks_told, train
from mtopt.training._measure import measure
from mtopt.training._precision import Precision
from mtopt.training._random import seed_everything
from mtopt.training._ranks import (
    processes_training,
    quiet_forward,
    share_buffers,
    shares_buffers,
    shortest,
    start_alike,
)
from mtopt.training._signals import ended_by_signals
from mtopt.training._step import take_step
from mtopt.training.callbacks import Callback
from mtopt.training.checkpoint import (
    CheckpointFolder,
    load_content,
    load_trainer_state,
    position_here,
    read_content,
    resume_from,
    settings_of,
    trainer_state,
    write_together,
)


class MultiLossTrainer(ABC):
    """Trains one model on several losses: a subclass defines :meth:`losses`, a rule combines their gradients.

    ::

        class TwoDigits(mtopt.MultiLossTrainer):
            def losses(self, batch):
                image, left, right = batch
                self.features = self.model.trunk(image)  # optional: the heads are then differentiated only once
                return {
                    "left": cross_entropy(self.model.left(self.features), left),
                    "right": cross_entropy(self.model.right(self.features), right),
                }

        trainer = TwoDigits(model, torch.optim.Adam(model.parameters()), "mgda", seed=0)
        history = trainer.fit(loader, epochs=10, checkpoint_dir="run")

    Killed at any moment, the same program goes on from the last checkpoint and ends with the same parameters, bit for
    bit, as if it had not been.

    Args:
        model: what is trained.
        optimizer: any optimizer over the parameters to train. They alone get gradients; frozen ones are left out. One
            that computes the loss itself (LBFGS) takes a rule on losses, whose weights are fixed within its step.
        combiner: the rule, or a name in the registry. A rule created here from its name gets ``seed``, if both exist.
        scheduler: a learning rate scheduler of ``optimizer``, stepped after each step that was not skipped.
        callbacks: called during the training, in this order.
        seed: given to :func:`seed_everything` when the first ``fit`` starts training. (Seed before the model is built,
            too.) Default: generators are left as they are.
        private: what a parameter gets that only one loss reaches, see :func:`mtopt.backward`.
        strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
        plan, store: how gradients are made and in what they are kept, see :func:`mtopt.backward`.
        accumulate: batches whose raw gradients are averaged before the rule sees them, see
            :class:`mtopt.JacobianAccumulator`; the last step of an epoch may have fewer. Default: 1.
        autocast: compute the losses in ``torch.bfloat16`` or ``torch.float16``; the latter brings a ``GradScaler``,
            whose state is in the checkpoint. Default: neither.
        clip_norm: the largest norm of the combined direction over all parameters. Default: no limit.
        deterministic: within ``fit`` torch takes deterministic kernels only, as :func:`seed_everything` says;
            afterwards these settings are as they were.
        needs_graph: the losses differentiate inside (gradient penalties, forces, residuals of differential equations),
            so they keep a graph wherever they are run for their values alone: evaluation, FAMO's second look, probes.
            Default: the class attribute, False.
        absent: ``"nan"``: a loss whose value is NaN, such as a cross-entropy whose labels are all ignored, is absent
            from its step, as None is, see :func:`mtopt.backward`. Default: the class attribute, None.
        measure_every: steps from one in which norms and cosines of the gradients are measured, whatever the rule needs,
            to the next: by a second look, which takes a forward and K backwards. Default: never.

    Attributes:
        step: steps done, skipped ones included.
        epoch: epochs done.
        total_steps: how many steps ``fit`` was asked for, once it runs; None where the data does not say.
        history: the records of all steps, a :class:`History`.
        stopping: ``stop`` was called, and ``fit`` ends after this step.
        checkpoint_dir: where the last ``fit`` wrote its checkpoints; None when it wrote none.
        probe: what a :class:`mtopt.GeN` among the callbacks found in this step, for the step's record.
        measured: the :class:`mtopt.Diagnosis` of this step's losses, in those that are measured.
        features: :meth:`losses` may set it to the trunk's output, or several; forgotten after the step.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        UnknownNameError: no rule of that name.
    """

    needs_graph: bool = False
    absent: Absent = None

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        combiner: Combiner | str,
        *,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        callbacks: Iterable[Callback] = (),
        seed: int | None = None,
        private: Private | None = None,
        strict: bool = False,
        plan: PlanName | MatrixFree = "auto",
        store: Store = None,
        accumulate: int = 1,
        autocast: torch.dtype | None = None,
        clip_norm: float | None = None,
        deterministic: bool = False,
        needs_graph: bool | None = None,
        absent: Absent = None,
        measure_every: int | None = None,
    ) -> None:
        check_parts(model, optimizer, scheduler)
        self.combiner = read_rule(combiner, seed)
        check_how(plan, store, self.combiner, model, optimizer)
        self.plan, self.store = plan, store
        self.accumulate = check_accumulate(accumulate, self.combiner, plan, store)
        device = next(param.device for group in optimizer.param_groups for param in group["params"])
        self.precision = Precision(autocast, clip_norm, device)
        check_closure(optimizer, self.combiner, private, self.precision)
        self.deterministic = deterministic
        if needs_graph is not None:
            self.needs_graph = needs_graph
        if absent is not None:
            self.absent = absent
        check_absent(self.absent)
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.shares_buffers = shares_buffers(model)
        self.callbacks = check_callbacks(list(callbacks))
        self.seed, self.private, self.strict = seed, private, strict
        self.step = 0
        self.epoch = 0
        self.total_steps: int | None = None
        self.history = History()
        self.features: torch.Tensor | Sequence[torch.Tensor] | None = None
        self.checkpoint_dir: Path | None = None
        self._feed: Feed | None = None
        self._position: dict[str, Any] | None = None  # loaded, and not yet gone to: that takes the data
        self.stopping = False
        self.probe: Probe | None = None
        self.measure_every = check_count("measure_every", measure_every)
        self.measured: Diagnosis | None = None
        self.made_with = settings_of(self)

    # -- what a subclass defines or changes ---------------------------------------------------------------------

    @abstractmethod
    def losses(self, batch: Any) -> Losses:
        """The losses of a batch, as :func:`mtopt.backward` takes them: a sequence, or a mapping from names or
        :class:`mtopt.Objective`, of scalar tensors, callables, or None where a task is absent.

        ``batch`` is what the data gave, on whatever device; None when ``fit`` was given no data.
        """

    def metrics(self, batch: Any) -> Mapping[str, float]:
        """What :meth:`evaluate` averages, for one batch, without a graph. Default: the losses."""
        losses = self.losses(batch)
        found = run_losses(losses if self.absent is None else without_nan(losses))
        return {objective.name: float(value.detach()) for _, objective, value in found}

    def batch_size(self, batch: Any) -> int:
        """The weight of a batch in :meth:`evaluate`. Default: the first dimension of the first tensor in it."""
        return count_examples(batch)

    # -- training -----------------------------------------------------------------------------------------------

    def fit(
        self,
        data: Iterable[Any] | None = None,
        *,
        steps: int | None = None,
        epochs: int | None = None,
        resume: bool = True,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
    ) -> History:
        """Train until ``steps`` steps or ``epochs`` epochs are done, counted from the trainer's first step.

        They are totals: the same call after a kill ends where it would have ended, and a call that finds as many or
        more done returns at once (with a warning, if a checkpoint is beyond them). A second ``fit`` on the same
        ``data`` goes on where the first ended, in the middle of an epoch, too. A model in eval mode is put in train
        mode; modules that are in eval mode inside a model that is not (frozen batch norms) stay so.

        Args:
            data: batches, in an iterable that starts anew each epoch, such as a DataLoader or a list. Default: none;
                ``losses(None)`` is called in each step.
            steps, epochs: where to stop; with both, at what comes first.
            resume: a trainer that has done no step goes on from the newest whole checkpoint in ``checkpoint_dir``. With
                False it starts over, and the checkpoints there are deleted after its first one is written.
            checkpoint_dir: a directory for this run alone; the last two checkpoints are kept in it.
            checkpoint_every: steps between checkpoints. Default: at the end of each epoch. The end of ``fit`` has one
                always.

        What a checkpoint holds, how it is found again, and what SIGTERM and Ctrl-C do: see ``docs/training.md``. All of
        several ranks call it, each with its part of the data: see ``docs/distributed.md``.
        Where a step takes several batches, an epoch counts batches all the same; its last step averages what is left of
        ``accumulate`` batches, and a rule on several draws passes over what is not enough for all of them.

        Returns:
            The history of all steps.

        Raises:
            TypeError, ValueError: a wrong argument, or data without a batch.
            CheckpointError: no checkpoint there is whole, or it belongs to another model, optimizer, rule or data.
            InUseError: another run has ``checkpoint_dir``.
            NonFiniteError: in strict mode.
            RankError: something was raised on another rank, which it names.
        """
        check_limits(data, steps, epochs)
        if check_count("checkpoint_every", checkpoint_every) is not None and checkpoint_dir is None:
            raise ValueError("checkpoint_every was given without checkpoint_dir; say where to write")
        with self.processes as processes, quiet_forward(self.model):
            folder = None if checkpoint_dir is None else CheckpointFolder(checkpoint_dir, processes=processes)
            if folder is not None and resume:
                resume_from(folder, self, steps)
            limits = Limits(steps, epochs)
            start_alike(self, (steps, epochs, checkpoint_every, folder is None))
            if not limits.reached(self):
                self._train(self._feed_on(data), limits, folder, checkpoint_every)
            processes.meet()  # what went wrong on one rank at the very end is known to all
        return self.history

    def _train(self, feed: Feed, limits: Limits, folder: CheckpointFolder | None, every: int | None) -> None:
        consumed = feed.consumed if self._position is None else feed.consumed_at(self._position)
        self.total_steps = limits.total(self, consumed, shortest(self.processes.gather(feed.length)))
        if not self.started and self.seed is not None:
            seed_everything(self.seed)
        if not self.model.training:
            self.model.train()
        self.stopping = False
        self.checkpoint_dir = None if folder is None else folder.directory
        with ExitStack() as settings:
            settings.enter_context(deterministic_kernels(self.deterministic))
            if folder is not None:
                settings.enter_context(folder.held())
                settings.enter_context(ended_by_signals(self.stop, self.processes))
            with callbacks_told(self), self.processes:
                if self._position is not None:  # last, so that nothing draws from the generators in between
                    feed.load_state_dict(self._position)
                    self._position = None
                train(self, feed, limits, folder, every)

    def _feed_on(self, data: Iterable[Any] | None) -> Feed:
        """Where ``data`` is drawn from: the feed of the last ``fit``, if it was on the same."""
        if self._feed is None or self._feed.data is not data:
            between = self._feed is not None and self._feed.consumed > 0  # an epoch that other data leaves unfinished
            self._feed = Feed(data, self.epoch + between)
            self.epoch = self._feed.epoch
        return self._feed

    def stop(self) -> None:
        """End ``fit`` after the step that is under way, with a checkpoint if it writes any. Another ``fit`` goes on."""
        self.stopping = True

    def evaluate(self, data: Iterable[Any] | None = None, *, split: str | None = None) -> dict[str, float]:
        """The averages of :meth:`metrics` over ``data``, each batch weighted by its size; of all ranks' data.

        The model is in eval mode meanwhile; afterwards each module's mode, the model's buffers and all generators are
        as they were, so that training goes on as if nothing had happened.

        Args:
            data: batches, in an iterable. Default: none; ``metrics(None)`` is called once.
            split: a name, under which the history keeps the values and callbacks get them. Default: neither.

        Raises:
            ValueError: ``data`` is empty.
        """
        with (
            self.processes as processes,
            quiet_forward(self.model),
            generators_kept(data),
            generators_of(self).replayed(),
            buffers_kept(self.model),
            evaluation_mode(self.model, needs_graph=self.needs_graph),
            self.precision.autocast(),
        ):
            processes.note("what they evaluate", split)
            share_buffers(self)
            reshard(self.model)
            sharded = is_sharded(self.model.parameters())
            values = averages(self.metrics, data, self.batch_size, processes, in_step=sharded)
        self.features = None
        if split is not None:
            self.history.append_evaluation(split, self.step, values)
            for callback in self.callbacks_here:
                callback.on_evaluate(self, split, values)
        return values

    @property
    def processes(self) -> Processes:
        """Those that train replicas of the model: all ranks of ``torch.distributed``, if it is initialised."""
        return processes_training(self.model)

    @property
    def callbacks_here(self) -> list[Callback]:
        """The callbacks that this rank calls: all of them on the first."""
        first = self.processes.rank == 0
        return [callback for callback in self.callbacks if first or not callback.first_rank_only]

    @property
    def started(self) -> bool:
        """Whether a step was done, or a state loaded."""
        return self.step > 0 or self._position is not None

    # -- one step -----------------------------------------------------------------------------------------------

    @property
    def batches_per_step(self) -> int:
        """How many batches one step takes: ``accumulate``, or as many as the rule asks for."""
        return max(self.accumulate, self.combiner.draws)

    def training_step(self, batch: Any) -> StepRecord:
        """One step: gradients, rule, optimizer. Nothing changes when the step is skipped.

        ``batch`` is what the data gave; a list of that where ``batches_per_step`` is more than one.
        """
        return take_step(self, batch)

    def make_gradients(self, batch: Any) -> StepRecord:
        """Fill ``.grad`` for a step. Default: the rule's direction; nothing is written when the step is skipped."""
        return step_gradients(self, batch)

    def on_gradients(self, batch: Any, record: StepRecord) -> None:
        """Called when ``.grad`` holds the direction, before the optimizer's step. Default: the callbacks are called."""
        if self.measure_every is not None and (self.step + 1) % self.measure_every == 0:
            self.measure(batch)
        for callback in self.callbacks_here:
            callback.on_gradients(self, batch, record)

    def after_step(self) -> None:  # noqa: B027 - most trainers have nothing to do here
        """Called without a graph after each step of the optimizer: projects parameters to their box, say."""

    def loss_values(self, batch: Any) -> dict[Objective, float]:
        """The losses of a step's ``batch`` with the parameters as they are now, without a graph, in the user's sense.

        Where a step takes several batches, the means over them. Buffers and generators stay as they are.
        """
        return mean_losses(self, batches_of(self, batch))

    def measure(self, batch: Any) -> Diagnosis | None:
        """Diagnose the losses of a step's ``batch`` with the parameters as they are now, for this step's record.

        Once a step, whoever asks; None where a loss or gradient is not finite, or no two losses are there. Nothing is
        changed by it: not ``.grad``, no buffer, no generator. Dropout draws a mask of its own.
        """
        if self.measured is None:
            self.measured = measure(self, batches_of(self, batch))
        return self.measured

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on: tensors and plain values.

        The tensors are the trainer's own, not copies: ``copy.deepcopy`` makes a snapshot to keep in memory.
        A subclass with state of its own adds it to what ``super().state_dict()`` gives.
        """
        if self._position is not None or self._feed is None:
            return trainer_state(self, self._position)
        return trainer_state(self, self._feed.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a trainer that was built alike; the next ``fit`` goes on from there.

        Raises:
            CheckpointError: it belongs to another model, optimizer, scheduler or rule.
        """
        load_trainer_state(self, state_dict)
        self._position = position_here(state_dict, self.processes)
        self._feed = None
        self.epoch = 0 if self._position is None else self._position["epoch"]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``state_dict()`` to a file: atomically, with a checksum. All ranks call it, the first writes.

        Raises:
            TypeError: some state is neither tensors nor plain values.
            RankError: the first rank could not write, on the others.
        """
        with self.processes as processes:
            write_together(path, self.state_dict(), processes)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read what :meth:`save` wrote, or a checkpoint of ``fit``.

        Raises:
            CheckpointError: the file is not whole, or belongs to another model, optimizer, scheduler or rule.
        """
        with self.processes as processes:
            load_content(self, path, read_content(Path(path)))
            processes.meet()
