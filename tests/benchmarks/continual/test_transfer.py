"""Transfer on matrices made by hand."""

import numpy as np
import pytest

from benchmarks.continual.transfer import average_accuracy, backward_transfer, forward_transfer

HAND_MADE = [
    [0.9, 0.3, 0.2],  # after the first task
    [0.7, 0.8, 0.5],
    [0.6, 0.9, 1.0],
]


def test_a_matrix_made_by_hand():
    assert average_accuracy(HAND_MADE) == pytest.approx(2.5 / 3)
    assert backward_transfer(HAND_MADE) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert forward_transfer(HAND_MADE, [0.1, 0.2, 0.1]) == pytest.approx(((0.3 - 0.2) + (0.5 - 0.1)) / 2)


def test_nothing_forgotten_and_nothing_passed_on():
    # each task is at chance until it is learned, and perfect from then on
    steps = np.tril(np.ones((5, 5))) + np.triu(np.full((5, 5), 0.5), 1)
    assert average_accuracy(steps) == 1.0
    assert backward_transfer(steps) == 0.0
    assert forward_transfer(steps, np.full(5, 0.5)) == 0.0


def test_everything_forgotten():
    # only the task just learned is known, the others are at zero
    assert average_accuracy(np.eye(4)) == 0.25
    assert backward_transfer(np.eye(4)) == -1.0
    assert forward_transfer(np.eye(4), np.full(4, 0.5)) == -0.5


def test_two_tasks_are_enough_and_one_is_not():
    assert backward_transfer([[1.0, 0.5], [0.25, 1.0]]) == -0.75
    for wrong in ([[1.0]], [[1.0, 0.5]], [1.0, 0.5]):
        with pytest.raises(ValueError, match=r"\(T, T\)"):
            backward_transfer(wrong)
    with pytest.raises(ValueError, match="each of 3 tasks"):
        forward_transfer(HAND_MADE, [0.1, 0.2])
