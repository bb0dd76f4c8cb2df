"""What the trainer calls while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtopt.autograd import StepRecord


class Callback:
    """Hooks that a :class:`MultiLossTrainer` calls, each in the order in which the callbacks were given.

    Subclass it and define the hooks that you need; the others do nothing. In one ``fit`` they come in this order:

    - ``on_fit_start``;
    - ``on_gradients``: between the rule and the optimizer, in each step that is not skipped;
    - ``on_step_end``: after each step, skipped ones included;
    - ``on_epoch_end``: after the ``on_step_end`` of the epoch's last step;
    - ``on_fit_end``: when training has ended, also by an exception.

    ``on_evaluate`` comes whenever somebody evaluates a named split, often from within one of the hooks above. A
    checkpoint is written after all of a step's hooks. A callback whose work depends on what it saw before returns
    that in ``state_dict``, and resumes from ``load_state_dict``, which comes before ``on_fit_start``.

    ``trainer`` is the :class:`MultiLossTrainer`. A hook may call ``trainer.stop()``: training ends after the step.

    On several ranks each has its own callbacks, and all call the same hooks at the same moment, so that what one asks
    of the trainer (``evaluate``, ``save``, ``loss_values``) is asked on all of them.

    Attributes:
        first_rank_only: its hooks are called on the first rank alone: it shows or logs something, and asks nothing of
            the trainer that takes all ranks. Default: the class attribute, False.
    """

    first_rank_only: bool = False

    def on_fit_start(self, trainer: Any) -> None:
        """Training is about to start, or to go on from ``trainer.step``."""

    def on_gradients(self, trainer: Any, batch: Any, record: StepRecord) -> None:
        """``.grad`` holds the direction, as the optimizer is about to take it; nothing has moved yet.

        ``trainer.loss_values(batch)`` gives the losses once more, without a trace; ``record`` has no step number yet.
        """

    def on_step_end(self, trainer: Any, record: StepRecord) -> None:
        """Step ``record.step`` is over; ``trainer.history`` holds its record."""

    def on_epoch_end(self, trainer: Any) -> None:
        """Epoch ``trainer.epoch`` (from 1) is over."""

    def on_evaluate(self, trainer: Any, split: str, values: Mapping[str, float]) -> None:
        """The model was evaluated on the data called ``split``; ``trainer.history`` holds the values."""

    def on_fit_end(self, trainer: Any) -> None:
        """Training has ended; called for each callback that was started, whatever happened."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint shall hold of this callback: tensors and plain values. Default: nothing."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` of a callback of the same class gave; called only if that was not empty."""
