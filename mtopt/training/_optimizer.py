"""What the optimizers here have in common: a step that may compute the loss anew first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch


class GradientStep(torch.optim.Optimizer):
    """An optimizer whose step looks at ``.grad`` alone; a subclass says what it does in :meth:`update`."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step.

        Args:
            closure: computes the loss anew, with gradients, and returns it. Default: none.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update()
        return loss

    @abstractmethod
    def update(self) -> None:
        """Move the parameters along their gradients."""
