"""GradOPS against projections of the gradients themselves."""

from __future__ import annotations

import pytest
import torch

from mtopt.combiners import GradOPS, PCGrad
from tests.combiners.helpers import agreeing, conflicting_pair, drawn_jacobian


def paper(jacobian: torch.Tensor, alpha: float) -> torch.Tensor:
    """Each conflicting gradient minus its least-squares fit by the others, reweighted by its length."""
    kept = []
    for i, row in enumerate(jacobian):
        others = torch.cat([jacobian[:i], jacobian[i + 1 :]])
        if bool((others @ row < 0).any()):
            fit = torch.linalg.lstsq(others.T, row[:, None], driver="gelsd").solution
            row = row - (others.T @ fit)[:, 0]
        kept.append(row)
    lengths = torch.stack([row.norm() for row in kept]) ** alpha
    return torch.stack(kept).T @ (lengths / lengths.mean())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rows", [2, 3, 6])
@pytest.mark.parametrize("alpha", [0.0, 1.5, -2.0])
def test_it_is_the_papers(seed: int, rows: int, alpha: float) -> None:
    jacobian = drawn_jacobian(seed, rows, 9) * torch.logspace(-1, 2, rows, dtype=torch.float64)[:, None]
    torch.testing.assert_close(GradOPS(alpha=alpha)(jacobian), paper(jacobian, alpha), rtol=1e-9, atol=1e-9)


def test_two_gradients_are_pcgrads() -> None:
    for seed in range(5):
        pair = conflicting_pair(seed)
        torch.testing.assert_close(GradOPS()(pair), PCGrad()(pair))


def test_without_a_conflict_it_is_the_sum() -> None:
    jacobian = agreeing(0, 4, 8)
    torch.testing.assert_close(GradOPS()(jacobian), jacobian.sum(0))


def test_every_part_is_free_of_conflicts_with_every_gradient() -> None:
    for seed in range(20):
        jacobian = drawn_jacobian(seed, 5, 7)
        direction = GradOPS(alpha=-1.0)(jacobian)
        assert bool((jacobian @ direction >= -1e-12 * jacobian.norm(dim=1) * direction.norm()).all())


def test_a_conflicting_gradient_in_the_span_of_the_others_adds_nothing() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    for alpha in (0.0, 2.0, -2.0):
        torch.testing.assert_close(GradOPS(alpha=alpha)(jacobian), jacobian[1])  # the only one in no conflict


def test_alpha_is_checked() -> None:
    with pytest.raises(ValueError, match="alpha must be finite"):
        GradOPS(alpha=float("inf"))
