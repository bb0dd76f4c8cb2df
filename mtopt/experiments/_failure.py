"""Why a run has no result: what is kept of an exception, and whose it is."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

from mtopt._errors import SolverError
from mtopt.combiners import Combiner

REFUSALS = (ValueError, ArithmeticError, SolverError)
"""What a rule says that it does not fit with: losses out of its domain, a program without a solution."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A run without a result, or with one that is not whole.

    Attributes:
        suite, task, combiner, seed: which run; ``combiner`` is the name in the table.
        by: ``"rule"`` where the rule itself says that it does not fit the task, a result like others; ``"code"`` for
            every other exception: an error of the task's code, the rule's or mtopt's, to be mended. Where there is a
            result: ``"values"`` if they are NaN or infinite, ``"steps"`` if steps were skipped.
        kind: the class of the exception, ``"KeyError"``.
        message: what it said.
        traceback: as text, from the first line that is not of ``mtopt.experiments``; empty where there is none.
    """

    suite: str
    task: str
    combiner: str
    seed: int
    by: Literal["rule", "code", "values", "steps"]
    kind: str
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.suite}/{self.task} {self.combiner} seed {self.seed}: {self.kind}: {self.message}"


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """``("done", what it returns)``, or ``("failed", ...)`` with what the store keeps of its exception.

    Everything is caught, here alone: the code is a task's or a rule's, and what ends one run must leave the others.
    ``sys.exit`` in it would end the comparison in silence.
    """
    try:
        return "done", function(*arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return "failed", describe_error(error)


def describe_error(error: BaseException) -> dict[str, str]:
    """What the store keeps of an exception: strings alone, so that any process may send them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    outside = error.__traceback__
    while outside is not None and _module(outside.tb_frame).startswith("mtopt.experiments."):
        outside = outside.tb_next
    told = traceback.TracebackException(type(error), error, outside)
    refused = isinstance(error, REFUSALS) and any(map(_is_of_a_rule, frames))
    return {
        "by": "rule" if refused or _refuses_the_rule(error, frames) else "code",
        "kind": type(error).__name__,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(told.format()) if outside is not None else "",
    }


def describe_killed(times: int, detail: str) -> dict[str, str]:
    """The same of a process that was killed as often as its call is made."""
    return {
        "by": "code",
        "kind": "Killed",
        "error": f"Killed: its process ended {times} times, killed by the system for want of memory most likely "
        f"(fewer --jobs leave more for each) or by the task's own code; {' '.join(detail.split())}",
        "traceback": "",
    }


def read_failure(row: Mapping[str, Any], combiner: str) -> Failure:
    """The failure that a row of the store holds; ``combiner`` is its contestant's name."""
    result = row["result"]
    error = str(result["error"])
    kind = str(result.get("kind", error.partition(":")[0]))
    return Failure(
        suite=row["suite"],
        task=row["task"],
        combiner=combiner,
        seed=row["seed"],
        by="code" if result.get("by") == "code" else "rule",
        kind=kind,
        message=error.removeprefix(f"{kind}: "),
        traceback=str(result.get("traceback", "")),
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_of_a_rule(frame: FrameType) -> bool:
    own = _module(frame).startswith(("mtopt.combiners.", "mtopt.solvers."))
    return own or isinstance(frame.f_locals.get("self"), Combiner)


def _refuses_the_rule(error: BaseException, frames: list[FrameType]) -> bool:
    """Whether mtopt's own engine or trainer says no to a rule, which its messages name: it needs more batches, say."""
    innermost = _module(frames[-1]) if frames else ""
    rules = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, Combiner)]
    return (
        isinstance(error, REFUSALS)
        and innermost.startswith(("mtopt.autograd.", "mtopt.training."))
        and any(repr(rule) in str(error) for rule in rules)
    )
