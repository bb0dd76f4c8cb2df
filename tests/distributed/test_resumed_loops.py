"""Sharded trainings in other libraries' loops go on from their checkpoints bit for bit, the rule's state included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map

import mtopt
from tests.distributed.resumed_loops import resume_accelerate, resume_fabric, resume_lightning, resume_transformers
from tests.distributed.spawned import Raised, run_on_ranks
from tests.distributed.test_loops import needed

pytestmark = [  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
]

CASES: dict[str, tuple[Callable[..., Any], str, tuple[Any, ...]]] = {
    "transformers rows": (resume_transformers, "moco", ()),
    "transformers numbers": (resume_transformers, "famo", ()),
    "lightning rows": (resume_lightning, "moco", ()),
    "lightning rows in one file": (resume_lightning, "moco", (True,)),
    "lightning numbers": (resume_lightning, "famo", ()),
    "fabric rows": (resume_fabric, "moco", ()),
    "fabric numbers": (resume_fabric, "go4align", ()),
    "accelerate rows": (resume_accelerate, "moco", (True,)),
    "accelerate numbers": (resume_accelerate, "go4align", ()),
}
"""By loop and by what the rule keeps: the function, the rule, and more arguments."""


def bits_of(value: Any) -> Any:
    """The same with lists for tensors, which then compare to the last bit."""
    return tree_map(lambda each: each.tolist() if isinstance(each, torch.Tensor) else each, value)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    for name in CASES:
        needed(name)
    given: dict[str, Any] = {}
    for name, (function, rule, more) in CASES.items():
        given[name] = function, (rule, tmp_path_factory.mktemp("run"), "fsdp", *more)
    given["fabric left alone"] = resume_fabric, ("go4align", tmp_path_factory.mktemp("run"), "fsdp", False)
    given["accelerate refused"] = resume_accelerate, ("moco", tmp_path_factory.mktemp("run"), "fsdp", False)
    return run_on_ranks(2, tmp_path_factory.mktemp("ranks"), given)


@pytest.mark.parametrize("name", CASES)
def test_a_sharded_training_goes_on_as_if_it_had_not_ended(name: str, found: dict[str, list[Any]]) -> None:
    fresh = mtopt.create_combiner(CASES[name][1]).state_dict()
    for each in found[name]:
        assert not isinstance(each, Raised), each
        at_once, resumed = each
        assert bits_of(at_once["rule"]) != bits_of(fresh)  # there is something to restore
        assert any(moment.abs().max() > 0 for moment in at_once["moments"])
        assert torch.equal(resumed["end"], at_once["end"])
        assert bits_of(resumed["moments"]) == bits_of(at_once["moments"])
        assert bits_of(resumed["rule"]) == bits_of(at_once["rule"])


def test_fabric_puts_the_state_of_a_rule_where_the_rule_was_and_loads_nothing(found: dict[str, list[Any]]) -> None:
    """Which is why it is loaded by hand; once Fabric loads it, that can go."""
    for each in found["fabric left alone"]:
        assert not isinstance(each, Raised), each
        at_once, resumed = each
        assert (at_once["entry"], resumed["entry"]) == ("GO4Align", "dict")
        assert not torch.equal(resumed["end"], at_once["end"])


def test_accelerate_is_not_given_what_a_rule_keeps_of_shards(found: dict[str, list[Any]]) -> None:
    for each in found["accelerate refused"]:
        assert each.kind == "ValueError"
        assert "combiner is MoCo()" in each.text
        assert "whole_rule_state" in each.text
