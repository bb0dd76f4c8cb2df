"""The code that a function consists of, and which code is a user's own."""

from __future__ import annotations

import dis
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@cache
def is_own(module: str) -> bool:
    """Whether a module is the user's: neither mtopt's, whose version is in every key, nor installed."""
    top = module.partition(".")[0]
    if top in ("mtopt", "builtins"):
        return False
    if top == "__main__":
        return True
    known = sys.modules.get(top)
    spec = importlib.util.find_spec(top) if known is None else known.__spec__
    if spec is None:
        return known is not None  # made by hand
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    files = [Path(place).resolve() for place in places if place]
    return bool(files) and not any(file.is_relative_to(folder) for file in files for folder in _INSTALLED)


def text_of_code(function: FunctionType) -> str:
    """What was compiled: all that its source says but comments, layout and its docstring, and what really runs."""
    return "\n".join(
        f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_argcount} "
        f"{code.co_kwonlyargcount} {code.co_flags} {_constants(code, function.__doc__)}"
        for code in _codes(function.__code__)
    )


def names_used(function: FunctionType) -> list[str]:
    """Every global and attribute that the function and those within it name, sorted."""
    return sorted({name for code in _codes(function.__code__) for name in code.co_names})


def local_imports(function: FunctionType, is_followed: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """``(name, object)`` of what the function imports when it runs, from the modules that are to be followed."""
    package = function.__globals__.get("__package__") or ""
    for code in _codes(function.__code__):
        pushed: list[Any] = [0, None]
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                level, names = pushed[-2:]
                if level and not package:
                    continue
                module = importlib.util.resolve_name("." * level + step.argval, package) if level else step.argval
                if is_followed(module):
                    yield from _imported(module, names)
            elif step.opname != "EXTENDED_ARG":
                pushed.append(step.argval)


def _imported(module: str, names: tuple[str, ...] | None) -> Iterator[tuple[str, Any]]:
    try:
        found = importlib.import_module(module)
    except ImportError:  # the run itself will say so, or does without it
        return
    for name in names or ():
        yield name, getattr(found, name, None) or sys.modules.get(f"{module}.{name}")
    if not names:
        yield module, found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _constants(code: CodeType, docstring: str | None) -> list[Any]:
    """Sets are sorted: their order is another in each process."""
    return [
        sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)
        for constant in code.co_consts
        if not isinstance(constant, CodeType) and (docstring is None or constant != docstring)
    ]
