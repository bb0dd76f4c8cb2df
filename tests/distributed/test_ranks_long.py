"""Every rule, plan and mixture of absences on two and on four ranks."""

from __future__ import annotations

from typing import Any

import pytest

import mtopt
from tests.distributed.judging import check_steps, check_trouble
from tests.distributed.models import rule_of, run_plan, run_rule, tasks_of
from tests.distributed.plans import PLANS
from tests.distributed.spawned import run_on_ranks
from tests.distributed.troubles import OUTCOMES, run_trouble
from tests.distributed.uneven import CASES, WAYS, run_uneven

pytestmark = pytest.mark.long

ALIKE = ("aligned_mtl", "cagrad", "config", "fairgrad", "famo", "gradnorm", "imtl_g", "krum", "moco", "nash_mtl")


@pytest.mark.parametrize("size", [2, 3, 4])
def test_everything(size: int, tmp_path: Any) -> None:
    """In one test, since ranks are started once for all of it."""
    tasks = {name: tasks_of(lambda name=name: rule_of(name)) for name in mtopt.list_combiners()}
    cases: dict[str, Any] = {}
    for wrap in ("ddp", "bare"):
        cases |= {f"rule {name} {wrap}": (run_rule, (name, tasks[name], wrap)) for name in tasks}
    cases |= {f"plan {name}": (run_plan, case.arguments) for name, case in PLANS.items()}
    uneven = [(way, case) for way in WAYS for case in CASES if (way, case) != ("accumulated", "nan")]
    cases |= {f"uneven {way} {case}": (run_uneven, (way, case, size)) for way, case in uneven}
    cases |= {f"trouble {name}": (run_trouble, (name,)) for name in OUTCOMES}
    cases |= {f"alike {name}": (run_rule, (name, 3, "ddp", 50)) for name in ALIKE}
    found = run_on_ranks(size, tmp_path, cases)

    for wrap in ("ddp", "bare"):
        for name in tasks:
            check_steps(found[f"rule {name} {wrap}"], run_rule(name, tasks[name]))
    for name, case in PLANS.items():
        check_steps(found[f"plan {name}"], run_plan(*case.arguments), within=case.within, says=case.says)
    for way, which in uneven:
        within = 1e-6 if way == "displaced" else 1e-12
        check_steps(found[f"uneven {way} {which}"], run_uneven(way, which, size), within=within)
    for name, outcome in OUTCOMES.items():
        check_trouble(found[f"trouble {name}"], *outcome)
    for name in ALIKE:
        ends = found[f"alike {name}"]
        check_steps(ends, ends[0])
