"""MMPareto against MGDA's point by a slow method, and its own length."""

from __future__ import annotations

import pytest
import torch

from mtopt.combiners import MMPareto
from tests.combiners.helpers import agreeing, conflicting_pair, drawn_jacobian, min_norm_point


def test_without_a_conflict_it_is_the_sum_times_gamma() -> None:
    jacobian = agreeing(0, 3, 6)
    torch.testing.assert_close(MMPareto(gamma=2.0)(jacobian), 2.0 * jacobian.sum(0))
    orthogonal = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(MMPareto()(orthogonal), torch.full((2,), 1.5, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [2, 4])
def test_in_a_conflict_it_is_mgdas_direction_as_long_as_the_sum(seed: int, rows: int) -> None:
    jacobian = drawn_jacobian(seed, rows, 9)
    jacobian[1] -= 2.0 * jacobian[0]
    direction, shortest = MMPareto()(jacobian), rows * min_norm_point(jacobian)
    torch.testing.assert_close(direction / direction.norm(), shortest / shortest.norm(), rtol=1e-6, atol=1e-6)
    longest = max(shortest.norm(), jacobian.sum(0).norm())
    assert float(direction.norm()) == pytest.approx(1.5 * float(longest), rel=1e-7)


def test_it_is_lengthened_to_the_sum_and_never_shortened() -> None:
    pair = conflicting_pair(1)
    assert float(MMPareto(gamma=1.0)(pair).norm()) == pytest.approx(float(pair.sum(0).norm()))
    short = torch.tensor([[1.0, 0.1], [-1.0, 0.1]], dtype=torch.float64)  # the sum is twice MGDA's point already
    torch.testing.assert_close(MMPareto(gamma=1.0)(short), short.sum(0))


def test_pareto_stationary_gradients_stop_it() -> None:
    opposite = torch.tensor([[1.0, 2.0], [-2.0, -4.0]], dtype=torch.float64)
    assert not MMPareto()(opposite).any()


def test_gamma_is_checked() -> None:
    with pytest.raises(ValueError, match="gamma must be positive, found 0"):
        MMPareto(gamma=0.0)
