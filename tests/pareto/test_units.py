"""Indicators in other units: one factor on all objectives, or on one of them, and nothing is lost in small numbers."""

import numpy as np
import pytest
import torch

from mtopt import pareto
from tests.pareto.definitions import dominated_volume

FACTORS = [1e-6, 1e-2, 1e6]
per_factor = pytest.mark.parametrize("factor", FACTORS)
per_objectives = pytest.mark.parametrize("objectives", [2, 3, 4, 5, 6])


def front(objectives, count=7, seed=0):
    """Points that do not dominate one another, on a sphere."""
    points = np.abs(np.random.default_rng(seed).normal(size=(count, objectives)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def factors_of(objectives, factor):
    """One factor for all objectives, and then for each of them alone."""
    alone = np.where(np.eye(objectives, dtype=bool), factor, 1.0)
    return [np.full(objectives, factor), *alone]


def contributions(points, reference):
    every = dominated_volume(points, reference)
    return np.array([every - dominated_volume(np.delete(points, i, 0), reference) for i in range(len(points))])


@per_objectives
@per_factor
def test_volumes_have_the_product_of_the_units(objectives, factor):
    points, reference = front(objectives), np.full(objectives, 1.1)
    volume, shares = dominated_volume(points, reference), contributions(points, reference)
    weights = pareto.hypervolume_weights(points, reference, normalize=False).numpy()
    for by in factors_of(objectives, factor):
        whole = by.prod()
        assert pareto.hypervolume(points * by, reference * by) == pytest.approx(whole * volume, rel=1e-11)
        found = pareto.hypervolume_contributions(points * by, reference * by).numpy()
        np.testing.assert_allclose(found, whole * shares, rtol=1e-9)
        found = pareto.hypervolume_weights(points * by, reference * by, normalize=False).numpy()
        np.testing.assert_allclose(found, weights * whole / by, rtol=1e-9, atol=1e-13 * (weights * whole / by).max())


@per_objectives
@pytest.mark.parametrize("step", [1e-4, 1e-7, 1e-10])
def test_a_share_that_is_small_beside_the_others_is_there(objectives, step):
    """A point ``step`` below another one in an objective and above it in the next adds ``step`` times a face."""
    one = np.full(objectives, 0.5)
    other = one.copy()
    other[0] -= step
    other[1] += step
    found = pareto.hypervolume_contributions([one, other], np.ones(objectives)).numpy()
    up, down = 0.5 - other[0], other[1] - 0.5  # as rounded
    expected = [down * 0.5 ** (objectives - 1), up * (1.0 - other[1]) * 0.5 ** (objectives - 2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@per_objectives
def test_dominated_points_copies_and_points_beyond_the_reference_contribute_nothing(objectives):
    points = front(objectives, 4)
    more = np.concatenate((points, points[:1] + 0.01, points[1:2], np.full((1, objectives), 3.0)))
    reference = np.full(objectives, 1.5)
    found = pareto.hypervolume_contributions(more * 1e-3, reference * 1e-3).numpy()
    expected = contributions(points, reference) * 1e-3**objectives
    expected[1] = 0.0
    np.testing.assert_allclose(found, [*expected, 0.0, 0.0, 0.0], rtol=1e-9)


DISTANCES = [pareto.gd, pareto.igd, pareto.gd_plus, pareto.igd_plus, pareto.epsilon]


@per_objectives
@per_factor
@pytest.mark.parametrize("distance", DISTANCES, ids=lambda f: f.__name__)
def test_distances_have_the_unit(objectives, factor, distance):
    points, known = front(objectives), front(objectives, 9, seed=1) - 0.05
    assert distance(points * factor, known * factor) == pytest.approx(factor * distance(points, known), rel=1e-12)


def _chosen(name, points, known):
    """The definitions in numpy, for objectives of different units."""
    between = points[:, None] - known
    size = np.maximum(between, 0.0) if name.endswith("plus") else between
    if name == "epsilon":
        return between.max(axis=2).min(axis=0).max()
    return np.linalg.norm(size, axis=2).min(axis=1 if name.startswith("gd") else 0).mean()


@per_objectives
@per_factor
@pytest.mark.parametrize("distance", DISTANCES, ids=lambda f: f.__name__)
def test_distances_where_one_objective_has_another_unit(objectives, factor, distance):
    for by in factors_of(objectives, factor)[1:]:
        points, known = front(objectives) * by, (front(objectives, 9, seed=1) - 0.05) * by
        assert distance(points, known) == pytest.approx(_chosen(distance.__name__, points, known), rel=1e-12)


@per_objectives
@per_factor
def test_spread_has_the_unit(objectives, factor):
    points = front(objectives)
    for norm in ("l1", "l2"):
        expected = factor * pareto.spacing(points, norm=norm)
        assert pareto.spacing(points * factor, norm=norm) == pytest.approx(expected, rel=1e-9)
    assert pareto.sparsity(points * factor) == pytest.approx(factor**2 * pareto.sparsity(points), rel=1e-12)
    gaps = np.square(np.diff(np.sort(points, axis=0), axis=0)).sum(axis=0)
    for by in factors_of(objectives, factor)[1:]:
        expected = float((gaps * by**2).sum()) / (len(points) - 1)
        assert pareto.sparsity(points * by) == pytest.approx(expected, rel=1e-12)
        order = np.abs((points * by)[:, None] - points * by).sum(axis=2)
        np.fill_diagonal(order, np.inf)
        assert pareto.spacing(points * by) == pytest.approx(float(np.std(order.min(axis=1))), rel=1e-9)


@per_objectives
@per_factor
def test_who_dominates_whom_does_not_depend_on_units(objectives, factor):
    points = np.random.default_rng(3).normal(size=(40, objectives))
    expected = pareto.is_nondominated(points)
    for by in factors_of(objectives, factor):
        assert torch.equal(pareto.is_nondominated(points * by), expected)


@per_factor
def test_r2_has_the_unit(factor):
    points, weights = front(2), pareto.uniform_preferences(2, 9)
    for given in (None, weights):
        expected = factor * pareto.r2(points, [0.0, 0.0], given)
        assert pareto.r2(points * factor, [0.0, 0.0], given) == pytest.approx(expected, rel=1e-12)
    # the mean over all preferences by the midpoints of many
    shares = (np.arange(200_000) + 0.5) / 200_000
    for by in ([factor, 1.0], [1.0, factor]):
        scaled = points * by
        best = np.min([np.maximum(shares * a, (1 - shares) * b) for a, b in scaled], axis=0)
        assert pareto.r2(scaled, [0.0, 0.0]) == pytest.approx(best.mean(), rel=1e-6)


@per_factor
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_stationarity_has_the_unit(factor, dtype):
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    opposite = torch.stack((rows[0], -rows[0] * factor, rows[1]))  # stationary whatever the unit of one loss
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    expected = factor * pareto.kkt_residual(rows.to(dtype))
    assert pareto.kkt_residual((rows * factor).to(dtype)) == pytest.approx(expected, rel=10 * tolerance)
    assert pareto.kkt_residual(opposite.to(dtype)) <= tolerance * min(factor, 1.0) * float(rows.norm())


@per_factor
def test_the_trainable_hypervolume_has_the_product_of_the_units(factor):
    points = torch.from_numpy(front(2))
    expected = dominated_volume(points.numpy(), np.full(2, 1.1))
    for by in map(torch.from_numpy, factors_of(2, factor)):
        found = pareto.hypervolume_2d(points * by, by * 1.1)
        assert float(found) == pytest.approx(float(by.prod()) * expected, rel=1e-12)


@per_factor
def test_repelling_solutions_keep_apart_in_any_unit(factor):
    """The kernel's width follows the distances: values and gradients times c give the direction times c."""
    generator = torch.Generator().manual_seed(6)
    values = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    rows = torch.randn(4, 2, 6, generator=generator, dtype=torch.float64)
    down = pareto.moo_svgd(values, rows, repulsion=0.0)
    found = pareto.moo_svgd(values * factor, rows * factor, repulsion=0.0)
    torch.testing.assert_close(found, down * factor, rtol=1e-9, atol=0.0)
    apart = pareto.moo_svgd(values, rows) - down
    found = pareto.moo_svgd(values * factor, rows * factor) - found
    torch.testing.assert_close(found, apart, rtol=1e-7, atol=1e-9 * float(apart.abs().max()) * max(factor, 1.0))
