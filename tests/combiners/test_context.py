"""What a step tells a rule: one frozen object, there while the rule is asked and no longer."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

import mtopt
from mtopt.combiners import Combiner, Context, Gradients, create_combiner
from mtopt.linalg import Precision

ROWS = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
FLOAT32, FLOAT64 = (torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64))


class _Listening(mtopt.GramianCombiner):
    """Remembers what it was told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.heard: list[tuple[tuple[int, ...], int, Precision]] = []

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        self.heard.append((*self.objectives_of_rows(len(gramian)), self._precision(gramian)))
        if self.fails:
            raise ArithmeticError("as told")
        return torch.ones(len(gramian))


def test_it_is_there_in_a_step_and_outside_one_the_rows_are_all_there_are() -> None:
    rule = _Listening()
    rule.combine(Gradients.of(ROWS, objectives=(3, 1), total=5), None)
    rule.weights(ROWS @ ROWS.T)
    assert [heard[:2] for heard in rule.heard] == [((3, 1), 5), ((0, 1), 2)]
    assert (rule.objectives, rule.total) == ((), 0)


def test_a_step_that_fails_is_forgotten_too() -> None:
    rule = _Listening(fails=True)
    with pytest.raises(ArithmeticError, match="as told"):
        rule.combine(Gradients.of(ROWS, objectives=(3, 1), total=5), None)
    assert (rule.objectives, rule.total) == ((), 0)


def test_it_is_that_of_the_innermost_question() -> None:
    rule = _Listening()
    with rule.tell(Context((0, 1), 2)):
        with rule.tell(Context((2,), 3)):
            assert (rule.objectives, rule.total) == ((2,), 3)
        assert (rule.objectives, rule.total) == ((0, 1), 2)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS, Precision(FLOAT32, 4 * FLOAT32)),
        (ROWS.double(), Precision(FLOAT64, 4 * FLOAT64)),
        (torch.tensor([[1.0, 0.0], [1.0, 1e-4]]), Precision(FLOAT32, 4 * FLOAT64)),
        (ROWS.bfloat16(), Precision(torch.finfo(torch.bfloat16).eps, 4 * FLOAT32)),
    ],
    ids=["float32", "float64", "dependent rows", "16 bits"],
)
def test_the_precision_is_that_behind_the_gramian(rows: torch.Tensor, expected: Precision) -> None:
    """Nearly dependent rows are multiplied in float64; the Gramian's own dtype, float64 always, does not tell."""
    rule = _Listening()
    rule.combine(Gradients.of(rows), None)
    assert rule.heard[0][2] == expected


@pytest.mark.parametrize("name", ["linear", "ngdiff", "mgda", "graddrop"])
def test_nobody_writes_to_it(name: str) -> None:
    rule: Combiner = create_combiner(name)
    with pytest.raises(AttributeError):
        rule.objectives = (0,)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        rule.total = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        rule._context.total = 1  # type: ignore[misc]
