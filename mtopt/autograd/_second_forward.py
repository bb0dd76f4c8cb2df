"""Running the losses a second time: with the same random numbers, and leaving no trace in the model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from mtopt.autograd._objective import Losses, read_losses, value_of

Names = Mapping[int, str]


class Generators:
    """The states of the global generators that a forward may draw from: torch's, numpy's and Python's."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
        self.states = self._read()

    def _read(self) -> tuple[Any, ...]:
        return (
            torch.get_rng_state(),
            [torch.cuda.get_rng_state(index) for index in self.cuda],
            np.random.get_state(legacy=False),  # noqa: NPY002 - what user code draws from
            random.getstate(),
        )

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """The same random numbers again; afterwards the generators are where they were before."""
        now = self._read()
        self._set(self.states)
        try:
            yield
        finally:
            self._set(now)

    def _set(self, states: tuple[Any, ...]) -> None:
        cpu, cuda, of_numpy, of_python = states
        torch.set_rng_state(cpu)
        for index, state in zip(self.cuda, cuda, strict=True):
            torch.cuda.set_rng_state(state, index)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


class _Forward(nn.Module):
    """A callable around a model, as a module, whose tensors can be replaced for one call."""

    def __init__(self, model: nn.Module, losses: Any) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self) -> Losses:
        return run(self.losses)


def run(losses: Any) -> Losses:
    """The losses of a callable that returns them all, or of a collection of callables."""
    if callable(losses):
        found: Losses = losses()
        return found
    objectives, values = read_losses(losses)
    for objective, value in zip(objectives, values, strict=True):
        if isinstance(value, torch.Tensor):
            raise TypeError(
                f"plan='matrix_free' runs the losses twice, and loss {objective.name!r} is a tensor; give a callable "
                "that computes them all, such as lambda: losses(batch)"
            )
    return {o: None if v is None else value_of(v) for o, v in zip(objectives, values, strict=True)}


def forward_with(model: nn.Module, losses: Any, replaced: Mapping[str, torch.Tensor], generators: Generators) -> Losses:
    """The losses with some of the model's parameters replaced; the model, its buffers and all generators stay."""
    state = {f"model.{name}": tensor for name, tensor in replaced.items()}
    state.update({f"model.{name}": buffer.clone() for name, buffer in model.named_buffers()})
    with generators.replayed():
        found: Losses = torch.func.functional_call(_Forward(model, losses), state, ())
    return found
