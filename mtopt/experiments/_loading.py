"""Finding a suite by import path."""

from __future__ import annotations

import sys
from pathlib import Path

from mtopt.experiments._importing import import_module
from mtopt.experiments._task import Suite, Task

SuiteLike = str | Suite | Task


def load_suite(suite: SuiteLike) -> Suite:
    """The suite behind an import path (``package.module``, whose ``suite`` is taken, or ``module:object``), or itself.

    A :class:`Task` counts as a suite of one. The current directory is importable, as with ``python -m``.

    Raises:
        ValueError: no such module or object, or the object is no suite.
        TaskError: the module's own code raised an exception.
    """
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Task):
        return Suite(suite.name, (suite,))
    if not isinstance(suite, str):
        raise TypeError(f"a suite is an import path, a Suite or a Task, found {type(suite).__name__}")
    module_name, _, attribute = suite.partition(":")
    attribute = attribute or "suite"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name, f"suite {suite!r}")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing in ("", module_name) or module_name.startswith(f"{missing}."):
            ours = module_name.startswith("benchmarks.")
            place = "a clone of mtopt's sources" if ours else "the folder that holds it"
            told = f"suite {suite!r}: no module {module_name!r} here; run from {place}"
            raise ValueError(f"{told}, or install it") from error
        raise ValueError(
            f"suite {suite!r} needs the package {missing!r}; install it (for the suites of mtopt's sources: "
            "pip install 'mtopt[benchmarks]' or 'mtopt[unlearning]')"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(
            f"suite {suite!r}: module {module_name!r} has no {attribute!r}; name the object: MODULE:OBJECT"
        )
    found = getattr(module, attribute)
    if not isinstance(found, Suite | Task):
        raise ValueError(f"suite {suite!r} is a {type(found).__name__}, not an mtopt.experiments.Suite or Task")
    return load_suite(found)
