"""SAGO, coordinate by coordinate."""

from __future__ import annotations

import pytest
import torch

import mtopt
from mtopt.combiners import SAGO, Gradients
from tests.combiners.helpers import drawn_jacobian


@pytest.mark.parametrize("elsewhere", ["forget", "both"])
@pytest.mark.parametrize("retain", [0, 1])
def test_each_coordinate_is_taken_by_the_signs_there(elsewhere: str, retain: int) -> None:
    jacobian = drawn_jacobian(3, 2, 50)
    jacobian[0, :5], jacobian[1, 3:8] = 0.0, 0.0
    keep, lose = jacobian[retain].tolist(), jacobian[1 - retain].tolist()
    expected = []
    for r, f in zip(keep, lose, strict=True):
        if (r > 0 > f) or (r < 0 < f):
            expected.append(0.7 * r)
        else:
            expected.append(1.3 * f + (0.7 * r if elsewhere == "both" else 0.0))
    rule = SAGO(alpha=0.7, gamma=1.3, elsewhere=elsewhere, retain=retain, forget=1 - retain)  # type: ignore[arg-type]
    torch.testing.assert_close(rule(jacobian), torch.tensor(expected, dtype=torch.float64))


def test_the_retain_loss_never_rises() -> None:
    for seed in range(20):
        jacobian = drawn_jacobian(seed, 2, 30)
        assert bool((SAGO()(jacobian) * jacobian[0] >= 0.0).all())


def test_short_gradients_have_signs_whose_product_would_underflow() -> None:
    jacobian = torch.tensor([[1e-30, -1e-30], [-1e-30, -1e-30]])
    assert SAGO()(jacobian).tolist() == pytest.approx([1e-30, -1e-30])


def test_an_absent_loss_counts_as_a_zero_gradient() -> None:
    row = drawn_jacobian(0, 1, 4)
    alone = {k: Gradients.of(row, objectives=[k], total=2) for k in (0, 1)}
    for rule, of_retain in ((SAGO(), 0.0), (SAGO(elsewhere="both"), 1.0)):
        torch.testing.assert_close(rule.combine(alone[0], None).direction, of_retain * row[0])
        torch.testing.assert_close(rule.combine(alone[1], None).direction, row[0])


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="SAGO is for two objectives"):
        SAGO()(drawn_jacobian(0, 3, 4))
    with pytest.raises(ValueError, match="alpha must be non-negative"):
        mtopt.create_combiner("sago", alpha=-1.0)
    with pytest.raises(ValueError, match="elsewhere must be 'forget' or 'both'"):
        mtopt.create_combiner("sago", elsewhere="retain")
