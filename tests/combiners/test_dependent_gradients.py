"""Gradients that depend on each other, as exactly as their dtype says: no direction is made of rounding.

Truth is a closed form, the exact arithmetic of fractions on the rows as they are, numpy on the rows, or cvxpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
import torch

import mtopt
from mtopt.combiners import PCD, AlignedMTL, ConFIG, FairGrad, GradVac, NashMTL
from mtopt.combiners._random import rule_generator
from mtopt.combiners.imtl_g import IMTLG
from mtopt.solvers import Precision, alpha_fair, least_distance

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05}
"""How far a direction may be from the one of exact rows, over the data's scale."""

Family = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

STATIONARY: dict[str, Family] = {
    "opposite": lambda a, b, c: torch.stack([a, -3.0 * a]),
    "opposite beside another": lambda a, b, c: torch.stack([a, -3.0 * a, c]),
    "two opposite pairs": lambda a, b, c: torch.stack([a, -a, b, -7.0 * b, c]),
    "two opposite pairs, exactly": lambda a, b, c: torch.stack([a, -a, b, -8.0 * b, c]),
    "a sum of zero": lambda a, b, c: torch.stack([a, b, -(a + b)]),
    "a sum of zero beside another": lambda a, b, c: torch.stack([a, b, -(a + b), c]),
    "lengths a million apart": lambda a, b, c: torch.stack([1e6 * a, -1e-6 * a, c]),
}
REPEATED: dict[str, Family] = {
    "twice": lambda a, b, c: torch.stack([a, a, b]),
    "three times as long": lambda a, b, c: torch.stack([a, 3.0 * a, b]),
    "longer by a million million": lambda a, b, c: torch.stack([1e-6 * a, 3e6 * a, b]),
}


def drawn(family: Family, dtype: torch.dtype, seed: int, columns: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return family(*torch.randn(3, columns, generator=generator, dtype=torch.float64)).to(dtype)


def signs(seed: int, rows: int, columns: int) -> torch.Tensor:
    """Rows of ±1, which often depend on each other."""
    return torch.randint(0, 2, (rows, columns), generator=torch.Generator().manual_seed(seed)).double() * 2.0 - 1.0


@pytest.mark.parametrize("rule", [NashMTL(), FairGrad(), IMTLG()], ids=["nash_mtl", "fairgrad", "imtl_g"])
@pytest.mark.parametrize("family", STATIONARY.values(), ids=STATIONARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_all_cannot_fall_the_direction_is_zero(rule: mtopt.Combiner, family: Family, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and isinstance(rule, IMTLG):
        family = STATIONARY["two opposite pairs, exactly"]  # rows that were rounded to 16 bits are rows of their own
    for seed in range(10):
        jacobian = drawn(family, dtype, seed)
        assert float(rule(jacobian).double().norm()) <= DTYPES[dtype] * float(jacobian.double().norm(dim=1).min()), seed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_a_certificate_of_shares_is_no_better_than_the_shares(alpha: float, dtype: torch.dtype) -> None:
    """``u_k . d`` of the exact combination of the exact rows, against ``w_k**(-1 / alpha) / ||g_k||``."""
    families = [*STATIONARY.values(), *REPEATED.values()]
    for seed in range(4):
        for jacobian in [*(drawn(family, dtype, seed, 12) for family in families), signs(seed, 5, 12).to(dtype)]:
            rule = FairGrad(alpha=alpha)
            rule(jacobian)
            gramian = mtopt.combiners.gramian_of(jacobian)
            precision = Precision(torch.finfo(dtype).eps, Precision.of(torch.float32).products)
            weights, certificate = alpha_fair(gramian, alpha, precision)
            if not weights.any():
                continue
            exact = [[Fraction(x) for x in row] for row in jacobian.double().tolist()]
            direction = [
                sum((Fraction(w) * x for w, x in zip(weights.tolist(), column, strict=True)), Fraction(0))
                for column in zip(*exact, strict=True)
            ]
            length = math.sqrt(sum(x * x for x in direction))
            errors = []
            for row, weight in zip(exact, weights.tolist(), strict=True):
                norm = math.sqrt(sum(x * x for x in row))
                rate = float(sum((x * y for x, y in zip(row, direction, strict=True)), Fraction(0)))
                errors.append(abs(rate - weight ** (-1.0 / alpha)) / norm / length)
            assert max(errors) <= 10.0 * certificate.residual


@pytest.mark.parametrize("family", REPEATED.values(), ids=REPEATED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gradient_given_twice_has_equal_projections_as_once(family: Family, dtype: torch.dtype) -> None:
    """The bisector, with weights that sum to one."""
    for seed in range(5):
        jacobian = drawn(family, dtype, seed)
        norms = jacobian.double().norm(dim=1)
        one, other = jacobian[0].double() / norms[0], jacobian[2].double() / norms[2]
        total = float((1.0 / norms * torch.tensor([0.5, 0.5, 1.0])).sum())
        expected = (one + other) / total
        error = float((IMTLG()(jacobian).double() - expected).norm())
        assert error <= DTYPES[dtype] * float(expected.norm()), seed


@pytest.mark.parametrize("family", [*STATIONARY.values(), *REPEATED.values()], ids=[*STATIONARY, *REPEATED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_config_takes_the_pseudo_inverse_of_the_rows(family: Family, dtype: torch.dtype) -> None:
    for seed in range(5):
        jacobian = drawn(family, dtype, seed).double()
        units = jacobian / jacobian.norm(dim=1, keepdim=True)
        vector = torch.linalg.pinv(units, rtol=1e-6) @ torch.ones(len(units), dtype=torch.float64)
        expected = torch.zeros_like(vector)
        if float(vector.norm()) > 1e-6:
            expected = float((jacobian @ vector).sum()) * vector / vector.dot(vector)
        found = ConFIG()(jacobian.to(dtype)).double()
        assert float((found - expected).norm()) <= DTYPES[dtype] * float(jacobian.norm(dim=1).max()), seed


@pytest.mark.parametrize("family", ["opposite beside another", "two opposite pairs", "a sum of zero beside another"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_aligned_components_are_those_of_the_rows(family: str, dtype: torch.dtype) -> None:
    for seed in range(5):
        jacobian = drawn(STATIONARY[family], torch.float64, seed)
        left, values, right = np.linalg.svd(jacobian.numpy(), full_matrices=False)
        kept = values > 1e-6 * values[0]
        expected = torch.from_numpy(values[kept].min() * (left[:, kept].sum(0) @ right[kept]))
        found = AlignedMTL()(jacobian.to(dtype)).double()
        assert float((found - expected).norm()) <= 2.0 * DTYPES[dtype] * float(jacobian.norm(dim=1).max()), seed


def constrained(jacobian: torch.Tensor, tau: float) -> torch.Tensor:
    """PCD's direction of a first step by cvxpy, before it is rescaled."""
    units = (jacobian / jacobian.norm(dim=1, keepdim=True)).numpy()
    vector = cp.Variable(units.shape[1])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(vector - units[0])), [units[1:] @ vector >= tau])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    return torch.from_numpy(vector.value)


@pytest.mark.parametrize("family", ["primary beside a pair", "pairs", "repeated"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pcd_meets_demands_that_are_just_met(family: str, dtype: torch.dtype) -> None:
    """Secondaries that are opposite leave the plane across them; float32 and float64 find the same direction."""
    families: dict[str, Family] = {
        "primary beside a pair": lambda a, b, c: torch.stack([c, a, -3.0 * a]),
        "pairs": lambda a, b, c: torch.stack([c, a, -a, b, -7.0 * b]),
        "repeated": lambda a, b, c: torch.stack([c, -c + a, 3.0 * (a - c), b]),
    }
    for seed in range(5):
        exact = drawn(families[family], torch.float64, seed)
        vector = constrained(exact, 0.0)
        expected = vector * float(exact[0].norm() / vector.norm())
        rule = PCD(tau=0.0)
        found = rule(exact.to(dtype)).double()
        assert float((found - expected).norm()) <= 1e-4 * float(exact[0].norm()), seed
        violation = float((-(exact[1:] @ found) / exact[1:].norm(dim=1)).max() / found.norm())
        assert violation <= max(DTYPES[dtype], 1e-9)
        assert rule.certificate is not None
        assert violation <= 10.0 * (rule.certificate.residual + torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pcd_gives_up_what_cannot_be_met_in_any_dtype(dtype: torch.dtype) -> None:
    for seed in range(10):
        jacobian = drawn(lambda a, b, c: torch.stack([c, a, -3.0 * a]), dtype, seed)
        rule = PCD(tau=0.1)
        torch.testing.assert_close(rule(jacobian), jacobian[0])
        assert rule.certificate is not None
        assert rule.certificate.method == "incompatible demands"
        assert rule.certificate.residual >= 0.1  # what one of them lacks, at least


def test_demands_on_rows_of_signs_are_those_of_cvxpy() -> None:
    for seed in range(20):
        rows = signs(seed, 6, 5)
        demands = np.random.default_rng(seed).uniform(-1.0, 1.0, 6) * 0.5
        units = rows.numpy() / math.sqrt(5.0)
        vector = cp.Variable(5)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(vector)), [units @ vector >= demands])
        problem.solve(solver=cp.CLARABEL)
        found, certificate = least_distance(units @ units.T, demands)
        if problem.status == "infeasible":
            assert found is None
            continue
        assert found is not None
        np.testing.assert_allclose(found @ units, vector.value, atol=1e-6)
        assert certificate.residual <= 1e-10


def test_ferero_finds_its_step_whatever_the_order() -> None:
    """Rates (r, s, -r, r) can be had, and those nearest to the wish are taken; the losses are nine decades apart."""
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    losses = torch.tensor([1.5862409e-3, 35334.102, 2.2544837e-4, 2.5383033e-5], dtype=torch.float64)
    values = losses.numpy()
    wish = 0.5 * (values - values.mean())
    span = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    across = span - span.mean(0)  # what rates do across the ray
    expected = np.linalg.lstsq(across, wish, rcond=None)[0]
    for dtype in (torch.float64, torch.float32):
        for order in ([0, 1, 2, 3], [3, 1, 2, 0], [2, 1, 3, 0], [1, 3, 0, 2]):
            rule = mtopt.create_combiner("ferero")
            found = rule(jacobian[order].to(dtype), losses[order])
            np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-6, atol=1e-10 * values.max())
            assert rule.certificate is not None
            assert rule.certificate.residual <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_is_turned_or_learned_of_which_nothing_is_left(dtype: torch.dtype) -> None:
    """Once a has met -3a, what is left of it is rounding, and has no angle with the third gradient."""
    jacobian = drawn(STATIONARY["opposite beside another"], dtype, 0)
    cosine = float(torch.nn.functional.cosine_similarity(jacobian[0], jacobian[2], dim=0))
    seen = set()
    for seed in range(8):
        rule = GradVac(beta=0.5, seed=seed)
        order = torch.rand(3, 3, generator=rule_generator(seed, None), dtype=torch.float64)
        rule(jacobian)
        pair_first = bool(order[0, 1] < order[0, 2])
        seen.add(pair_first)
        target = float(rule.state_dict()["state"]["_targets"][0, 2])
        assert target == pytest.approx(0.0 if pair_first else 0.5 * cosine, abs=1e-6)
    assert seen == {True, False}
