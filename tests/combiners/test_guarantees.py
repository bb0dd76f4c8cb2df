"""What is promised where others fail: at a row ratio of 1e6, and for small losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import MGDA, CAGrad, DualProj, UPGrad
from mtopt.testing import samplers

seeds = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize("rule", [UPGrad(), DualProj(), MGDA()])
@given(seeds, st.integers(2, 10), st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_loss_rises_at_a_row_ratio_of_a_million(
    rule: UPGrad | DualProj | MGDA, seed: int, rows: int, one_long: bool
) -> None:
    """One row a million times as long as all others, or rows spread evenly over six decades."""
    jacobian = samplers.conflicting(seed, rows, 2 * rows)
    if one_long:
        jacobian[seed % rows] *= 1e6
    else:
        jacobian = samplers.with_row_scales(jacobian, 3.0, seed)
    direction = rule(jacobian)
    cosines = jacobian @ direction / jacobian.norm(dim=1) / direction.norm()
    assert float(cosines.min()) >= -1e-9


@given(seeds, st.integers(2, 10), st.sampled_from([0.1, 0.4, 0.9, 2.0]))
@settings(max_examples=100, deadline=None)
def test_cagrad_has_the_same_direction_for_losses_a_million_times_smaller(seed: int, rows: int, radius: float) -> None:
    jacobian = samplers.conflicting(seed, rows, 2 * rows)
    direction, small = CAGrad(c=radius)(jacobian), CAGrad(c=radius)(1e-6 * jacobian)
    torch.testing.assert_close(1e6 * small, direction, rtol=1e-9, atol=1e-9 * float(direction.norm()))
