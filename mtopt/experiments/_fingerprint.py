"""What a task's results depend on, as one hash that is the same in every process."""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import hashlib
import os
import pickle
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from mtopt.experiments._own_code import is_own, local_imports, names_used, text_of_code

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, dict, set)


def fingerprint(task: Any, base: type, apart: frozenset[str]) -> str:
    """The hash of a task: its attributes as they resolve, and the code of its class; ``apart`` does not enter.

    Attributes with a leading underscore are left out: what is computed from the others and kept.

    Raises:
        ValueError: an attribute has no value that outlives its process.
    """
    kind = type(task)
    classes = [each for each in kind.__mro__ if issubclass(each, base) and each is not base]
    digest = Digest(frozenset(each.__module__.partition(".")[0] for each in classes) - {"mtopt"}, (base, apart))
    digest.token(_name(kind))
    declared = {name for each in classes for name, value in vars(each).items() if not _is_code_of_class(value)}
    for name in sorted(declared | set(vars(task))):
        if not name.startswith("_") and name not in apart and not _is_cached(kind, name):
            digest.token(name)
            digest.add(getattr(task, name), f"task {task.name!r}: attribute {name!r}")
    digest.add_class(kind)
    return digest.hexdigest()


class Digest:
    """A hash of values and of the code that they consist of.

    Tensors and arrays enter whole, sets in no order, functions and classes of the user's own modules by their code and
    by what they use there; those of installed packages by name.

    Args:
        packages: that count as the user's own though they are installed.
        apart: names of class attributes that do not enter, for subclasses of the class given with them.
    """

    def __init__(
        self, packages: frozenset[str] = frozenset(), apart: tuple[type, frozenset[str]] | None = None
    ) -> None:
        self._hash = hashlib.sha256()
        self._packages, self._apart = packages, apart
        self._within: list[int] = []
        self._known: set[int] = set()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def token(self, *parts: str) -> None:
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            self._hash.update(b"%d:" % len(data) + data)

    def add(self, value: Any, where: str) -> None:
        """Enter ``value``, which messages call ``where``."""
        kind = type(value)
        if kind is int:
            self.token("int", hex(value))
        elif isinstance(value, _PLAIN) and kind.__module__ == "builtins":
            self.token(kind.__name__, repr(value))
        elif isinstance(value, enum.Enum):
            self.token(_name(kind), value.name)
        elif isinstance(value, type):
            self.add_class(value)
        elif isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized:
            self._tensor(value)
        elif (kind is np.ndarray and not value.dtype.hasobject) or isinstance(value, np.generic):
            array = np.ascontiguousarray(value)
            self.token("array", _name(kind), repr(array.dtype.descr), repr(np.shape(value)))
            self._hash.update(array.tobytes())
        elif isinstance(value, PurePath):
            self.token("path", os.fspath(value))
        elif id(value) in self._within:
            self.token("again", str(len(self._within) - self._within.index(id(value))))
        else:
            with self._inside(value):
                self._compound(value, where)

    def _apart_from_this(self, value: Any, where: str) -> str:
        digest = Digest(self._packages, self._apart)
        digest.add(value, where)
        return digest.hexdigest()

    def _owns(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages or is_own(module)

    @contextmanager
    def _inside(self, value: Any) -> Iterator[None]:
        self._within.append(id(value))
        yield
        self._within.pop()

    def _compound(self, value: Any, where: str) -> None:
        kind = type(value)
        if isinstance(value, Mapping) and kind in (dict, types.MappingProxyType):
            self.token("mapping", str(len(value)))
            for key, item in value.items():
                self.add(key, f"a key of {where}")
                self.add(item, f"{where}[{key!r}]")
        elif kind in (list, tuple) or (isinstance(value, tuple) and hasattr(value, "_fields")):
            self.token(_name(kind), str(len(value)))
            for index, item in enumerate(value):
                self.add(item, f"{where}[{index}]")
        elif kind in (set, frozenset):
            self.token(kind.__name__, *sorted(self._apart_from_this(item, f"an item of {where}") for item in value))
        elif isinstance(value, torch.Generator):
            self._tensor(value.get_state())
        elif self._code(value, where):
            return
        elif dataclasses.is_dataclass(value):
            self.add_class(kind)
            for field in dataclasses.fields(value):
                if field.compare:
                    self.token(field.name)
                    self.add(getattr(value, field.name), f"{where}.{field.name}")
        else:
            self._object(value, where)

    def _code(self, value: Any, where: str) -> bool:
        """Enter functions, methods and modules; whether it was one."""
        if isinstance(value, types.FunctionType):
            self.add_function(value)
        elif isinstance(value, types.MethodType):
            self.add(value.__self__, where)
            self.add(value.__func__, where)
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__, where)
        elif isinstance(value, types.ModuleType):
            self.token("module", value.__name__)
        elif isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType | None):
            self.token("builtin", str(value.__module__), value.__qualname__)
        elif isinstance(getattr(value, "__wrapped__", None), types.FunctionType):  # functools.cache and its like
            self.add_function(value.__wrapped__)
        else:
            return False
        return True

    def _object(self, value: Any, where: str) -> None:
        """By what pickle would write of it: what it is made from, and its state."""
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except (TypeError, AttributeError, NotImplementedError, pickle.PickleError) as error:
            raise ValueError(
                f"{where} has no value that outlives this process ({_name(type(value))}: {error}), so that finished "
                "runs would not be known again; begin its name with an underscore if results do not depend on it, or "
                "define the task's fingerprint()"
            ) from error
        self.token("object", _name(type(value)))
        if isinstance(reduced, str):
            self.token(reduced)
            return
        made, arguments, *rest = reduced  # a function, what it takes, the state, iterators over items and over pairs
        self.add(made, where)
        self.add(arguments, where)
        for part in rest:
            if isinstance(part, dict):  # without what was computed from the rest, and kept
                part = {name: each for name, each in part.items() if not _is_cached(type(value), name)}
            self.add(list(part) if isinstance(part, Iterator) else part, where)

    def _tensor(self, value: torch.Tensor) -> None:
        self.token("tensor", _name(type(value)), str(value.dtype), repr(tuple(value.shape)))
        if value.numel() and not value.is_meta:
            data = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
            self._hash.update(data.view(torch.uint8).numpy().data)

    def add_class(self, kind: type) -> None:
        """Its name; where it is the user's own, also its functions and constants, and those of its bases."""
        self.token("class", _name(kind))
        if not self._owns(kind.__module__) or id(kind) in self._known:
            return
        self._known.add(id(kind))
        base, names = self._apart or (kind, frozenset())
        apart = names if issubclass(kind, base) else frozenset()
        for each in kind.__mro__:
            if self._owns(each.__module__):
                self.token(_name(each))
                generated = dataclasses.is_dataclass(each) or hasattr(each, "_fields")
                for name, value in sorted(vars(each).items()):
                    if name not in apart | _WRITTEN_BY_PYTHON and not (generated and name.startswith("__")):
                        self.add_named(name, value)

    def add_function(self, function: types.FunctionType) -> None:
        """Its name; where it is the user's own, also its code, and what it uses."""
        self.token("function", function.__module__ or "", function.__qualname__)
        if not self._owns(function.__module__ or "__main__") or id(function) in self._known:
            return
        self._known.add(id(function))
        self.token(text_of_code(function))
        used = names_used(function)
        for value in function.__defaults__ or ():
            self.add_named("default", value, used)
        for name, value in (function.__kwdefaults__ or {}).items():
            self.add_named(name, value, used)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.add_named(name, _content(cell), used)
        for name in used:
            if name in function.__globals__:
                self.add_named(name, function.__globals__[name], used)
        for name, value in local_imports(function, self._owns):
            self.add_named(name, value, used)

    def add_named(self, name: str, value: Any, used: Sequence[str] = ()) -> None:
        """What a name in a user's code stands for: code and constants enter; other objects may change as they are used.

        A container under a name with a leading underscore is taken for a cache.
        """
        if isinstance(value, types.ModuleType):
            if self._owns(value.__name__) and id(value) not in self._within:
                with self._inside(value):
                    for each in used:
                        if each in vars(value):
                            self.add_named(each, vars(value)[each], used)
        elif isinstance(value, property):
            for function in (value.fget, value.fset):
                self.add_named(name, function)
        elif isinstance(value, cached_property):
            self.add_named(name, value.func)
        elif isinstance(value, types.MethodType):  # whose object may change as it is used
            self.add_named(name, value.__func__)
        elif _is_code(value) or (_is_constant(value) and not (name.startswith("_") and type(value) in _CONTAINERS)):
            self.token(name)
            self.add(value, name)


_WRITTEN_BY_PYTHON = frozenset(
    {
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__"),
        *("__annotate_func__", "__slots__", "__firstlineno__", "__static_attributes__", "__abstractmethods__"),
        *("__parameters__", "__orig_bases__", "__match_args__"),
    }
)


def _is_code(value: Any) -> bool:
    kinds = types.FunctionType, staticmethod, classmethod, type
    return isinstance(value, kinds) or isinstance(getattr(value, "__wrapped__", None), types.FunctionType)


def _is_code_of_class(value: Any) -> bool:
    return _is_code(value) or isinstance(value, property | cached_property)


def _is_constant(value: Any, depth: int = 8) -> bool:
    parts: list[Any] = []
    if isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, dict | types.MappingProxyType):
        parts = [*value, *value.values()]
    elif isinstance(value, partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return _is_leaf(value)
    return depth > 0 and all(_is_constant(part, depth - 1) for part in parts)


def _is_leaf(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    kinds = (*_PLAIN, enum.Enum, torch.Tensor, np.generic, PurePath, torch.dtype, torch.device)
    return isinstance(value, kinds) or _is_code(value)


def _is_cached(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), cached_property)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
