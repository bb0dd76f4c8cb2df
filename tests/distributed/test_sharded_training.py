"""A training whose parameters are sharded is that of one process, and its checkpoints are those of a bare model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import sharded_trainings
from tests.distributed.spawned import run_on_ranks
from tests.distributed.test_training import check_alike, check_same
from tests.distributed.trainings import run_training, run_until, run_with_files

TRAININGS: dict[str, tuple[str, str, dict[str, Any], int, bool]] = {
    "clipped rows": ("mgda", "fsdp", {"clip_norm": 0.1}, 2, False),
    "second look": ("famo", "fsdp", {}, 2, False),
    "draws": ("modo", "fsdp", {}, 2, False),
    "two points": ("moco_plus", "fsdp", {}, 2, False),
    "accumulated": ("ngdiff", "fsdp", {"accumulate": 2}, 2, False),
    "rate": ("ngdiff", "fsdp", {"gen": True}, 2, False),
    "rate and second look": ("famo", "fsdp", {"gen": True}, 1, False),
    "freed after each pass": ("moco", "freed", {}, 2, False),
    "rate, and kept after the forward": ("ngdiff", "kept", {"gen": True}, 2, False),
    "two dimensions": ("mgda", "copies", {"clip_norm": 0.1}, 1, False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def alone(folder: Path) -> None:
    """What one process has left for several, half an epoch and one in."""
    sharded_trainings.run_adam(folder / "more", 9)


@pytest.fixture(scope="module")
def found(folder: Path, alone: None) -> dict[str, list[Any]]:
    cases: dict[str, Any] = {f"training {name}": (run_training, arguments) for name, arguments in TRAININGS.items()}
    cases |= {f"noise {steps}": (run_until, (folder / "noise", steps, True, "famo", "fsdp")) for steps in (5, 10)}
    cases["noise"] = run_until, (folder / "noise-at-once", 10, True, "famo", "fsdp")
    cases |= {f"adam {steps}": (sharded_trainings.run_adam, (folder / "adam", steps)) for steps in (5, 10)}
    cases["adam"] = sharded_trainings.run_adam, (None, 10)
    cases["half"] = sharded_trainings.run_adam, (folder / "half", 9)
    cases["more"] = sharded_trainings.run_adam, (folder / "more", 14)
    cases["files"] = run_with_files, (folder, "fsdp")
    cases["back"] = sharded_trainings.run_back, ()
    cases["rate"] = sharded_trainings.run_rate, ()
    cases["archived"] = sharded_trainings.run_archived, (folder / "archive",)
    cases |= {
        f"refused {name}": (sharded_trainings.run_refused, (name, folder / "refused"))
        for name in sharded_trainings.REFUSED
    }
    return run_on_ranks(2, folder, cases)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_that_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    rule, _, options, *more = TRAININGS[name]
    truth = run_training(rule, "bare", options, *more)
    for each in found[f"training {name}"]:
        each.pop("state")  # a rule that tracks rows has those of its shard
    # a rate made of differences of losses has fewer digits than they
    check_same(check_alike(found[f"training {name}"]), truth, within=1e-9 if "rate" in name else 1e-12)
    if "rate" in name:
        assert len(set(truth["rates"])) > 3


def test_a_rate_is_that_of_one_process_in_a_loop_of_ones_own(found: dict[str, list[Any]]) -> None:
    for each in found["rate"]:
        torch.testing.assert_close(each, sharded_trainings.run_rate("bare"), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("name", ["noise", "adam"])
def test_a_training_goes_on_bit_for_bit_on_as_many_ranks(name: str, found: dict[str, list[Any]]) -> None:
    for mine, at_once in zip(found[f"{name} 10"], found[name], strict=True):
        assert torch.equal(mine["end"], at_once["end"])
        assert mine["losses"] == at_once["losses"]
    assert found[name][0]["steps"] == 10


def test_a_training_goes_on_on_fewer_and_on_more_ranks(found: dict[str, list[Any]], folder: Path) -> None:
    assert check_alike(found["half"])["steps"] == 9
    truth = sharded_trainings.run_adam(None, 14)
    check_same(sharded_trainings.run_adam(folder / "half", 14), truth)
    check_same(check_alike(found["more"]), truth)


def test_one_rank_writes_and_all_select_alike(found: dict[str, list[Any]], folder: Path) -> None:
    each = check_alike(found["files"])
    assert each["steps"] == 3
    assert each["again"] == each["best"]


@pytest.mark.parametrize("name", ["back", "archived"])
def test_a_state_comes_back(name: str, found: dict[str, list[Any]]) -> None:
    for before, after in found[name]:
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", sharded_trainings.REFUSED)
def test_what_cannot_be_is_refused_on_all_ranks(name: str, found: dict[str, list[Any]]) -> None:
    for text in found[f"refused {name}"]:
        assert sharded_trainings.REFUSED[name] in text
