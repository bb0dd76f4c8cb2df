"""What is told of the training while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mtopt.autograd import StepRecord
from mtopt.training._counts import check_count

if TYPE_CHECKING:
    from mtopt.training._trainer import MultiLossTrainer
    from mtopt.training._weight_average import WeightAverage


class Callback:
    """Hooks that a :class:`MultiLossTrainer` calls, each in the order in which the callbacks were given.

    Subclass it and define the hooks that you need; the others do nothing. In one ``fit`` they come so::

        on_fit_start
            on_gradients      between the rule and the optimizer, in each step that is not skipped
            on_step_end       after each step, skipped ones included
            on_epoch_end      after the on_step_end of the epoch's last step
        on_fit_end            when training has ended, also by an exception

    ``on_evaluate`` comes whenever somebody evaluates a named split, often from within one of the hooks above. A
    checkpoint is written after all of a step's hooks. A callback whose work depends on what it saw before returns
    that in ``state_dict``, and resumes from ``load_state_dict``, which comes before ``on_fit_start``.

    A hook may call ``trainer.stop()``: training ends after the step.
    """

    def on_fit_start(self, trainer: MultiLossTrainer) -> None:
        """Training is about to start, or to go on from ``trainer.step``."""

    def on_gradients(self, trainer: MultiLossTrainer, batch: Any, record: StepRecord) -> None:
        """``.grad`` holds the direction, as the optimizer is about to take it; nothing has moved yet.

        ``trainer.loss_values(batch)`` gives the losses once more, without a trace; ``record`` has no step number yet.
        """

    def on_step_end(self, trainer: MultiLossTrainer, record: StepRecord) -> None:
        """Step ``record.step`` is over; ``trainer.history`` holds its record."""

    def on_epoch_end(self, trainer: MultiLossTrainer) -> None:
        """Epoch ``trainer.epoch`` (from 1) is over."""

    def on_evaluate(self, trainer: MultiLossTrainer, split: str, values: Mapping[str, float]) -> None:
        """The model was evaluated on the data called ``split``; ``trainer.history`` holds the values."""

    def on_fit_end(self, trainer: MultiLossTrainer) -> None:
        """Training has ended; each callback that was started is told, whatever happened."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint shall hold of this callback: tensors and plain values. Default: nothing."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` of a callback of the same class gave; called only if that was not empty."""


class Evaluator(Callback):
    """Evaluates on held-out data while training.

    Args:
        data: an iterable of batches that starts anew with each ``iter(data)``.
        every: steps from one evaluation to the next. Default: at the end of each epoch.
        split: the name under which ``trainer.history.evaluations(split)`` keeps the values.
        average: evaluate with these averaged weights in place of the model's own. Default: the model's own.

    Raises:
        ValueError: ``every`` is not a positive int.
    """

    def __init__(
        self,
        data: Iterable[Any] | None,
        *,
        every: int | None = None,
        split: str = "validation",
        average: WeightAverage | None = None,
    ) -> None:
        self.data = data
        self.every = check_count("every", every)
        self.split = split
        self.average = average

    def on_step_end(self, trainer: MultiLossTrainer, record: StepRecord) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            self._evaluate(trainer)

    def on_epoch_end(self, trainer: MultiLossTrainer) -> None:
        if self.every is None:
            self._evaluate(trainer)

    def _evaluate(self, trainer: MultiLossTrainer) -> None:
        with nullcontext() if self.average is None else self.average.applied(trainer):
            trainer.evaluate(self.data, split=self.split)
