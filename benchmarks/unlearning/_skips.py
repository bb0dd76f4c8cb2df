"""A training that skips every step trains nothing: it ends, with the reason."""

from __future__ import annotations

import mtopt


class StopAfterSkips(mtopt.Callback):
    """Ends a training after so many skipped steps in a row.

    Args:
        most: Skipped steps in a row.

    Raises:
        NonFiniteError: On the last of them, with what the step was skipped for.
    """

    def __init__(self, most: int = 20) -> None:
        self.most = most
        self._skipped = 0

    def on_fit_start(self, trainer: mtopt.MultiLossTrainer) -> None:
        self._skipped = 0

    def on_step_end(self, trainer: mtopt.MultiLossTrainer, record: mtopt.StepRecord) -> None:
        self._skipped = self._skipped + 1 if record.skipped else 0
        if self._skipped == self.most:
            raise mtopt.NonFiniteError(
                f"{self.most} steps in a row were skipped, the last one (step {record.step}) because {record.reason}; "
                "nothing is being trained: lower the learning rate, or train in float32"
            )
