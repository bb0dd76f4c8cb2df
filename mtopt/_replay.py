"""A forward run again: with the same random numbers, other parameters where wanted, and no trace left behind."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

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


_Held = dict[str, torch.Tensor | None]


@contextmanager
def buffers_kept(*owners: object) -> Iterator[None]:
    """Afterwards the buffers of ``owners``, or without any of all modules that were called meanwhile, are as they were.

    They are the same tensors, put right in place, where others have taken their names, too; what was added is gone. An
    owner is a module, or something whose attributes are modules. (Without owners there is a hook on all modules, of
    which a compiled one warns.)
    """
    kept: dict[int, tuple[_Held, _Held, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def keep(module: nn.Module) -> None:
        if id(module) not in kept:
            held = module._buffers
            values = [(buffer, buffer.detach().clone()) for buffer in held.values() if buffer is not None]
            kept[id(module)] = held, dict(held), values

    def keep_called(called: nn.Module, arguments: Any) -> None:
        if id(called) not in kept:
            for module in called.modules():  # a compiled or scripted module calls its parts without being seen
                keep(module)

    for module in modules_of(*owners):
        keep(module)
    handle = None if owners else register_module_forward_pre_hook(keep_called)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        with torch.no_grad():
            for held, buffers, values in kept.values():
                for buffer, value in values:
                    buffer.copy_(value)
                held.clear()
                held.update(buffers)


def modules_of(*owners: object) -> Iterator[nn.Module]:
    """The modules inside each owner: those of a module, and of the modules among another's attributes."""
    for owner in owners:
        if isinstance(owner, nn.Module):
            yield from owner.modules()
        else:
            yield from modules_of(*(value for value in vars(owner).values() if isinstance(value, nn.Module)))


@contextmanager
def second_look(
    *owners: object, generators: Generators, needs_graph: bool, told: str = "the trainer"
) -> Iterator[None]:
    """Within, losses are run once more with the random numbers of ``generators``; afterwards the generators and the
    owners' buffers are as they were before. Without a graph, unless the losses need one."""
    with generators.replayed(), buffers_kept(*owners), graph_where_needed(needs_graph, told):
        yield


@contextmanager
def graph_where_needed(needs_graph: bool, told: str) -> Iterator[None]:
    """No graph, unless the losses differentiate inside; where that was not ``told``, the error says whom to tell."""
    with torch.set_grad_enabled(needs_graph):
        try:
            yield
        except RuntimeError as error:
            if needs_graph or "does not require grad" not in str(error):
                raise
            raise RuntimeError(
                f"the losses differentiate inside, and were run without a graph: give needs_graph=True to {told}, or "
                f"open torch.enable_grad() around that part of them ({str(error).splitlines()[0]})"
            ) from error


@contextmanager
def exchanged(model: nn.Module, replaced: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Other parameters, wherever in the model they are, and copies of the buffers, which a forward may write to."""
    held: list[tuple[dict[str, Any], dict[str, Any]]] = []
    copies: dict[int, torch.Tensor] = {}
    try:
        for module in model.modules():
            params, buffers = module._parameters, module._buffers
            if params:
                held.append((params, dict(params)))
                params.update({name: replaced[id(p)] for name, p in params.items() if id(p) in replaced})  # type: ignore[misc]
            if buffers:
                held.append((buffers, dict(buffers)))
                for name, buffer in held[-1][1].items():
                    if buffer is not None:
                        if id(buffer) not in copies:
                            copies[id(buffer)] = buffer.clone()
                        buffers[name] = copies[id(buffer)]
        yield
    finally:
        for entries, before in held:
            entries.clear()
            entries.update(before)
