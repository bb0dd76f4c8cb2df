"""Krum against its definition, written with loops over the gradients themselves."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners.krum import Krum
from tests.combiners.helpers import drawn_jacobian


def paper(jacobian: torch.Tensor, byzantine: int, selected: int, power: int) -> torch.Tensor:
    count = len(jacobian)
    scores = []
    for i in range(count):
        distances = sorted(float((jacobian[i] - jacobian[j]).norm() ** power) for j in range(count) if j != i)
        scores.append(sum(distances[: count - byzantine - 2]))
    best = sorted(range(count), key=lambda i: scores[i])[:selected]
    return jacobian[best].mean(0)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(4, 9),
    st.integers(0, 1),
    st.integers(1, 3),
    st.sampled_from(["squared", "norm"]),
)
@settings(max_examples=60, deadline=None)
def test_selects_what_the_definition_selects(
    seed: int, rows: int, byzantine: int, selected: int, distance: Literal["squared", "norm"]
) -> None:
    jacobian = drawn_jacobian(seed, rows, 6)
    rule = Krum(byzantine=byzantine, selected=selected, distance=distance)
    expected = paper(jacobian, byzantine, selected, 2 if distance == "squared" else 1)
    torch.testing.assert_close(rule(jacobian), expected)
    torch.testing.assert_close(rule(jacobian * 1e-20), expected * 1e-20)


def test_an_outlier_is_never_chosen() -> None:
    jacobian = drawn_jacobian(0, 5, 6)
    jacobian[2] *= 1e6
    weights = Krum(byzantine=1, selected=2).weights(jacobian @ jacobian.T)
    assert float(weights[2]) == 0.0
    assert sorted(weights.tolist()) == [0.0, 0.0, 0.0, 0.5, 0.5]


def test_few_and_equal_gradients_have_an_answer() -> None:
    row = drawn_jacobian(0, 1, 5)
    torch.testing.assert_close(Krum()(row), row[0])
    torch.testing.assert_close(Krum(byzantine=3)(torch.cat([row, 2 * row])), row[0])
    torch.testing.assert_close(Krum(selected=9)(torch.cat([row, 3 * row])), 2 * row[0])
    torch.testing.assert_close(Krum()(row.float().repeat(5, 1)), row[0].float())
    torch.testing.assert_close(Krum()(torch.zeros(3, 4)), torch.zeros(4))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"(byzantine|selected) must be a whole number of at least"):
        Krum(selected=0)
    with pytest.raises(ValueError, match="distance must be 'squared' or 'norm'"):
        Krum(distance="cosine")  # type: ignore[arg-type]
    assert repr(Krum(byzantine=1)) == "Krum(byzantine=1)"
