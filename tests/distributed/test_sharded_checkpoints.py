"""Checkpoints of sharded trainings, with what rules track of each shard: as many ranks, fewer, more; damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.sharded_trainings import run_adam, run_portable, run_spoiled
from tests.distributed.spawned import run_on_ranks
from tests.distributed.test_training import check_alike, check_same

RULES = ("moco_plus", "history")
"""Rows of K losses and the parameters of the step before; a rule in a rule, both with rows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[Any]]:
    cases: dict[str, Any] = {}
    for rule in RULES:
        run_adam(folder / f"more {rule}", 9, rule)  # one process, for two to go on
        cases |= {f"{rule} {steps}": (run_adam, (folder / rule, steps, rule)) for steps in (5, 10)}
        cases[rule] = run_adam, (None, 10, rule)
        cases[f"half {rule}"] = run_adam, (folder / f"half {rule}", 9, rule)
        cases[f"more {rule}"] = run_adam, (folder / f"more {rule}", 14, rule)
    cases["mesh"] = run_adam, (folder / "mesh", 9, "moco", "copies")
    cases["file"] = run_portable, (folder / "file.pt",)
    cases["at once"] = run_adam, (None, 9, "moco")
    cases["spoiled"] = run_spoiled, (folder / "spoiled",)
    return run_on_ranks(2, folder, cases)


def without_state(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What all ranks have alike: not the rows of their shards."""
    for each in found:
        each.pop("state", None)
    return check_alike(found)


@pytest.mark.parametrize("rule", RULES)
def test_tracked_rows_go_on_bit_for_bit_on_as_many_ranks(rule: str, found: dict[str, list[Any]]) -> None:
    for mine, at_once in zip(found[f"{rule} 10"], found[rule], strict=True):
        assert torch.equal(mine["end"], at_once["end"])
        assert mine["losses"] == at_once["losses"]
        assert mine["steps"] == 10
    states = [each["state"] for each in found[f"{rule} 10"]]
    assert states == [each["state"] for each in found[rule]]
    assert states[0] != states[1]  # each has its own part


@pytest.mark.parametrize("rule", RULES)
def test_tracked_rows_go_on_on_fewer_and_on_more_ranks(
    rule: str, found: dict[str, list[Any]], folder: Path, tmp_path: Path
) -> None:
    truth = run_adam(None, 14, rule)
    shutil.copytree(folder / f"half {rule}", tmp_path / "half")  # it goes on there, and drops the oldest
    check_same(run_adam(tmp_path / "half", 14, rule), truth)
    check_same(without_state(found[f"more {rule}"]), truth)


def test_a_mesh_of_two_dimensions_goes_on_in_one_process(found: dict[str, list[Any]], folder: Path) -> None:
    assert without_state(found["mesh"])["steps"] == 9
    check_same(run_adam(folder / "mesh", 14, "moco"), run_adam(None, 14, "moco"))


def test_each_rank_writes_its_part(found: dict[str, list[Any]], folder: Path) -> None:
    (first, second) = sorted((folder / "half history").glob("step-*"))
    assert [first.name, second.name] == ["step-0000000006.shards", "step-0000000009.shards"]
    assert sorted(path.name for path in second.iterdir()) == [".metadata", "__0_0.distcp", "__1_0.distcp", "state.pt"]


def test_a_file_of_its_own_is_that_of_a_bare_model(found: dict[str, list[Any]], folder: Path) -> None:
    for each in found["file"]:
        assert torch.equal(each, found["at once"][0]["end"])
    alone = run_portable(folder / "file.pt")
    torch.testing.assert_close(alone, found["file"][0], rtol=0.0, atol=1e-12)


def test_a_damaged_one_is_passed_over_or_refused_on_all(found: dict[str, list[Any]]) -> None:
    for short, other in found["spoiled"]:
        assert short == (13, ["step-0000000012.shards", "step-0000000013.shards"], "")
        assert other[0] == 0
        assert "does not match its checksum" in other[2]
