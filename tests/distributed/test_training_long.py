"""Trainings on three ranks, and one that goes on with another number of ranks than it began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.spawned import run_on_ranks
from tests.distributed.test_training import TRAININGS, check_alike, check_same, check_trouble
from tests.distributed.trainings import TROUBLES, run_ended, run_training, run_trouble, run_until

pytestmark = pytest.mark.long

STEPS = (6, 9, 15, 21)
"""After one epoch; within the next, by two ranks; then by three and by one."""


def test_a_training_goes_on_with_two_three_and_one_rank(tmp_path: Path) -> None:
    for size, steps in ((2, STEPS[0]), (3, STEPS[1]), (2, STEPS[2])):
        meeting = tmp_path / f"meeting-{steps}"
        meeting.mkdir()
        found = run_on_ranks(size, meeting, {"part": (run_until, (tmp_path / "run", steps))})
        assert check_alike(found["part"])["steps"] == steps
    check_same(run_until(tmp_path / "run", STEPS[3]), run_until(tmp_path / "whole", STEPS[3]))


def test_three_ranks(tmp_path: Path) -> None:
    cases: dict[str, Any] = {f"training {name}": (run_training, arguments) for name, arguments in TRAININGS.items()}
    cases |= {f"trouble {name}": (run_trouble, (name, tmp_path / f"trouble-{name}")) for name in TROUBLES}
    cases |= {"sigterm": (run_ended, (tmp_path / "sigterm", "sigterm"))}
    cases |= {f"noise {steps}": (run_until, (tmp_path / "noise", steps, True)) for steps in (5, 10)}
    cases["noise"] = run_until, (tmp_path / "noise-at-once", 10, True)
    found = run_on_ranks(3, tmp_path, cases)
    for name, arguments in TRAININGS.items():
        within = 1e-9 if name == "rate" else 1e-12
        check_same(check_alike(found[f"training {name}"]), run_training(*arguments), within=within)
    for name in TROUBLES:
        check_trouble(name, found[f"trouble {name}"])
    assert {(each["code"], each["steps"]) for each in found["sigterm"]} == {(143, 4)}
    for mine, at_once in zip(found["noise 10"], found["noise"], strict=True):
        assert torch.equal(mine["end"], at_once["end"])
        assert str(mine) == str(at_once)
