"""Ranks that each hold a shard of the parameters give what one process gives on the whole batch."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.distributed import sharded
from tests.distributed.judging import SECONDS, check_steps
from tests.distributed.models import run_plan, run_rule
from tests.distributed.plans import PLANS
from tests.distributed.spawned import Raised, run_on_ranks

# on losses, norms, inner products and coordinates; tracked by shard, with a sum of its own, and of gathered rows
RULES = ("excess_mtl", "famo", "graddrop", "krum", "mgda", "moco", "ngdiff", "trimmed_mean", "uw")

PLANNED = {
    **dict.fromkeys(("combined", "weighted", "bfloat16", "kept_weights", "layers", "normalized"), ""),
    "batched": "not batched, since fully_shard",
    "features_first": "not features first, since",
    "streamed": "added up",
    "blockwise": "block by block",
    "callables": "one batch after the other",
    "draws": "2 draws",
    "accumulated": "gradients combined",
    "two_points": "and once more at the parameters",
}
"""Plans, and what the record says of them."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    cases: dict[str, Any] = {f"rule {name}": (run_rule, (name, 3, "fsdp")) for name in RULES}
    cases |= {f"plan {name}": (run_plan, PLANS[name]._replace(wrap="fsdp").arguments) for name in PLANNED}
    cases |= {
        f"refused {name}": (run_plan, (rule, 3, kind, options, "fsdp"))
        for name, (rule, kind, options, _) in sharded.REFUSED.items()
    }
    cases |= {f"trouble {name}": (sharded.run_trouble, (name, "moco")) for name in sharded.TROUBLES}
    cases |= {f"listed {when}": (sharded.run_listed, (when,)) for when in ("before", "after")}
    cases |= {f"tied {rule}": (sharded.run_tied, (rule,)) for rule in ("mgda", "dwa", "graddrop")}
    cases |= {f"counted {rule}": (sharded.run_counted, (rule,)) for rule in ("mgda", "dwa")}
    for name in ("accumulating", "plain_after", "without_sync", "mixed", "partly"):
        cases[name] = getattr(sharded, f"run_{name}"), ()
    for wrap, what in (("ddp", "parameter"), ("fsdp", "parameter"), ("fsdp", "weight")):
        cases[f"agreement {wrap} {what}"] = sharded.run_agreement, (wrap, what)
    cases["state"] = sharded.run_state, ("moco",)
    cases["many"] = run_rule, ("nash_mtl", 3, "fsdp", 50)
    return run_on_ranks(2, tmp_path_factory.mktemp("ranks"), cases)


def check_close(found: list[Any], expected: torch.Tensor) -> None:
    assert not any(isinstance(each, Raised) for each in found), found
    for each in found:
        torch.testing.assert_close(each, expected, rtol=0.0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_gives_the_direction_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    check_steps(found[f"rule {name}"], run_rule(name, 3))


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_gives_the_direction_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    case = PLANS[name]
    check_steps(found[f"plan {name}"], run_plan(*case.arguments), within=case.within, says=PLANNED[name])


def test_copies_of_the_shards_give_the_direction_of_one_process(tmp_path: Any) -> None:
    rules = ("graddrop", "mgda", "moco", "uw")
    cases: dict[str, Any] = {name: (run_rule, (name, 3, "hsdp")) for name in rules}
    cases["agreement"] = sharded.run_agreement, ("hsdp", "parameter")
    found = run_on_ranks(4, tmp_path, cases)
    for name in rules:
        check_steps(found[name], run_rule(name, 3))
    for compared, text in found["agreement"]:
        assert compared == [False, True, False, True, False]
        assert "rank 3 differs from rank 1 in the parameter 'some.bias'" in text


@pytest.mark.parametrize("name", sharded.REFUSED)
def test_what_cannot_be_sharded_is_refused_by_name(name: str, found: dict[str, list[Any]]) -> None:
    for each in found[f"refused {name}"]:
        assert each.kind == "ValueError"
        assert f"with which {sharded.REFUSED[name][-1]}" in each.text or sharded.REFUSED[name][-1] in each.text


def test_a_model_that_is_sharded_in_part_is_refused(found: dict[str, list[Any]]) -> None:
    for each in found["partly"]:
        assert each.kind == "ValueError"
        assert re.search(r"params\[0\] is not sharded, .* apply fully_shard to the root", each.text)


@pytest.mark.parametrize("name", sharded.TROUBLES)
def test_what_ranks_must_have_alike_is_told_on_all(name: str, found: dict[str, list[Any]]) -> None:
    _, what, says = sharded.TROUBLES[name]
    for each in found[f"trouble {name}"]:
        assert each["outcome"][0] == what
        assert re.search(says, each["outcome"][1])
        assert each["seconds"] < SECONDS
        assert not each["changed"]
        assert torch.equal(each["after"], found[f"trouble {name}"][0]["after"])
        assert bool(each["after"].any())


@pytest.mark.parametrize("when", ["before", "after"])
def test_parameters_may_be_listed_before_the_forward_and_after_it(when: str, found: dict[str, list[Any]]) -> None:
    check_close(found[f"listed {when}"], sharded.run_listed("before"))


def test_directions_add_up_in_place_as_gradients_do(found: dict[str, list[Any]]) -> None:
    assert all(each["same"] and each["told"] == 2 for each in found["accumulating"])
    check_close([each["gradient"] for each in found["accumulating"]], sharded.run_accumulating()["gradient"])


def test_a_step_of_the_users_own_afterwards_is_of_the_new_parameters(found: dict[str, list[Any]]) -> None:
    expected = sharded.run_plain_after()
    for what in ("gradient", "end"):
        check_close([each[what] for each in found["plain_after"]], expected[what])


def test_gradients_that_wait_for_their_reduction_wait_on(found: dict[str, list[Any]]) -> None:
    check_close(found["without_sync"], sharded.run_without_sync())


@pytest.mark.parametrize("rule", ["mgda", "dwa", "graddrop"])
def test_shared_and_frozen_parameters_and_checkpoints(rule: str, found: dict[str, list[Any]]) -> None:
    expected = sharded.run_tied(rule)
    assert bool(expected.any())
    check_close(found[f"tied {rule}"], expected)


def test_short_parameters_have_gradients_reduced_in_float32(found: dict[str, list[Any]]) -> None:
    for each in found["mixed"]:
        (exact, norms), (short, short_norms) = each["float32"], each["bfloat16"]
        torch.testing.assert_close(short, exact, rtol=0.0, atol=0.05 * float(exact.abs().max()))
        torch.testing.assert_close(short_norms, norms, rtol=0.05, atol=0.0)


def test_a_step_takes_a_reduction_a_loss_and_no_gathering_more_than_a_plain_one(found: dict[str, list[Any]]) -> None:
    for each in found["counted mgda"]:
        plain, step = each["plain"], each["mgda"]
        assert plain["_reduce_scatter_base_"] == 3
        assert step["_reduce_scatter_base_"] == 3 + 2 + 3  # the first loss does not reach one of the groups
        assert step["_allgather_base_"] == plain["_allgather_base_"]
        assert set(step) == {*plain, "allgather_"}
        assert step["allgather_"] <= 8  # what is agreed, and the products of the shards of two groups of parameters
    for each in found["counted dwa"]:
        plain, step = each["plain"], each["dwa"]
        assert {kind: step[kind] for kind in plain} == plain


def test_what_a_rule_tracks_stays_sharded(found: dict[str, list[Any]]) -> None:
    (first, total), (second, _) = found["state"]
    assert first + second == total
    assert 0 < second <= first


def test_ranks_that_differ_are_named(found: dict[str, list[Any]]) -> None:
    for compared, text in found["agreement ddp parameter"]:
        assert compared == [False, True, False, True, False]
        assert re.search(
            "not alike after 6 steps: rank 1 differs from rank 0 in the parameter 'some.bias', and in 1 more",
            text,
        )
    for _, text in found["agreement fsdp weight"]:
        assert re.search("rank 1 weighs by .*, rank 0 by", text)
    assert all(text == "" for _, text in found["agreement fsdp parameter"])  # each has shards of its own


def test_ranks_stay_alike_to_the_last_bit(found: dict[str, list[Any]]) -> None:
    first, second = found["many"]
    assert first["records"] == second["records"]
    assert torch.equal(first["end"], second["end"])
    assert not any(skipped for _, _, _, skipped, _, _ in first["records"])
