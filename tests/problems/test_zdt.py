"""ZDT1 to 4 and 6 against their published definitions."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from mtopt.problems import create_problem

CURVES = {"zdt1": lambda f1: 1 - np.sqrt(f1), "zdt2": lambda f1: 1 - f1**2}
HYPERVOLUMES = {"zdt1": 0.876667, "zdt2": 0.543333}


@pytest.mark.parametrize("name", CURVES)
def test_definition(name):
    rng = np.random.default_rng(0)
    x = rng.random((50, 30))
    g = 1 + 9 / 29 * x[:, 1:].sum(axis=1)
    expected = np.stack((x[:, 0], g * CURVES[name](x[:, 0] / g)), axis=1)
    np.testing.assert_allclose(create_problem(name)(torch.from_numpy(x)).numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("name", CURVES)
def test_front_and_hypervolume(name):
    problem = create_problem(name)
    front = problem.pareto_front(200).numpy()
    np.testing.assert_allclose(front[:, 1], CURVES[name](front[:, 0]), atol=1e-15)
    assert front[0].tolist() == [0, 1]
    assert front[-1].tolist() == [1, 0]
    area, _ = quad(lambda f1: 1.1 - CURVES[name](f1), 0, 1)
    assert problem.hypervolume == pytest.approx(area + 0.1 * 1.1, rel=1e-9)
    assert problem.hypervolume == pytest.approx(HYPERVOLUMES[name], abs=5e-7)
    assert np.linalg.norm(np.diff(front, axis=0), axis=1).max() < 3 / 200


def test_gradients_at_the_steep_end_are_finite_after_projection():
    problem = create_problem("zdt1")
    corner = torch.zeros(30)
    steep = torch.autograd.functional.jacobian(problem, corner)
    assert not steep.isfinite().all()
    projected = problem.project(corner - 1)
    assert torch.autograd.functional.jacobian(problem, projected).isfinite().all()
    assert projected[0].item() == pytest.approx(1e-5)
    assert (projected[1:] == 0).all()
    assert create_problem("zdt2").project(corner - 1)[0] == 0


def test_one_variable_is_refused():
    with pytest.raises(ValueError, match="num_variables must be at least 2, found 1"):
        create_problem("zdt1", num_variables=1)


def test_definitions_of_the_others():
    rng = np.random.default_rng(1)
    x = rng.random((30, 10))
    f1, rest = x[:, 0], x[:, 1:]
    g = 1 + rest.mean(axis=1) * 9
    zdt3 = g * (1 - np.sqrt(f1 / g) - f1 / g * np.sin(10 * np.pi * f1))
    found = create_problem("zdt3", num_variables=10)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, np.stack((f1, zdt3), axis=1), rtol=1e-12)

    wide = 10 * rest - 5
    g = 1 + 10 * 9 + (wide**2 - 10 * np.cos(4 * np.pi * wide)).sum(axis=1)
    found = create_problem("zdt4")(torch.from_numpy(np.column_stack((f1, wide)))).numpy()
    np.testing.assert_allclose(found, np.stack((f1, g * (1 - np.sqrt(f1 / g))), axis=1), rtol=1e-12)

    f1 = 1 - np.exp(-4 * x[:, 0]) * np.sin(6 * np.pi * x[:, 0]) ** 6
    g = 1 + 9 * (rest.sum(axis=1) / 9) ** 0.25
    found = create_problem("zdt6")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, np.stack((f1, g * (1 - (f1 / g) ** 2)), axis=1), rtol=1e-12)


def test_the_five_pieces_of_zdt3_are_the_published_ones():
    published = [
        *((0, 0.083002), (0.182229, 0.257762), (0.409314, 0.453882)),
        *((0.618397, 0.652512), (0.823332, 0.851833)),
    ]
    np.testing.assert_allclose(create_problem("zdt3")._curve.pieces, published, atol=6e-7)
    f1 = create_problem("zdt3").pareto_front(500)[:, 0].numpy()
    inside = [((f1 >= a - 1e-6) & (f1 <= b + 1e-6)).sum() for a, b in published]
    assert sum(inside) == 500
    assert min(inside) > 30


def test_the_area_over_the_pieces_of_zdt3():
    dense = np.linspace(0, 1.1, 1_100_001)
    curve = np.where(dense <= 1, 1 - np.sqrt(dense) - dense * np.sin(10 * np.pi * dense), np.inf)
    area = np.trapezoid(1.1 - np.minimum.accumulate(curve), dense)
    hypervolume = create_problem("zdt3").hypervolume
    assert hypervolume == pytest.approx(area, abs=1e-6)
    assert hypervolume == pytest.approx(1.33176, abs=6e-6)


def test_zdt4_has_the_front_of_zdt1_and_21_local_minima_a_variable():
    zdt4 = create_problem("zdt4")
    torch.testing.assert_close(zdt4.pareto_front(50), create_problem("zdt1").pareto_front(50))
    assert zdt4.hypervolume == pytest.approx(0.876667, abs=5e-7)
    x = torch.zeros(20001, 10, dtype=torch.float64)
    x[:, 0] = 0.5
    x[:, 1] = torch.linspace(-5, 5, 20001)
    values = zdt4(x)[:, 1]
    assert ((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])).sum() == 19 + 2 - 2 * (values[0] < values[1])


def test_zdt6_starts_where_its_first_hump_is_highest():
    problem = create_problem("zdt6")
    front = problem.pareto_front(100)
    assert front[0, 0].item() == pytest.approx(0.280775, abs=5e-7)
    assert front[-1].tolist() == [1, 0]
    torch.testing.assert_close(front[:, 1], 1 - front[:, 0] ** 2)
    x1 = torch.linspace(0, 1, 100_001).double()
    everywhere = 1 - torch.exp(-4 * x1) * torch.sin(6 * torch.pi * x1) ** 6
    assert front[0, 0] <= everywhere.min() <= front[0, 0] + 1e-7
    assert problem.hypervolume == pytest.approx(0.507878, abs=5e-7)


@pytest.mark.parametrize(("name", "first"), [("zdt3", 1e-5), ("zdt4", 1e-5), ("zdt6", 0.0)])
def test_projection_stops_short_of_infinite_slopes(name, first):
    problem = create_problem(name)
    corner = problem.project(problem.bounds[0].clone())
    assert corner[0].item() == first
    assert torch.autograd.functional.jacobian(problem, corner).isfinite().all()
