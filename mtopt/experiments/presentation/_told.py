"""Failed runs in words: those of one cause together, with its traceback once."""

from __future__ import annotations

from collections.abc import Iterable

from mtopt.experiments._failure import Failure
from mtopt.experiments._plan import TUNING_SEED


def tell_failures(failures: Iterable[Failure]) -> str:
    """One paragraph a cause: which runs it ended, by task, rule and seed, and the traceback; empty without failures."""
    causes: dict[tuple[str, str, str, str], list[Failure]] = {}
    for failure in failures:
        what = failure.traceback or f"{failure.kind}: {failure.message}\n"
        causes.setdefault((failure.suite, failure.task, failure.by, what), []).append(failure)
    return "\n".join(_tell(*cause[:3], runs, cause[3]) for cause, runs in causes.items())


def _tell(suite: str, task: str, by: str, runs: list[Failure], what: str) -> str:
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.combiner, []).append(f"{run.seed}{' (tuning)' if run.seed == TUNING_SEED else ''}")
    which = "; ".join(
        f"{name} seed{'' if len(found) == 1 else 's'} {', '.join(found)}" for name, found in seeds.items()
    )
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    verb = "skipped steps" if by == "steps" else "failed"
    return f"{count} of {suite}/{task} {verb} ({which}):\n{what}"
