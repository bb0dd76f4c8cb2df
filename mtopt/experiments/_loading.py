"""Finding a suite by its short name or import path."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Any

from mtopt.experiments._importing import import_module
from mtopt.experiments._registered import find_registered, how_to_install, list_suites
from mtopt.experiments._task import Suite, Task

SuiteLike = str | Suite | Task


def load_suite(suite: SuiteLike) -> Suite:
    """The suite of a short name (:func:`list_suites`), behind an import path, or itself.

    An import path is ``package.module``, whose ``suite`` is taken, or ``module:object``. A :class:`Task` counts as a
    suite of one. The current directory is importable, as with ``python -m``.

    Raises:
        ValueError: no such name, module or object, or the object is no suite; with the nearest names.
        TaskError: the module's own code raised an exception.
    """
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Task):
        return Suite(suite.name, (suite,))
    if not isinstance(suite, str):
        raise TypeError(f"a suite is a short name, an import path, a Suite or a Task, found {type(suite).__name__}")
    _refuse_file(suite)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    entry = find_registered(suite) if not {".", ":"} & set(suite) else None
    module_name, _, attribute = (suite if entry is None else f"{entry.module}:{entry.attr or ''}").partition(":")
    found = _imported(suite, module_name, attribute or "suite")
    if not isinstance(found, Suite | Task):
        raise ValueError(f"suite {suite!r} is a {type(found).__name__}, not an mtopt.experiments.Suite or Task")
    return load_suite(found)


def _refuse_file(suite: str) -> None:
    """A suite is named by its module; whoever types a file gets the name in the error."""
    name, colon, attribute = suite.partition(":")
    path = Path(name)
    if path.suffix != ".py" and not {"/", os.sep} & set(name):
        return
    elsewhere = path.is_absolute() or ".." in path.parts
    module = path.with_suffix("").name if elsewhere else ".".join(path.with_suffix("").parts)
    place = f", in the folder {path.parent}" if elsewhere else ""
    raise ValueError(f"suite {suite!r} is a file; type the name of its module{place}: {module}{colon}{attribute}")


def _imported(suite: str, module_name: str, attribute: str) -> Any:
    try:
        module = import_module(module_name, f"suite {suite!r}")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing in ("", module_name) or module_name.startswith(f"{missing}."):
            raise ValueError(
                f"suite {suite!r}: no module {module_name!r} here. {_nearest(suite)}A module is found in the folder "
                "that holds it, or once it is installed"
            ) from error
        raise ValueError(f"suite {suite!r} needs the package {missing!r}: {how_to_install(module_name)}") from error
    if not hasattr(module, attribute):
        raise ValueError(
            f"suite {suite!r}: module {module_name!r} has no {attribute!r}; name the object: MODULE:OBJECT"
        )
    return getattr(module, attribute)


def _nearest(suite: str) -> str:
    """``Did you mean 'toy'? Short names: ...``, where the whole name counts, or its last part."""
    short = list_suites()
    modules = [path.stem for path in Path.cwd().glob("*.py")]
    wanted = suite.partition(":")[0]
    near: list[str] = []
    for text in (wanted, wanted.rpartition(".")[2]):
        near += difflib.get_close_matches(text.lower(), [*short, *modules], n=3, cutoff=0.5)
    asked = f"Did you mean {' or '.join(map(repr, dict.fromkeys(near)))}? " if near else ""
    known = f"Short names: {', '.join(short)}. " if short else ""
    return f"{asked}{known}"
