"""DTLZ1 to 7 and MaF1 against their definitions, written out one objective at a time, and known hypervolumes."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad

from mtopt.pareto import is_nondominated
from mtopt.problems import create_problem


def sphere(angles, g):
    """Objectives of one point from its K - 1 angles."""
    k = len(angles) + 1
    values = []
    for i in range(k):
        value = 1 + g
        for angle in angles[: k - 1 - i]:
            value *= math.cos(angle)
        if i > 0:
            value *= math.sin(angles[k - 1 - i])
        values.append(value)
    return values


def simplex(x, g):
    k = len(x) + 1
    values = []
    for i in range(k):
        value = 1 + g
        for share in x[: k - 1 - i]:
            value *= share
        if i > 0:
            value *= 1 - x[k - 1 - i]
        values.append(value)
    return values


def bowl(z):
    return sum((t - 0.5) ** 2 for t in z)


def rugged(z):
    return 100 * (len(z) + sum((t - 0.5) ** 2 - math.cos(20 * math.pi * (t - 0.5)) for t in z))


def curved(x, g):
    return [math.pi / 2 * x[0]] + [math.pi / 4 / (1 + g) * (1 + 2 * g * t) for t in x[1:]]


def dtlz7(x, g):
    h = len(x) + 1 - sum(t / (1 + g) * (1 + math.sin(3 * math.pi * t)) for t in x)
    return [*x, (1 + g) * h]


DEFINITIONS = {
    "dtlz1": lambda x, z: [0.5 * f for f in simplex(x, rugged(z))],
    "dtlz2": lambda x, z: sphere([math.pi / 2 * t for t in x], bowl(z)),
    "dtlz3": lambda x, z: sphere([math.pi / 2 * t for t in x], rugged(z)),
    "dtlz4": lambda x, z: sphere([math.pi / 2 * t**100 for t in x], bowl(z)),
    "dtlz5": lambda x, z: sphere(curved(x, bowl(z)), bowl(z)),
    "dtlz6": lambda x, z: sphere(curved(x, sum(t**0.1 for t in z)), sum(t**0.1 for t in z)),
    "dtlz7": lambda x, z: dtlz7(x, 1 + 9 * np.mean(z)),
    "maf1": lambda x, z: [(1 + bowl(z)) - f for f in simplex(x, bowl(z))],
}
DISTANCES = {"dtlz1": 5, "dtlz7": 20}


@pytest.mark.parametrize("objectives", [2, 3, 5])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_definition(name, objectives):
    problem = create_problem(name, num_objectives=objectives)
    assert problem.num_variables == objectives - 1 + DISTANCES.get(name, 10)
    x = np.random.default_rng(0).random((20, problem.num_variables))
    x[:, 1] **= 0.01  # where DTLZ4 has values other than 0
    expected = [DEFINITIONS[name](list(row[: objectives - 1]), list(row[objectives - 1 :])) for row in x]
    np.testing.assert_allclose(problem(torch.from_numpy(x)).numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["dtlz2", "dtlz3", "dtlz4"])
@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_the_front_is_the_sphere(name, objectives):
    front = create_problem(name, num_objectives=objectives).pareto_front(60)
    torch.testing.assert_close(front.norm(dim=1), torch.ones(60).double(), rtol=0, atol=1e-12)
    assert (front >= 0).all()
    torch.testing.assert_close(front.amax(dim=0), torch.ones(objectives).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_the_fronts_on_a_plane(objectives):
    simplex_front = create_problem("dtlz1", num_objectives=objectives).pareto_front(60)
    torch.testing.assert_close(simplex_front.sum(1), torch.full((60,), 0.5).double())
    inverted = create_problem("maf1", num_objectives=objectives).pareto_front(60)
    torch.testing.assert_close(inverted.sum(1), torch.full((60,), objectives - 1.0).double())
    assert ((inverted >= 0) & (inverted <= 1)).all()


def test_the_degenerate_front():
    for name in ("dtlz5", "dtlz6"):
        front = create_problem(name).pareto_front(30)
        torch.testing.assert_close(front[:, 0], front[:, 1])
        torch.testing.assert_close(front.norm(dim=1), torch.ones(30).double())
        with pytest.raises(LookupError, match="not known for 4 objectives"):
            create_problem(name, num_objectives=4).pareto_front(5)


def test_points_off_the_curve_of_dtlz5_are_not_dominated_with_four_objectives():
    """The reason why no front is given there."""
    problem = create_problem("dtlz5", num_objectives=4)
    x = torch.full((51, problem.num_variables), 0.5, dtype=torch.float64)
    x[:, 0] = torch.linspace(0, 1, 51)
    off = problem.sample_starts(2000, seed=0)
    off[:, :3] = off[:, :3].round()
    off[:, 3:] = 0.5 + 0.2 * (off[:, 3:] - 0.5)
    values = torch.cat((problem(x), problem(off)))
    beyond = is_nondominated(values)[51:]
    assert (((off[:, 3:] - 0.5).square().sum(1) > 1e-3) & beyond).any()


@pytest.mark.parametrize(
    ("name", "objectives", "published"), [("dtlz1", 3, 0.145542), ("dtlz2", 3, 0.807401), ("dtlz2", 2, 0.424602)]
)
def test_published_hypervolumes(name, objectives, published):
    assert create_problem(name, num_objectives=objectives).hypervolume == pytest.approx(published, abs=5e-7)


def test_dtlz1_at_the_other_published_reference():
    problem = create_problem("dtlz1")
    # from .55 to 1: all of the box is dominated where one coordinate is above .55
    assert problem.hypervolume + 1 - 0.55**3 == pytest.approx(0.979167, abs=5e-7)


def height_of(problem, u, v):
    """The least f3 on the front among points with f1 <= u and f2 <= v, in closed form; None where there are none."""
    if problem.name == "dtlz1":
        return max(0.5 - u - v, 0.0)
    if problem.name == "dtlz2":
        return math.sqrt(max(1 - u * u - v * v, 0.0))
    if problem.name == "dtlz5":
        return math.sqrt(max(1 - 2 * min(u, v) ** 2, 0.0))
    assert problem.name == "maf1"
    return None if u + v < 1 else max(2 - min(u, 1) - min(v, 1), 0.0)


@pytest.mark.parametrize("name", ["dtlz1", "dtlz2", "dtlz5", "maf1"])
def test_hypervolume_is_the_volume_over_the_front(name):
    problem = create_problem(name)
    reference = problem.reference_point[0].item()

    def height(v, u):
        top = height_of(problem, u, v)
        return 0.0 if top is None else reference - top

    volume, _ = dblquad(height, 0, reference, 0, reference, epsabs=1e-5)
    assert problem.hypervolume == pytest.approx(volume, rel=2e-4)


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_of_dtlz7_by_brute_force(objectives):
    problem = create_problem("dtlz7", num_objectives=objectives)
    reference = problem.reference_point.tolist()
    axis = np.linspace(0, 1.1, 1101)
    waves = np.where(axis <= 1, -axis * (1 + np.sin(3 * np.pi * axis)), np.inf)
    lowest = np.minimum.accumulate(waves)
    if objectives == 2:
        volume = np.trapezoid(reference[1] - 4 - lowest, axis)
    else:
        volume = np.trapezoid(np.trapezoid(reference[2] - 6 - lowest[:, None] - lowest[None], axis), axis)
    assert problem.hypervolume == pytest.approx(volume, rel=1e-4)


def test_the_patches_of_dtlz7():
    front = create_problem("dtlz7").pareto_front(400)
    patches = {(round(float(a > 0.4)), round(float(b > 0.4))) for a, b in front[:, :2]}
    assert patches == {(0, 0), (0, 1), (1, 0), (1, 1)}
    # published ends of the two parts of each axis
    np.testing.assert_allclose(front[:, :2].amax(dim=0), 0.8594, atol=5e-3)
    within = front[:, 0]
    assert not ((within > 0.2515) & (within < 0.6316)).any()


def test_wrong_counts_are_named():
    with pytest.raises(ValueError, match="num_objectives must be at least 2, found 1"):
        create_problem("dtlz2", num_objectives=1)
    with pytest.raises(ValueError, match="num_distances must be at least 1, found 0"):
        create_problem("maf1", num_distances=0)
