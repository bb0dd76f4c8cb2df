"""Between the passes of one graph a sharded model stays gathered, or is freed after each: as the user said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed import sharded
from tests.distributed.judging import check_steps
from tests.distributed.models import run_plan, run_rule
from tests.distributed.plans import PLANS
from tests.distributed.spawned import Raised, run_on_ranks

WAYS = {
    "freed": ("accumulated", "blockwise", "callables", "draws", "kept_weights", "streamed", "two_points", "weighted"),
    "parts_freed": ("loop",),
    "kept": ("loop", "accumulated"),
}
"""By the way that parameters are sharded, plans that are tried with it."""

RULES = ("graddrop", "moco", "uw")  # whole rows, shards of rows, losses

OTHERS: dict[str, tuple[Any, ...]] = {"accumulating": (), "plain_after": (), "without_sync": (), "tied": ("mgda",)}
"""Cases that are not three steps of a rule, and what they are given before the way."""

PLANNED = [(name, way) for way, names in WAYS.items() for name in names]

BETWEEN = {
    # parts that all losses pass, and that the last does not, and the rest; a part that two losses pass is gathered for
    # each in the forward
    "fsdp": ([[0, 0, 1], [1, 1, 1], [1, 1, 1]], [4, 6, 6, 6]),
    "freed": ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], [4, 7, 10, 12]),
    "parts_freed": ([[0, 0, 1], [0, 0, 1], [0, 0, 1]], [4, 6, 8, 9]),
    "kept": ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], [1, 1, 1, 1]),
    "freed_in_forward": ([[0, 0, 0], [1, 1, 1], [1, 1, 1]], [4, 7, 7, 7]),
}
"""Which parts are gathered when a pass begins, and how many times any was gathered until then, and in all."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    cases: dict[str, Any] = {}
    cases |= {f"rule {name} freed": (run_rule, (name, 3, "freed")) for name in RULES}
    cases |= {f"plan {name} {way}": (run_plan, PLANS[name]._replace(wrap=way).arguments) for name, way in PLANNED}
    for name, given in OTHERS.items():
        cases |= {f"{name} {way}": (getattr(sharded, f"run_{name}"), (*given, way)) for way in ("freed", "kept")}
    cases |= {f"between {way}": (sharded.run_between, (way,)) for way in BETWEEN}
    return run_on_ranks(2, tmp_path_factory.mktemp("ranks"), cases)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_gives_the_direction_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    check_steps(found[f"rule {name} freed"], run_rule(name, 3))


@pytest.mark.parametrize(("name", "way"), PLANNED)
def test_a_plan_gives_the_direction_of_one_process(name: str, way: str, found: dict[str, list[Any]]) -> None:
    case = PLANS[name]
    check_steps(found[f"plan {name} {way}"], run_plan(*case.arguments), within=case.within)


@pytest.mark.parametrize("way", ["freed", "kept"])
@pytest.mark.parametrize("name", OTHERS)
def test_accumulated_and_frozen_parameters_go_with_it(name: str, way: str, found: dict[str, list[Any]]) -> None:
    expected = _tensors_of(getattr(sharded, f"run_{name}")(*OTHERS[name]))
    for each in found[f"{name} {way}"]:
        assert not isinstance(each, Raised), each
        for mine, one in zip(_tensors_of(each), expected, strict=True):
            torch.testing.assert_close(mine, one, rtol=0.0, atol=1e-12 * float(one.abs().max()))


def _tensors_of(result: Any) -> list[torch.Tensor]:
    values = result.values() if isinstance(result, dict) else [result]
    return [value for value in values if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("way", BETWEEN)
def test_what_is_gathered_is_freed_between_passes_where_the_user_said_so(way: str, found: dict[str, list[Any]]) -> None:
    held, gathered = BETWEEN[way]
    for each in found[f"between {way}"]:
        assert not isinstance(each, Raised), each
        assert each["held"] == [*held, [0, 0, 0]]  # after the step nothing is
        assert each["gathered"] == gathered
        assert each["scattered"] == [3 + 3 + 2]  # a reduction for each group that a loss reaches, whichever way


def test_on_copies_of_shards_and_not_with_larger_shards_after_the_forward(tmp_path: Any) -> None:
    rules = ("mgda", "moco")
    cases: dict[str, Any] = {name: (run_rule, (name, 3, "hsdp_freed")) for name in rules}
    cases["freed_to_pairs"] = run_rule, ("mgda", 3, "freed_to_pairs")
    found = run_on_ranks(4, tmp_path, cases)
    for name in rules:
        check_steps(found[name], run_rule(name, 3))
    for each in found["freed_to_pairs"]:
        assert each.kind == "ValueError"
        assert "without a number for reshard_after_forward" in each.text
