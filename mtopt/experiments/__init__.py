"""Comparing rules fairly: suites of tasks, the grid, the tuning budget, the result store, statistics, the report."""

from mtopt.experiments._compare import compare
from mtopt.experiments._contestant import Contestant
from mtopt.experiments._failure import Failure
from mtopt.experiments._loading import load_suite
from mtopt.experiments._merge import merge
from mtopt.experiments._registered import list_suites
from mtopt.experiments._task import Budget, Suite, Task
from mtopt.experiments._tmobo import TMOBO
from mtopt.experiments.presentation import Comparison
from mtopt.experiments.statistics import Verdict

__all__ = [
    "TMOBO",
    "Budget",
    "Comparison",
    "Contestant",
    "Failure",
    "Suite",
    "Task",
    "Verdict",
    "compare",
    "list_suites",
    "load_suite",
    "merge",
]
