"""HAMU: the step against its program, by cvxpy, and what holds on each branch."""

import cvxpy as cp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners.hamu import HAMU
from mtopt.linalg import Gradients


def pair(seed: int, sizes=(1.0, 1.0), columns: int = 6) -> torch.Tensor:
    rows = torch.randn(2, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows * torch.tensor(sizes, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("constraint", [0.1, 1.0])
def test_solves_the_papers_program(seed, constraint):
    retain, forget = pair(seed)
    raised = -forget.numpy()  # the paper's gradient, of a loss to be raised
    radius = 1.5 * constraint / float(forget.norm())
    step = cp.Variable(6)
    problem = cp.Problem(cp.Minimize(retain.numpy() @ step), [raised @ step >= constraint, cp.norm(step) <= radius])
    problem.solve(solver=cp.CLARABEL)
    direction = HAMU(constraint=constraint, radius=radius)(torch.stack([retain, forget]))
    torch.testing.assert_close(-direction, torch.tensor(step.value), rtol=0, atol=1e-5 * radius)


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.0, 0.999),
    ratio=st.floats(-6, 6),
    size=st.floats(-20, 20),
)
@settings(max_examples=100, deadline=None)
def test_constraint_and_radius(seed, share, ratio, size):
    jacobian = pair(seed, (10.0 ** (size + ratio), 10.0**size))
    retain, forget = jacobian
    rule = HAMU(constraint=share, relative=True)  # asks for that cosine with the forget gradient
    direction = rule(jacobian)
    cosine = float(retain @ forget / retain.norm() / forget.norm())
    kept = float(direction @ forget / direction.norm() / forget.norm())
    assert float(direction.norm()) == pytest.approx(float(retain.norm()), rel=1e-9)
    assert kept == pytest.approx(max(cosine, share), abs=1e-9)
    torch.testing.assert_close(rule.last_weights @ jacobian, direction, rtol=1e-9, atol=1e-9 * float(direction.norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5])
def test_near_opposite_gradients_keep_both_promises(angle, dtype):
    base, other = pair(0, columns=1000)
    other = other - base * (base @ other) / (base @ base)
    forget = (-base + angle * other * base.norm() / other.norm()).to(dtype)
    jacobian = torch.stack([base.to(dtype), forget])
    direction = HAMU(constraint=0.3, relative=True)(jacobian).double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    assert float(direction.norm() / base.norm()) == pytest.approx(1.0, rel=tolerance)
    assert float(direction @ forget.double() / direction.norm() / forget.double().norm()) == pytest.approx(
        0.3, abs=tolerance
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [-0.37, -1.0, -2.0e6])
def test_opposite_gradients_have_nothing_across(factor, dtype):
    retain = pair(1, columns=2000)[0].to(dtype)
    forget = factor * retain
    direction = HAMU(constraint=0.3, relative=True)(torch.stack([retain, forget]))
    expected = forget * (0.3 * retain.norm() / forget.norm())
    torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-6)


def test_the_branches():
    retain, forget = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])
    jacobian = torch.stack([retain, forget])
    assert HAMU(constraint=0.0)(jacobian).tolist() == [3.0, 0.0]  # direct: plain descent on the retain loss
    rectified = HAMU(constraint=2.0, radius=5.0)(jacobian)
    torch.testing.assert_close(rectified, torch.tensor([24.0**0.5, 1.0]))
    infeasible = HAMU(constraint=20.0, radius=5.0)(jacobian)
    torch.testing.assert_close(infeasible, torch.tensor([0.0, 10.0]))
    # where they agree, the retain gradient alone improves the forget loss enough
    agreeing = torch.tensor([[1.0, 1.0], [1.0, 0.5]])
    torch.testing.assert_close(HAMU(constraint=0.5)(agreeing), agreeing[0])


def test_the_defaults_are_descent_on_the_retain_loss_with_half_a_unit_of_forgetting():
    retain, forget = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])
    direction = HAMU()(torch.stack([retain, forget]))
    torch.testing.assert_close(direction, torch.tensor([(9 - 0.25**2) ** 0.5, 0.25]))


def test_variant_u_swaps_the_roles():
    jacobian = pair(3)
    expected = HAMU(constraint=0.2)(jacobian.flip(0))
    torch.testing.assert_close(HAMU(constraint=0.2, variant="u")(jacobian), expected)
    torch.testing.assert_close(HAMU(constraint=0.2, retain=1, forget=0)(jacobian), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_special_pairs(dtype):
    row, zero = torch.tensor([0.0, 2.0], dtype=dtype), torch.zeros(2, dtype=dtype)
    assert HAMU(radius=4.0)(torch.stack([row, row])).tolist() == [0.0, 4.0]
    assert HAMU(radius=4.0)(torch.stack([zero, row])).tolist() == [0.0, 0.25]  # the shortest feasible step
    assert HAMU(radius=4.0, constraint=0.0)(torch.stack([zero, row])).tolist() == [0.0, 0.0]
    assert HAMU(radius=4.0)(torch.stack([row, zero])).tolist() == [0.0, 0.0]  # out of reach
    assert HAMU(radius=4.0, constraint=0.0)(torch.stack([row, zero])).tolist() == [0.0, 4.0]
    assert HAMU(relative=True)(torch.stack([row, zero])).tolist() == [0.0, 2.0]
    assert HAMU()(torch.zeros(2, 2, dtype=dtype)).tolist() == [0.0, 0.0]
    assert HAMU()(torch.stack([row, row])).dtype == dtype


@pytest.mark.parametrize(
    ("variant", "objective", "expected"),
    [("q", 0, [0.0, 3.0]), ("q", 1, [0.0, 0.25]), ("u", 0, [0.0, 0.25]), ("u", 1, [0.0, 3.0])],
)
def test_absent_losses(variant, objective, expected):
    gradients = Gradients([[torch.tensor([0.0, 2.0])]], objectives=[objective], total=2)
    assert HAMU(radius=3.0, variant=variant).combine(gradients, None).direction.tolist() == expected


def test_two_objectives_it_is():
    with pytest.raises(ValueError, match=r"HAMU is for two objectives.*found 1"):
        HAMU()(torch.ones(1, 4))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"constraint": -1.0}, "constraint must"),
        ({"radius": 0.0}, "radius must"),
        ({"variant": "x"}, "variant must"),
        ({"retain": 1}, "retain and forget must"),
    ],
)
def test_bad_hyperparameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        HAMU(**bad)


@pytest.mark.parametrize("length", [1e-40, 1e-44])
def test_a_forget_gradient_too_short_to_be_followed_is_as_a_zero_one(length: float) -> None:
    """The step that improves it by c would be longer than float32 holds, though not than float64 does."""
    jacobian = torch.tensor([[1.0, 2.0, 3.0], [length, -length, 0.0]])
    rule = HAMU(constraint=0.5)
    assert rule(jacobian).tolist() == [0.0, 0.0, 0.0]
    assert rule.last_weights is not None
    assert rule.last_weights.tolist() == [0.0, 0.0]
    assert float(jacobian[1].double() @ HAMU(constraint=0.5)(jacobian.double())) == pytest.approx(0.5)
    assert bool(HAMU(constraint=0.1, relative=True)(jacobian).isfinite().all())
