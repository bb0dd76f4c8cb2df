"""Importing a user's module, whose own exceptions are not the wrong use of a command."""

from __future__ import annotations

import importlib
from types import ModuleType

from mtopt._errors import TaskError


def import_module(name: str, what: str) -> ModuleType:
    """The module ``name``, which messages call ``what``.

    Raises:
        ModuleNotFoundError: it or a module that it imports is not there.
        TaskError: its code raised another exception.
    """
    if not name or name.startswith("."):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise TaskError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
