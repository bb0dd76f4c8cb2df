"""Generators of random numbers: seeding them, and their states as plain values that a checkpoint holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mtopt.training._deterministic import use_deterministic_kernels

AnyGenerator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
State = dict[str, Any]

# How far generators are looked for inside a data object: a loader, its sampler, a pair of loaders, their data sets.
_DEPTH = 5
_SMALL = 64
_VISITS = 2_000


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed the global generators of torch (CPU and every GPU), numpy and Python.

    Rules have generators of their own: give them ``seed=`` too.

    Args:
        seed: from 0 to 2**32 - 1.
        deterministic: also let torch use deterministic kernels only (it raises where an operation has none), switch
            cuDNN's search for the fastest kernel off, and set the workspace that cuBLAS needs for this unless the
            environment has one; that last part works only before the first use of the GPU. Default: False.

    Raises:
        TypeError, ValueError: a seed that is no whole number, or out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, found {type(seed).__name__}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1 (numpy's range), found {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - user code and data sets draw from it
    torch.manual_seed(seed)
    if deterministic:
        use_deterministic_kernels()


def global_state() -> State:
    """The states of all global generators."""
    state: State = {
        "torch": torch.get_rng_state(),
        "numpy": _packed(np.random.get_state(legacy=False)),  # noqa: NPY002
        "python": _packed_python(random.getstate()),
        "cuda": [],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_global_state(state: State) -> None:
    """Take the global generators back to ``state``; GPUs that are not here now are left out."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(_unpacked(state["numpy"]))  # noqa: NPY002
    random.setstate(_unpacked_python(state["python"]))
    if torch.cuda.is_available():
        for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda, device)


def generator_state(generator: AnyGenerator) -> Any:
    """The state of one generator."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return _packed(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _packed(generator.get_state(legacy=False))
    return _packed_python(generator.getstate())


def set_generator_state(generator: AnyGenerator, state: Any) -> None:
    """Take one generator back to what :func:`generator_state` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _unpacked(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_unpacked(state))
    else:
        generator.setstate(_unpacked_python(state))


def generators_in(data: object) -> dict[str, AnyGenerator]:
    """The generators that ``data`` holds, by where they are, such as ``generator`` or ``forget.sampler.generator``.

    Attributes and small containers are followed through whatever can be iterated or indexed; a generator that is
    found twice counts once.
    """
    found: dict[str, AnyGenerator] = {}
    seen: set[int] = set()
    pending: list[tuple[str, object, int]] = [("", data, 0)]
    while pending and len(seen) < _VISITS:
        path, value, depth = pending.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, AnyGenerator):
            found[path] = value
        elif depth < _DEPTH:
            pending.extend((f"{path}.{name}" if path else name, child, depth + 1) for name, child in _parts(value))
    return found


def _parts(value: object) -> Iterator[tuple[str, object]]:
    # of containers only the plain ones: to iterate over data of another kind may change it
    if isinstance(value, dict) and type(value) is dict:
        if len(value) <= _SMALL:
            yield from ((str(key), child) for key, child in value.items())
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        if len(value) <= _SMALL:
            yield from ((str(index), child) for index, child in enumerate(value))
    elif _is_data(value):
        yield from vars(value).items()


def _is_data(value: object) -> bool:
    """Whether something is a data set, a sampler or a loader, which may hold generators; no iterator under way is."""
    kind = type(value)
    if isinstance(value, type | torch.Tensor | torch.nn.Module) or hasattr(kind, "__next__"):
        return False
    return hasattr(value, "__dict__") and (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"))


def _packed(value: Any) -> Any:
    """numpy's state dictionaries without arrays, which a checkpoint does not hold."""
    if isinstance(value, dict):
        return {key: _packed(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "bytes": torch.from_numpy(np.ascontiguousarray(value).view(np.uint8).copy())}
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"dtype", "bytes"}:
            return np.frombuffer(value["bytes"].numpy().tobytes(), dtype=value["dtype"]).copy()
        return {key: _unpacked(entry) for key, entry in value.items()}
    return value


def _packed_python(state: tuple[Any, ...]) -> list[Any]:
    version, numbers, spare = state
    return [version, torch.tensor(numbers, dtype=torch.int64), spare]


def _unpacked_python(state: list[Any]) -> tuple[Any, ...]:
    version, numbers, spare = state
    return version, tuple(numbers.tolist()), spare
