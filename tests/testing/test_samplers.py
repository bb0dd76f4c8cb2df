"""Samplers: what they say of the Jacobians they draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.solvers import min_norm
from mtopt.testing import samplers

SEEDS = st.integers(0, 10**6)


@given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.data())
@settings(max_examples=30, deadline=None)
def test_rank(seed: int, rows: int, columns: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, min(rows, columns)))
    jacobian = samplers.of_rank(seed, rows, columns, rank)
    assert jacobian.shape == (rows, columns)
    assert int(torch.linalg.matrix_rank(jacobian)) == rank
    assert torch.equal(jacobian, samplers.of_rank(seed, rows, columns, rank))


@given(SEEDS, st.integers(1, 6), st.integers(1, 8), st.data())
@settings(max_examples=30, deadline=None)
def test_stationary(seed: int, rows: int, columns: int, data: st.DataObject) -> None:
    involved = data.draw(st.integers(1, rows))
    jacobian = samplers.stationary(seed, rows, columns, involved)
    weights = torch.from_numpy(min_norm(jacobian @ jacobian.T)[0])
    assert float((weights @ jacobian).norm()) <= 1e-6 * float(jacobian.norm())


def test_agreement_conflict_and_scales() -> None:
    agreeing, conflicting = samplers.agreeing(0, 4, 9), samplers.conflicting(0, 4, 9)
    assert float((agreeing @ agreeing.T).min()) >= 0.0
    assert int((conflicting @ conflicting.T < 0).sum()) >= 8
    generic = samplers.generic(0, 5, 9)
    assert float(conflicting.mean(0).norm()) < 0.2 * float(samplers.generic(0, 4, 9).mean(0).norm())
    ratios = (samplers.with_row_scales(generic, 3.0, 1) / generic)[:, 0].log10().sort().values
    torch.testing.assert_close(ratios, torch.linspace(-3, 3, 5, dtype=torch.float64))
    assert torch.equal(samplers.with_row_scales(generic[:1], 3.0), generic[:1])
    losses = samplers.losses(3, 50)
    assert float(losses.min()) >= 0.5
    assert float(losses.max()) <= 2.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [2, 3, 5, 16])
def test_dependence_survives_every_dtype(rows: int, dtype: torch.dtype) -> None:
    for seed in range(5):
        pairs = samplers.opposite_pairs(seed, rows, 7)
        scaled = samplers.with_row_scales(pairs, 6.0, seed, exact=True).to(dtype).double()
        paired = rows - rows % 2
        first, second = scaled[:paired:2], scaled[1:paired:2]
        factors = first.abs().amax(1, keepdim=True) / second.abs().amax(1, keepdim=True)
        assert torch.equal(first, -factors * second)
        assert torch.equal(samplers.summing_to_zero(seed, rows, 7).to(dtype).double().sum(0), torch.zeros(7).double())
        repeated = samplers.repeated(seed, rows, 7).to(dtype).double()
        assert int(torch.linalg.matrix_rank(repeated)) <= max(1, rows // 2)
        assert torch.equal(samplers.signs(seed, rows, 7).to(dtype).abs(), torch.ones(rows, 7, dtype=dtype))
        one_pair = samplers.opposite_pairs(seed, rows, 7, rows - 2)
        assert torch.equal(one_pair[0], -one_pair[1])
        ratio = scaled.norm(dim=1).max() / scaled.norm(dim=1).min()
        assert 1e9 < float(ratio) < 1e15


@pytest.mark.parametrize("family", samplers.DEPENDENT)
def test_every_family_is_dependent_and_the_same_for_the_same_seed(family: str) -> None:
    draw = samplers.DEPENDENT[family]
    ranks = []
    for rows in (3, 4, 7, 16):
        jacobian = draw(rows, rows, rows + 5)
        assert jacobian.shape == (rows, rows + 5)
        assert jacobian.dtype == torch.float64
        assert torch.equal(jacobian, draw(rows, rows, rows + 5))
        ranks.append(rows - int(torch.linalg.matrix_rank(jacobian)))
    assert draw is samplers.signs or min(ranks) >= 1
    assert max(len(draw(0, 2, columns)) for columns in (1, 2, 3)) == 2


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(ValueError, match="rank must be between 0 and 2 for 2 x 5, found 3"):
        samplers.of_rank(0, 2, 5, 3)
    with pytest.raises(ValueError, match="involved must be between 1 and 2 rows, found 3"):
        samplers.stationary(0, 2, 5, 3)
    with pytest.raises(ValueError, match="involved must be between 1 and 2 rows, found 0"):
        samplers.summing_to_zero(0, 2, 5, 0)
    with pytest.raises(ValueError, match="beside must leave an even number of 4 rows for pairs, found 1"):
        samplers.opposite_pairs(0, 4, 5, 1)
    with pytest.raises(ValueError, match="distinct must be between 1 and 4, found 5"):
        samplers.repeated(0, 4, 5, 5)
