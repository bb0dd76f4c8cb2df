"""Every rule and plan on two, three and four ranks that each hold a shard, and on a mesh of two by two."""

from __future__ import annotations

from typing import Any

import pytest

import mtopt
from tests.distributed.judging import check_steps
from tests.distributed.models import rule_of, run_plan, run_rule, tasks_of
from tests.distributed.plans import PLANS
from tests.distributed.sharded import REFUSED
from tests.distributed.spawned import run_on_ranks

pytestmark = pytest.mark.long

REFUSING = {"representation", "representation_weighted", "float16", *(name for name in PLANS if "matrix_free" in name)}
REFUSING |= {name for name in PLANS if name.startswith("displaced")}
"""Plans that need whole parameters or gradients."""

UNWRAPPED = {"bare", "unused", "views"}
"""Ways to wrap replicas."""


@pytest.mark.parametrize(("size", "wrap"), [(2, "fsdp"), (2, "freed"), (3, "fsdp"), (4, "fsdp"), (4, "hsdp")])
def test_everything(size: int, wrap: str, tmp_path: Any) -> None:
    """In one test, since ranks are started once for all of it."""
    tasks = {name: tasks_of(lambda name=name: rule_of(name)) for name in mtopt.list_combiners()}
    plans = {name: case for name, case in PLANS.items() if name not in UNWRAPPED}
    cases: dict[str, Any] = {f"rule {name}": (run_rule, (name, tasks[name], wrap)) for name in tasks}
    cases |= {f"plan {name}": (run_plan, case._replace(wrap=wrap).arguments) for name, case in plans.items()}
    found = run_on_ranks(size, tmp_path, cases)
    for name in tasks:
        check_steps(found[f"rule {name}"], run_rule(name, tasks[name]))
    for name, case in plans.items():
        if name in REFUSING:
            assert all(
                each.kind == "ValueError" and "sharded by fully_shard" in each.text for each in found[f"plan {name}"]
            )
        else:
            check_steps(found[f"plan {name}"], run_plan(*case.arguments), within=case.within)
    assert set(REFUSED) <= REFUSING
