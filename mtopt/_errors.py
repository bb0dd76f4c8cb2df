"""The exceptions of the package: each names the argument, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NonFiniteError(ValueError):
    """A loss or a gradient row holds NaN or infinity."""


class SolverError(RuntimeError):
    """A convex program was not solved to its tolerance; the message gives the residual."""


class CheckpointError(RuntimeError):
    """A checkpoint is truncated, damaged, foreign, or belongs to another rule or model."""


class InUseError(RuntimeError):
    """A folder that a run needs for itself is in use by another one."""


class StoreError(ValueError):
    """A store of results is damaged, foreign or not to be written to; the message names the file and what to do."""


class TaskError(RuntimeError):
    """The code of a task, suite or rule raised an exception outside of its runs; that one is the cause."""


class UnknownNameError(LookupError):
    """A name is in no registry; the message lists the nearest ones."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that ``known`` does not hold, with the nearest names that it does."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"known names: {', '.join(known)}."
    return UnknownNameError(f"unknown {kind} {name!r}: {hint}")
