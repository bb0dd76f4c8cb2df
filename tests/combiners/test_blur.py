"""BLUR: what it promises about the forget objective, and the formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners.blur import BLUR
from mtopt.linalg import Gradients


def pair(seed: int, sizes=(1.0, 1.0), columns: int = 10) -> torch.Tensor:
    rows = torch.randn(2, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows * torch.tensor(sizes, dtype=torch.float64)[:, None]


@given(
    seed=st.integers(0, 10_000),
    gamma=st.floats(0.01, 10.0),
    ratio=st.floats(-6, 6),
    size=st.floats(-20, 20),
)
@settings(max_examples=80, deadline=None)
def test_the_forget_objective_improves_by_gamma_whatever_the_retain_gradient_is(seed, gamma, ratio, size):
    retain, forget = pair(seed, (10.0 ** (size + ratio), 10.0**size))
    direction = BLUR(gamma=gamma)(torch.stack([retain, forget]))
    tolerance = 1e-12 * float(forget.norm() * (retain.norm() + forget.norm()))
    assert float(direction @ forget) == pytest.approx(gamma * float(forget @ forget), abs=tolerance, rel=1e-12)
    # and what is left across it is the retain gradient's
    across = retain - forget * (retain @ forget) / (forget @ forget)
    rest = direction - gamma * forget
    torch.testing.assert_close(rest, across, rtol=0, atol=1e-12 * float(retain.norm() + forget.norm()))


@pytest.mark.parametrize("factor", [1e-20, 1e20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scales_with_the_gradients(factor, dtype):
    jacobian = pair(0, (1e3, 1e-3)).to(dtype)
    torch.testing.assert_close(BLUR()(jacobian * factor) / factor, BLUR()(jacobian))


def test_roles_and_levels():
    jacobian = pair(1)
    flipped = jacobian.flip(0)
    torch.testing.assert_close(BLUR(retain=1, forget=0)(flipped), BLUR()(jacobian))
    torch.testing.assert_close(BLUR(lower="retain", gamma=0.3)(jacobian), BLUR(gamma=0.3)(flipped))
    retain, forget = jacobian
    factor = 1.0 - retain @ forget / (forget @ forget)
    torch.testing.assert_close(BLUR()(jacobian), retain + factor * forget)


def test_weights_of_special_pairs():
    eye = torch.eye(2)
    assert BLUR(gamma=0.5).weights(eye).tolist() == [1.0, 0.5]
    assert BLUR().weights(torch.ones(2, 2)).tolist() == [1.0, 0.0]  # equal: gamma g_F
    assert BLUR().weights(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).tolist() == [1.0, 2.0]  # opposite: again gamma g_F
    assert BLUR(gamma=0.5)(torch.tensor([[1.0, 2.0], [0.0, 0.0]])).tolist() == [1.0, 2.0]
    assert BLUR(gamma=0.5)(torch.tensor([[0.0, 0.0], [1.0, 2.0]])).tolist() == [0.5, 1.0]
    assert BLUR()(torch.zeros(2, 3)).tolist() == [0.0] * 3
    assert BLUR().weights(eye.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("objective", "expected"), [(0, [1.0, 2.0]), (1, [0.5, 1.0])])
def test_an_absent_loss_leaves_the_other(objective, expected):
    rule = BLUR(gamma=0.5)
    gradients = Gradients([[torch.tensor([1.0, 2.0])]], objectives=[objective], total=2)
    assert gradients.combined(rule.combine(gradients, None).weights)[0].tolist() == expected


@pytest.mark.parametrize("count", [1, 3])
def test_two_objectives_it_is(count):
    with pytest.raises(ValueError, match=f"BLUR is for two objectives.*found {count}"):
        BLUR()(torch.ones(count, 4))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"gamma": 0.0}, "gamma must be"),
        ({"lower": "both"}, "lower must be"),
        ({"retain": 1}, "retain and forget must be"),
        ({"forget": 2}, "retain and forget must be"),
    ],
)
def test_bad_hyperparameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        BLUR(**bad)
