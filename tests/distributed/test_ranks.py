"""Two ranks give what one process gives on the whole batch, and what goes wrong on one comes to the same on both."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mtopt
from mtopt import distributed
from tests.distributed.judging import check_steps, check_trouble
from tests.distributed.models import run_plan, run_rule
from tests.distributed.plans import PLANS
from tests.distributed.spawned import run_on_ranks
from tests.distributed.troubles import OUTCOMES, run_trouble
from tests.distributed.uneven import run_plain_after, run_uneven

# on losses, norms, inner products and coordinates; with state, with random numbers, with a second look
RULES = ("famo", "graddrop", "krum", "mgda", "moco", "ngdiff", "uw")

PLANNED = (
    *("batched", "representation", "bfloat16", "streamed", "blockwise", "kept_weights", "callables", "two_points"),
    *("draws", "accumulated", "matrix_free", "displaced", "matrix_free_draws", "bare", "views"),
)

UNEVEN = (
    *(("loop", "absent"), ("loop", "branch"), ("batched", "all_absent"), ("representation", "branch")),
    *(("streamed", "absent_first"), ("kept_weights", "branch"), ("loss_values", "all_absent"), ("callables", "nan")),
    *(("matrix_free", "absent"), ("accumulated", "all_absent")),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """All cases on two ranks, which are started once: that takes longer than the steps."""
    cases: dict[str, Any] = {f"rule {name}": (run_rule, (name, 3)) for name in RULES}
    cases |= {f"plan {name}": (run_plan, PLANS[name].arguments) for name in PLANNED}
    cases |= {f"uneven {way} {case}": (run_uneven, (way, case, 2)) for way, case in UNEVEN}
    cases |= {f"trouble {name}": (run_trouble, (name,)) for name in OUTCOMES}
    cases["plain"] = run_plain_after, ()
    cases["many"] = run_rule, ("nash_mtl", 3, "ddp", 50)
    return run_on_ranks(2, tmp_path_factory.mktemp("ranks"), cases)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_gives_the_direction_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    check_steps(found[f"rule {name}"], run_rule(name, 3))


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_gives_the_direction_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    case = PLANS[name]
    check_steps(found[f"plan {name}"], run_plan(*case.arguments), within=case.within, says=case.says)


@pytest.mark.parametrize(("way", "case"), UNEVEN)
def test_what_one_rank_lacks_is_the_mean_of_the_others(way: str, case: str, found: dict[str, list[Any]]) -> None:
    check_steps(found[f"uneven {way} {case}"], run_uneven(way, case, 2))


@pytest.mark.parametrize("name", OUTCOMES)
def test_trouble_on_one_rank_comes_to_the_same_on_all(name: str, found: dict[str, list[Any]]) -> None:
    check_trouble(found[f"trouble {name}"], *OUTCOMES[name])


def test_a_step_of_the_users_own_afterwards_is_averaged(found: dict[str, list[Any]]) -> None:
    for each in found["plain"]:
        torch.testing.assert_close(each["found"], each["expected"], rtol=0.0, atol=1e-14)


def test_replicas_are_the_same_to_the_last_bit_after_many_steps(found: dict[str, list[Any]]) -> None:
    first, second = found["many"]
    assert first["records"] == second["records"]
    assert torch.equal(first["end"], second["end"])
    assert not any(skipped for _, _, _, skipped, _, _ in first["records"])


def test_one_process_is_alone() -> None:
    assert distributed.processes_of(torch.nn.Linear(1, 1)) is distributed.ALONE
    assert not distributed.ALONE.several


def test_one_process_in_a_group_is_alone(tmp_path: Any) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        assert distributed.processes_of(model) is distributed.ALONE
        record = mtopt.backward(list(model(torch.ones(3, 2)).square().mean(0)), model, mtopt.create_combiner("mgda"))
        assert not record.skipped
    finally:
        torch.distributed.destroy_process_group()
