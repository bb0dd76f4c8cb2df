"""Every convex rule on a thousand drawn Gramians whose rows span twelve decades: optimal to 1e-10.

The residuals are computed here, from the weights that come out and the Gramian that went in: in unit gradients, which
is the program with its diagonal scaled, in extended precision, and relative to the moduli of what is added up. Where an
optimality condition squares what cancels, a change of the cosines by some roundings of float64 is left out of it: no
answer could be held to digits that the Gramian does not have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from mtopt.combiners import (
    FERERO,
    GEM,
    IMTLG,
    MGDA,
    PCD,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    NashMTL,
    UPGrad,
    aligned_mtl,
)
from mtopt.linalg import find_singular_values
from mtopt.solvers import project_rows
from mtopt.testing import samplers
from tests.combiners.thousand import ALLOWED, FULL_RANK, ROUNDING, Scaled, drawn
from tests.solvers.helpers import Array

# -- the optimality conditions ------------------------------------------------------------------------------------


def min_norm(scaled: Scaled, weights: torch.Tensor) -> float:
    """``(G w)_k >= w' G w`` over the simplex."""
    vector = scaled.terms(weights)
    slopes, size = scaled.cosines @ vector, vector.sum()
    value = vector @ slopes - ROUNDING * size**2
    outside = max(float(-weights.min()), abs(float(weights.sum()) - 1.0))
    return max(float((value / scaled.norms - slopes).max() / size), outside)


def projection(scaled: Scaled, start: Array, weights: torch.Tensor | Array, fixed: int | None = None) -> float:
    """``v >= u``, ``(G v)_k >= 0``, and equality in one of the two; row ``fixed`` keeps ``v = u`` and may have any.

    Weights of zero: with steps ``x >= 0`` the projection would be zero, too, as far as the Gramian knows.
    """
    vector = scaled.terms(weights)
    if not vector.any():
        return shortest_with_steps(scaled, start, fixed)
    added = vector - scaled.terms(start)
    size = np.abs(vector).sum()
    slopes = scaled.cosines @ vector
    chosen = np.arange(len(vector)) != fixed
    # what is added below the rounding of the sum is not there
    positive = added > ROUNDING * np.abs(vector)
    missed = np.where(positive, np.abs(slopes), -slopes)[chosen].max()
    stays = np.where(chosen, -added, np.abs(added)).max()
    return float(max(missed, stays) / size)


def shortest_with_steps(scaled: Scaled, start: Array, fixed: int | None) -> float:
    """The least ``|| sum_k (s_k u_k + x_k) g_k / s_k ||²`` over ``x >= 0``, over the squared sum of its terms."""
    values, vectors = np.linalg.eigh(scaled.cosines.astype(np.float64))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    terms = scaled.terms(start).astype(np.float64)
    moving = np.arange(len(terms)) != fixed
    target = -root @ terms
    steps, _ = nnls(root[:, moving], target)
    left = root[:, moving] @ steps - target
    return float(left @ left / np.abs(terms).sum() ** 2)


def conflict_averse(scaled: Scaled, weights: torch.Tensor, radius: float) -> float:
    """In the ball, with the worst loss falling as fast as the dual's value at the w that the weights came from.

    Where no loss can be made to fall: the projection of the mean on the dual cone, in the ball.
    """
    count = len(weights)
    mean = np.full(count, 1.0 / count)
    vector = scaled.terms(weights)
    if not vector.any():
        assert radius >= 1.0  # or zero is not in the ball
        return projection(scaled, mean, weights)
    added = np.maximum(scaled.terms(weights) - scaled.terms(mean), 0.0)
    size, slopes = np.abs(vector).sum(), scaled.cosines @ vector
    bound = radius**2 * (scaled.terms(mean) @ scaled.cosines @ scaled.terms(mean))
    reach = added @ scaled.cosines @ added
    outside = float(max(reach - bound - ROUNDING * size**2, 0.0) / size**2)
    total = (added / scaled.norms).sum()
    if total > 0.0:
        worst = added @ slopes / total
        # the mean's share has been taken off again: each of the terms is only known to the rounding of the sum
        unknown = ROUNDING * (vector @ np.abs(slopes) + size * added.sum()) / total
        inside = float(max(bound - reach - ROUNDING * size**2, 0.0) / size**2)
        missed = float(((worst - unknown) / scaled.norms - slopes).max() / size)
        best = max(missed, inside)
    else:
        best = float("inf")
    return max(outside, min(best, projection(scaled, mean, weights)))


def stationary_to_rounding(cosines: Array) -> bool:
    """Whether a combination of the unit gradients, with non-negative weights, vanishes as far as the Gramian knows."""
    values, vectors = np.linalg.eigh(cosines.astype(np.float64))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    weights, _ = nnls(np.vstack([root, np.ones(len(root))]), np.append(np.zeros(len(root)), 1.0))
    combination = root @ (weights / weights.sum())
    return float(combination @ combination) <= 1e-13


def alpha_fair(scaled: Scaled, weights: torch.Tensor, alpha: float) -> float:
    """``w_k (G w)_k = w_k**(1 - 1/alpha)``; where there is no such w, those of the shortest combination."""
    if bool((weights > 0.0).all()):
        vector = scaled.terms(weights) * scaled.shortest
        wanted = weights.numpy().astype(np.longdouble) ** (1.0 - 1.0 / alpha)
        size = wanted + vector * (np.abs(scaled.cosines) @ vector)
        residual = float((np.abs(vector * (scaled.cosines @ vector) - wanted) / size).max())
        if residual <= ALLOWED:
            return residual
    return min_norm(scaled, weights / weights.sum()) if stationary_to_rounding(scaled.cosines) else float("inf")


def equal_projections(scaled: Scaled, weights: torch.Tensor) -> float:
    """``C x`` is a multiple of what of (1, ..., 1) the gradients span, ``C (1 - C x / c) = 0``."""
    vector = scaled.terms(weights)
    found = scaled.cosines @ vector
    reach = np.abs(scaled.cosines) @ np.abs(vector)
    if len(vector) == 2 or not vector.any():
        return float(abs(found[0] - found[-1]) / max(reach.max(), 1e-300))
    factor = (found @ found) / found.sum()
    missed = scaled.cosines @ (1.0 - found / factor)
    return float(np.abs(missed).max() / (1.0 + (reach / abs(factor)).max()))


# -- the rules ----------------------------------------------------------------------------------------------------


def test_mgda() -> None:
    rule = MGDA()
    assert max(min_norm(Scaled(gramian), rule.weights(gramian)) for _, gramian in drawn()) <= ALLOWED


def test_upgrad() -> None:
    """The K projections one by one, and the rule's answer as their mean."""
    worst = 0.0
    for _, gramian in drawn(most=6):
        scaled, projections = Scaled(gramian), project_rows(gramian)[0]
        rows = zip(np.eye(len(gramian)), projections, strict=True)
        worst = max(worst, *(projection(scaled, unit, row) for unit, row in rows))
        torch.testing.assert_close(UPGrad().weights(gramian).numpy(), projections.mean(axis=0), rtol=1e-14, atol=0.0)
    assert worst <= ALLOWED


def test_dualproj() -> None:
    rule = DualProj()
    residuals = (
        projection(Scaled(gramian), np.full(len(gramian), 1.0 / len(gramian)), rule.weights(gramian))
        for _, gramian in drawn()
    )
    assert max(residuals) <= ALLOWED


def test_gem() -> None:
    rule = GEM()
    residuals = (
        projection(Scaled(gramian), np.eye(len(gramian))[0], rule.weights(gramian), fixed=0) for _, gramian in drawn()
    )
    assert max(residuals) <= ALLOWED


@pytest.mark.parametrize("radius", [0.4, 1.5])
def test_cagrad(radius: float) -> None:
    rule = CAGrad(c=radius)
    assert max(conflict_averse(Scaled(gramian), rule.weights(gramian), radius) for _, gramian in drawn()) <= ALLOWED


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_nash_mtl_and_fairgrad(alpha: float) -> None:
    rule = NashMTL() if alpha == 1.0 else FairGrad(alpha=alpha)
    assert max(alpha_fair(Scaled(gramian), rule.weights(gramian), alpha) for _, gramian in drawn()) <= ALLOWED


@pytest.mark.parametrize("rule", [ConFIG(), IMTLG()])
def test_config_and_imtl_g(rule: ConFIG | IMTLG) -> None:
    assert max(equal_projections(Scaled(gramian), rule.weights(gramian)) for _, gramian in drawn()) <= ALLOWED


def test_aligned_mtl(monkeypatch: pytest.MonkeyPatch) -> None:
    """``B G B = sigma²`` for the symmetric matrix B whose columns are the answers to unit vectors."""
    known: dict[bytes, Any] = {}  # one decomposition for all columns of B: it takes milliseconds

    def once(matrix: Array, *rest: Any) -> Any:
        key = matrix.tobytes()
        if key not in known:
            known[key] = find_singular_values(matrix, *rest)
        return known[key]

    monkeypatch.setattr(aligned_mtl, "find_singular_values", once)
    worst = 0.0
    for _, gramian in drawn(FULL_RANK, most=5):
        scaled = Scaled(gramian)
        rules = (AlignedMTL(preference=unit.tolist()) for unit in torch.eye(len(gramian)))
        matrix = torch.stack([rule.weights(gramian) for rule in rules], dim=1).numpy()
        factors = scaled.terms(matrix)  # B diag(s)
        product = factors @ scaled.cosines @ factors.T
        product /= product.diagonal().mean()
        worst = max(worst, float(np.abs(product - np.eye(len(gramian))).max()))
        worst = max(worst, float(np.abs(matrix - matrix.T).max() / np.abs(matrix).max()))
        # of the eigenvalues of B the largest is one: sigma is the smallest singular value, not another
        worst = max(worst, abs(float(np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[-1]) - 1.0))
    assert worst <= ALLOWED


def test_pcd() -> None:
    """The nearest to the primary with ``n_j . d >= tau ||n_j||²``: every step is the first, so all n have length 1."""
    tau, worst = 0.02, 0.0
    for _, gramian in drawn():
        scaled = Scaled(gramian)
        weights = PCD(tau=tau).weights(gramian).numpy()
        if stationary_to_rounding(scaled.cosines) or stationary_to_rounding(scaled.cosines[1:, 1:]):
            continue  # the demands may be incompatible, or the direction zero
        vector = scaled.terms(weights) / (scaled.norms[0] * weights[0])  # the primary's share is one
        slopes = scaled.cosines @ vector - tau
        missed = np.where(vector > 0.0, np.abs(slopes), -slopes)[1:]
        worst = max(worst, float(missed.max() / vector.sum()), float(-vector.min()))
    assert worst <= ALLOWED


def test_ferero() -> None:
    """``J d = y + kappa u``, with the slope of the objective's linear part at kappa."""
    worst = 0.0
    for seed, gramian in drawn(FULL_RANK, most=6):
        count = len(gramian)
        losses = samplers.losses(seed, count)
        weights = FERERO(c_h=0.5).weights(gramian, losses)
        ray = np.full(count, np.longdouble(count) ** -0.5)
        values = losses.numpy().astype(np.longdouble)
        target = 0.5 * (values - (values @ ray) * ray)
        norms = np.sqrt(gramian.numpy().diagonal().astype(np.longdouble))
        vector = weights.numpy() * norms
        scaled = Scaled(gramian)
        rates = norms * (scaled.cosines @ vector)
        sizes = norms * (np.abs(scaled.cosines) @ np.abs(vector)) + np.abs(target)
        best = int(sizes.argmin())
        kappa = (rates[best] - target[best]) / ray[best]
        missed = np.abs(rates - target - kappa * ray) / (sizes + sizes[best])
        # equal preferences: all slopes of the minimum are the same, and u . w is it
        slope = abs((ray * weights.numpy()).sum() - ray[0]) / (np.abs(ray * weights.numpy()).sum() + ray[0])
        worst = max(worst, float(missed.max()), float(slope))
    assert worst <= ALLOWED
