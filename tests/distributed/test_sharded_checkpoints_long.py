"""Sharded trainings that go on from four ranks on two and on one, on meshes of one dimension and of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.sharded_trainings import run_adam
from tests.distributed.spawned import run_on_ranks
from tests.distributed.test_sharded_checkpoints import RULES, without_state
from tests.distributed.test_training import check_same

pytestmark = pytest.mark.long

BATCH = 12
"""Examples: three steps are an epoch."""


@pytest.mark.parametrize("wrap", ["fsdp", "hsdp"])
def test_four_ranks_then_two_then_one(wrap: str, tmp_path: Path) -> None:
    cases: dict[str, Any] = {}
    for rule in RULES:
        cases |= {f"{rule} {n}": (run_adam, (tmp_path / rule, n, rule, wrap, BATCH)) for n in (4, 8)}
        cases[rule] = run_adam, (None, 8, rule, wrap, BATCH)
        cases[f"half {rule}"] = run_adam, (tmp_path / f"half {rule}", 4, rule, wrap, BATCH)
    of_four = run_on_ranks(4, tmp_path, cases)
    for rule in RULES:
        for mine, at_once in zip(of_four[f"{rule} 8"], of_four[rule], strict=True):
            assert torch.equal(mine["end"], at_once["end"])
            assert mine["state"] == at_once["state"]
    meeting = tmp_path / "two"
    meeting.mkdir()
    cases = {rule: (run_adam, (tmp_path / f"half {rule}", 8, rule, "fsdp", BATCH)) for rule in RULES}
    of_two = run_on_ranks(2, meeting, cases)
    for rule in RULES:
        truth = run_adam(None, 12, rule, batch=BATCH)
        assert without_state(of_two[rule])["steps"] == 8
        check_same(run_adam(tmp_path / f"half {rule}", 12, rule, batch=BATCH), truth)
