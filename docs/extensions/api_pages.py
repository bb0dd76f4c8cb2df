"""A page of the API reference for ``mtopt`` itself and for each public package, from what these export."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any

import mtopt

from pages import first_line, write

INTERNAL = ("linalg", "solvers", "distributed")
"""Packages that rules and plans are built from; listed last."""

INTEGRATIONS = (
    ("transformers", "MultiLossMixin"),
    ("lightning", "MultiLossMixin"),
    ("lightning", "backward"),
    ("accelerate", "backward"),
)


def belongs(thing: object) -> bool:
    """Whether a thing is to be described in the reference: a class or function of ours, and no rule of the registry."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)) or not thing.__module__.startswith("mtopt."):
        return False
    return not (inspect.isclass(thing) and issubclass(thing, mtopt.Combiner) and thing.name)


def exports(module: ModuleType) -> dict[str, object]:
    """The classes and functions that a module exports, by name."""
    if module.__name__ == "mtopt.integrations":  # each of its modules needs a package of its own
        return {
            f"{part}.{name}": getattr(import_module(f"{module.__name__}.{part}"), name) for part, name in INTEGRATIONS
        }
    return {name: thing for name in module.__all__ if belongs(thing := getattr(module, name))}


def directive(name: str, thing: object) -> str:
    """The autodoc directive of one exported thing."""
    if inspect.isclass(thing):
        members = "" if issubclass(thing, Exception) else "\n   :members:"
        return f".. autoclass:: {name}{members}\n"
    return f".. autofunction:: {name}\n"


def is_at_home(thing: Any, module: ModuleType, flat: dict[str, object]) -> bool:
    """Whether a thing is described on a module's page: in ``mtopt`` if it is there, else where it is defined."""
    if module is mtopt:
        return True
    return thing.__module__.startswith(f"{module.__name__}.") and not any(thing is other for other in flat.values())


def page(module: ModuleType, flat: dict[str, object]) -> str:
    """The page of a module, where ``flat`` are the names of ``mtopt`` itself."""
    title = module.__name__
    parts = [f"{title}\n{'=' * len(title)}\n", f".. currentmodule:: {title}\n", f"{first_line(module)}\n"]
    names = exports(module)
    elsewhere = [name for name, thing in names.items() if not is_at_home(thing, module, flat)]
    if elsewhere:
        names_elsewhere = ", ".join(f"``{name}``" for name in elsewhere)
        parts.append(f"Also here, and described in ``mtopt`` or where it is from: {names_elsewhere}.\n")
    parts += [directive(f"{title}.{name}", thing) for name, thing in names.items() if name not in elsewhere]
    return "\n".join(parts)


def write_pages(app: Any) -> None:
    """Write the reference."""
    packages = [thing for name in mtopt.__all__ if inspect.ismodule(thing := getattr(mtopt, name))]
    packages.sort(key=lambda package: (package.__name__.endswith(INTERNAL), package.__name__))
    modules = [mtopt, *packages]
    flat = exports(mtopt)
    names = [module.__name__.rpartition(".")[2] for module in modules]
    for name, module in zip(names, modules, strict=True):
        write(app, f"api/{name}.rst", page(module, flat))
    listed = [
        f"- :doc:`{module.__name__} <{name}>`: {first_line(module)}"
        for name, module in zip(names, modules, strict=True)
    ]
    tree = [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in names)]
    rules = "The rules have :doc:`pages of their own <../rules/index>`."
    write(app, "api/index.rst", "\n".join(["API reference", "=============", "", *listed, "", rules, "", *tree, ""]))


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
