"""The generators of random numbers that a forward may draw from, taken back to where they were."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from mtopt.autograd._buffers import modules_of

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


class Generators:
    """The states of the generators that a forward may draw from: torch's, numpy's and Python's global ones, and those
    that are attributes of ``owners`` or of the modules inside them."""

    def __init__(self, devices: Iterable[torch.device], *owners: object) -> None:
        self.cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
        self.states = self._read()
        self.own: dict[int, tuple[Generator, Any]] = {}
        for part in (*owners, *modules_of(*owners)):
            self._remember(part)

    @classmethod
    def of(cls, model: nn.Module, *owners: object) -> Generators:
        """As they are now, for a forward of ``model``."""
        return cls({param.device for param in model.parameters()}, model, *owners)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """The first forward: generators of modules that are called within are remembered as they were found, too."""
        handle = register_module_forward_pre_hook(lambda module, arguments: self._remember(module))
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """The same random numbers again; afterwards the generators are where they were before."""
        now = self._read()
        own = {key: state_of(generator) for key, (generator, _) in self.own.items()}
        self._set(self.states)
        for generator, state in self.own.values():
            set_state(generator, state)
        try:
            yield
        finally:
            self._set(now)
            for key, (generator, found) in self.own.items():
                set_state(generator, own.get(key, found))

    def _remember(self, owner: object) -> None:
        for value in vars(owner).values():
            if isinstance(value, Generator) and id(value) not in self.own:
                self.own[id(value)] = value, state_of(value)

    def _read(self) -> tuple[Any, ...]:
        return (
            torch.get_rng_state(),
            [torch.cuda.get_rng_state(index) for index in self.cuda],
            np.random.get_state(legacy=False),  # noqa: NPY002 - what user code draws from
            random.getstate(),
        )

    def _set(self, states: tuple[Any, ...]) -> None:
        cpu, cuda, of_numpy, of_python = states
        torch.set_rng_state(cpu)
        for index, state in zip(self.cuda, cuda, strict=True):
            torch.cuda.set_rng_state(state, index)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def state_of(generator: Generator) -> Any:
    """What :func:`set_state` takes."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False) if isinstance(generator, np.random.RandomState) else generator.getstate()


def set_state(generator: Generator, state: Any) -> None:
    """Take a generator back to where :func:`state_of` found it."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
