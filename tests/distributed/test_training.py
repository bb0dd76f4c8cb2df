"""A training on two ranks is that of one process on the whole batches, and ends alike on both whatever happens."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.distributed.judging import SECONDS
from tests.distributed.spawned import Raised, run_on_ranks
from tests.distributed.trainings import (
    TROUBLES,
    data_of,
    odd_tensors,
    run_ended,
    run_exchanges,
    run_shuffled,
    run_training,
    run_trouble,
    run_unequal,
    run_until,
    run_with_files,
)

TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rows": ("mgda", "ddp", {}),
    "bare": ("pcgrad", "bare", {"clip_norm": 0.5}),
    "second look": ("famo", "ddp", {}),
    "draws": ("modo", "ddp", {}),
    "accumulated": ("ngdiff", "ddp", {"accumulate": 2}),
    "rate": ("ngdiff", "ddp", {"gen": True}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[Any]]:
    cases: dict[str, Any] = {f"training {name}": (run_training, arguments) for name, arguments in TRAININGS.items()}
    cases |= {f"trouble {name}": (run_trouble, (name, folder / f"trouble-{name}")) for name in TROUBLES}
    cases |= {"shuffled": (run_shuffled, ()), "unequal": (run_unequal, ()), "files": (run_with_files, (folder,))}
    cases |= {how: (run_ended, (folder / how, how)) for how in ("sigterm", "stop")}
    cases |= {f"noise {steps}": (run_until, (folder / "noise", steps, True)) for steps in (5, 10)}
    cases["noise"] = run_until, (folder / "noise-at-once", 10, True)
    cases["exchanges"] = run_exchanges, ()
    cases["half"] = run_until, (folder / "half", 9)
    return run_on_ranks(2, folder, cases)


def check_alike(found: list[Any]) -> Any:
    """What all ranks have, to the last bit."""
    assert not any(isinstance(each, Raised) for each in found), found
    for each in found[1:]:
        assert torch.equal(each["end"], found[0]["end"])
        assert str({k: v for k, v in each.items() if k != "end"}) == str(
            {k: v for k, v in found[0].items() if k != "end"}
        )
    return found[0]


def check_same(found: Any, truth: Any, within: float = 1e-12) -> None:
    """A training is that of one process."""
    assert found["steps"] == truth["steps"]
    assert found["epochs"] == truth["epochs"]
    torch.testing.assert_close(found["end"], truth["end"], rtol=0.0, atol=within)
    for part in ("losses", "weights"):
        for name, values in truth[part].items():
            np.testing.assert_allclose(found[part][name], values, rtol=0.0, atol=10 * within)
    assert found["evaluations"].keys() == truth["evaluations"].keys()
    for split, evaluated in truth["evaluations"].items():
        for (step, values), (there, expected) in zip(found["evaluations"][split], evaluated, strict=True):
            assert step == there
            assert values == pytest.approx(expected, rel=0.0, abs=10 * within)
    np.testing.assert_allclose(found["rates"], truth["rates"], rtol=1e-6)


def check_trouble(name: str, found: list[Any]) -> None:
    """What it is, as the second rank says it, and the others; in time, and they go on together."""
    kind, here, there = TROUBLES[name]
    for rank, each in enumerate(found):
        expected = "IsADirectoryError" if name == "checkpoint" and rank == 0 else "RankError"
        what, says = (kind, here) if rank == 1 else (expected, there)
        if name == "checkpoint" and rank > 1:
            says = here
        assert (each["kind"], says in each["text"]) == (what, True), each["text"]
        assert each["seconds"] < SECONDS
        assert torch.equal(each["end"], found[0]["end"])


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_that_of_one_process(name: str, found: dict[str, list[Any]]) -> None:
    truth = run_training(*TRAININGS[name])
    # a rate made of differences of losses has fewer digits than they
    check_same(check_alike(found[f"training {name}"]), truth, within=1e-9 if name == "rate" else 1e-12)
    if name == "rate":
        assert len(set(truth["rates"])) > 3


def test_every_epoch_has_a_shuffle_of_its_own_and_every_example_once(found: dict[str, list[Any]]) -> None:
    whole = data_of().tensors[0]
    for epoch in range(2):
        seen = torch.cat([each[epoch] for each in found["shuffled"]])
        assert torch.equal(seen[seen[:, 0].argsort()], whole[whole[:, 0].argsort()])
    first, second = found["shuffled"][0]
    assert not torch.equal(first, second)


def test_one_rank_writes_and_all_select_alike(found: dict[str, list[Any]], folder: Path) -> None:
    each = check_alike(found["files"])
    assert each["steps"] == 3  # none of the evaluations after the first was better by ten
    assert each["again"] == each["best"]
    with open(folder / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    assert sorted(path.name for path in (folder / "front").iterdir()) == [
        f"front-{step:010d}.pt" for step in each["kept"]
    ]


@pytest.mark.parametrize("how", ["sigterm", "stop"])
def test_what_ends_one_rank_ends_all_with_a_checkpoint(how: str, found: dict[str, list[Any]]) -> None:
    for each in found[how]:
        assert each["code"] == (143 if how == "sigterm" else None)
        assert each["steps"] == 4
        assert each["files"][-1] == "step-0000000004.pt"
        assert each["seconds"] < SECONDS


@pytest.mark.parametrize("name", TROUBLES)
def test_what_goes_wrong_on_one_rank_is_known_to_all(name: str, found: dict[str, list[Any]]) -> None:
    check_trouble(name, found[f"trouble {name}"])


def test_an_epoch_ends_where_one_rank_has_no_batch_left(found: dict[str, list[Any]]) -> None:
    first, second = found["unequal"]
    assert any("data has more batches in an epoch on rank 0" in said for said in first.pop("said"))
    assert not any("more batches" in said for said in second.pop("said"))
    assert check_alike([first, second])["steps"] == 2 * 4


def test_a_training_goes_on_bit_for_bit_on_as_many_ranks(found: dict[str, list[Any]]) -> None:
    for mine, at_once in zip(found["noise 10"], found["noise"], strict=True):
        assert torch.equal(mine["end"], at_once["end"])
        assert str(mine) == str(at_once)
    assert found["noise"][0]["steps"] == 10


def test_a_training_goes_on_in_one_process(found: dict[str, list[Any]], folder: Path, tmp_path: Path) -> None:
    assert check_alike(found["half"])["steps"] == 9  # half an epoch and one
    check_same(run_until(folder / "half", 14), run_until(tmp_path / "whole", 14))


def test_ranks_take_tensors_of_the_first_and_means_of_those_that_have_something(found: dict[str, list[Any]]) -> None:
    for each in found["exchanges"]:
        for mine, first in zip(each["tensors"], odd_tensors(0), strict=True):
            assert mine.dtype == first.dtype
            torch.testing.assert_close(mine, first, rtol=0.0, atol=0.0, equal_nan=True)
        assert each["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert each["means"] == {0: 1.5, 1: 5.0}
