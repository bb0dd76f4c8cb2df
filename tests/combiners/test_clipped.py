"""Clipped: gradients cut to a length before the rule sees them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import mtopt
from mtopt.combiners import Clipped, Combiner, Every, Linear, Normalized, PerGroup, Smoothed, create_combiner
from mtopt.testing import check_combiner
from tests.combiners.helpers import drawn_jacobian

LOSSES = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


def rows_of_lengths(seed: int, *lengths: float) -> torch.Tensor:
    rows = drawn_jacobian(seed, len(lengths), 7)
    return rows / rows.norm(dim=1, keepdim=True) * torch.tensor(lengths, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("name", ["linear", "ngdiff", "mgda", "pcgrad", "moco", "trimmed_mean", "graddrop", "famo"])
def test_the_direction_is_the_rules_for_the_clipped_rows(name: str) -> None:
    wrapped, plain = Clipped(create_combiner(name), 1.5), create_combiner(name)
    for step in range(3):
        jacobian = rows_of_lengths(step, 30.0, 0.3, 3.0)
        clipped = jacobian * torch.tensor([1.5 / 30.0, 1.0, 0.5], dtype=torch.float64)[:, None]
        torch.testing.assert_close(wrapped(jacobian, LOSSES), plain(clipped, LOSSES))


def test_a_sum_of_clipped_gradients_by_hand() -> None:
    jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]])
    total = Clipped(Linear(reduction="sum"), 1.0)
    assert total(jacobian).tolist() == pytest.approx([0.6, 1.3])
    assert total.weights(torch.tensor([5.0, 0.5, 0.0])).tolist() == pytest.approx([0.2, 1.0, 1.0])


def test_between_nothing_and_normalised() -> None:
    jacobian = rows_of_lengths(0, 2.0, 5.0, 11.0)
    torch.testing.assert_close(Clipped(create_combiner("mgda"), math.inf)(jacobian), create_combiner("mgda")(jacobian))
    torch.testing.assert_close(
        Clipped(create_combiner("mgda"), 0.1)(jacobian), 0.1 * Normalized(create_combiner("mgda"))(jacobian)
    )


def test_backward_clips_what_the_rule_combines_and_unscales_first() -> None:
    shared, head = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    losses = [(shared * torch.tensor([30.0, 40.0])).sum(), shared[1] * 0.5 + 7.0 * head.sum()]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    record = mtopt.backward(losses, [shared, head], Clipped(Linear(reduction="sum"), 1.0), scaler=scaler, private="own")
    assert shared.grad is not None
    assert head.grad is not None
    assert (shared.grad / 1024).tolist() == pytest.approx([0.6, 1.3])
    assert (head.grad / 1024).tolist() == [7.0]
    assert record.norms == pytest.approx({"loss_0": 50.0, "loss_1": 0.5})  # as they were
    assert record.weights == pytest.approx({"loss_0": 0.02, "loss_1": 1.0})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Clipped(create_combiner("mgda"), 2.0),
        lambda: Clipped(create_combiner("linear"), 2.0),
        lambda: Clipped(create_combiner("famo"), 2.0),
        lambda: Clipped(create_combiner("trimmed_mean"), 2.0),
        lambda: Clipped(create_combiner("moco"), 2.0),
        lambda: Clipped(create_combiner("upgrad"), 2.0),
        lambda: Clipped(Normalized(create_combiner("mgda"), "loss"), 2.0),
        lambda: Every(Clipped(create_combiner("mgda"), 2.0), 2),
        lambda: Clipped(Smoothed(Every(create_combiner("mgda"), 2), 0.5), 2.0),
    ],
    ids=lambda make: repr(make()).replace(" ", ""),
)
def test_it_conforms(make: Callable[[], Combiner]) -> None:
    check_combiner(make(), objectives=(1, 2, 4))


@pytest.mark.parametrize("make", [lambda: Clipped(PerGroup(create_combiner("pcgrad"), [2, 4]), 2.0)])
def test_it_conforms_around_groups(make: Callable[[], Combiner]) -> None:
    check_combiner(make(), objectives=(1, 2, 4), columns=6)


def test_what_it_declares() -> None:
    assert Clipped(create_combiner("linear"), 1.0).needs == "norms"
    assert Clipped(create_combiner("mgda"), 1.0).needs == "gramian"
    assert Clipped(create_combiner("upgrad"), 1.0).non_conflicting
    assert not Clipped(create_combiner("mgda"), 1.0).homogeneous
    assert repr(Clipped(create_combiner("mgda"), 2.0)) == "Clipped(MGDA(), max_norm=2.0)"


def test_errors() -> None:
    for wrong in (0, -1.0, math.nan, True, "1"):
        with pytest.raises(ValueError, match="max_norm must be a positive number"):
            Clipped(create_combiner("mgda"), wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rule must be a Combiner"):
        Clipped("mgda", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weighs a draw it has not seen"):
        Clipped(create_combiner("modo"), 1.0)
