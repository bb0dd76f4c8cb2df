"""An error of torch that only several backwards of one graph meet: what to do about it is said where it comes up."""

from __future__ import annotations

from contextlib import ContextDecorator
from types import TracebackType

_DONATED = (
    "A compiled model whose first backward did not keep the graph (a plain loss.backward(), or a rule on losses) gives "
    "its activations away in every backward, and K backwards of one graph need them kept. Set "
    "torch._functorch.config.donated_buffer = False (import torch._functorch.config) before the model is compiled, or "
    "give the losses as callables, each with a forward of its own."
)


class Hints(ContextDecorator):
    """Adds to that error what to do, and lets every error pass."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RuntimeError) and "donated buffer" in str(error):
            error.add_note(_DONATED)
