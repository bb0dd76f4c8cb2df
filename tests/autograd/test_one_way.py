"""A step passes few files of the engine, and is written once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import mtopt
import mtopt.autograd
from tests.autograd.helpers import MultiHead

ENGINE = str(Path(mtopt.autograd.__file__).parent)
PLAN = mtopt.MatrixFree("exact")


def files_entered(step: Callable[[], Any]) -> set[str]:
    """The files of the engine in which a function was called while ``step`` ran."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ENGINE):
            found.add(frame.f_code.co_filename[len(ENGINE) + 1 :])

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        step()
    finally:
        sys.setprofile(before)
    return found


def in_turn(model: MultiHead) -> list[Callable[[], torch.Tensor]]:
    return [lambda k=k: model.loss(k, model.features()) for k in range(2)]  # type: ignore[misc]


STEPS: dict[str, Callable[[MultiHead, mtopt.Combiner], Any]] = {
    "linear": lambda model, rule: mtopt.backward(model.losses(), model, rule),
    "mgda": lambda model, rule: mtopt.backward(model.losses(), model, rule),
    "ngdiff": lambda model, rule: mtopt.backward(in_turn(model), model, rule),
    "graddrop": lambda model, rule: mtopt.backward(model.losses(), model, rule),
    "mgda, matrix-free": lambda model, rule: mtopt.backward(model.losses, model, rule, plan=PLAN),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_read_in_six_files(name: str) -> None:
    model = MultiHead(2)
    rule = mtopt.create_combiner(name.partition(",")[0])
    STEPS[name](model, rule)  # what is done once for all is done
    files = files_entered(lambda: STEPS[name](model, rule))
    assert "_step.py" in files
    assert len(files) <= 6, sorted(files)
