"""Linear programs over a weighted simplex: known solutions, HiGHS beside whole numbers, 12 decades."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import SolverError
from mtopt.solvers import _linear_program
from mtopt.solvers._exact_simplex import _Tableau, exact_simplex
from mtopt.solvers._linear_program import maximise_linear
from tests.solvers.helpers import Array


def drawn(seed: int, rows: int, columns: int, decades: float = 0.0) -> tuple[Array, Array, Array, Array]:
    """A feasible program: rows that a drawn point of the simplex meets, whose factors lie ``decades`` apart."""
    rng = np.random.default_rng(seed)
    edge = 10.0 ** rng.uniform(-decades / 2, decades / 2, columns)
    point = rng.dirichlet(np.ones(columns)) / edge
    matrix = rng.standard_normal((rows, columns)) * edge
    bounds = np.minimum(matrix @ point, 0.0) - 1e-12 * (np.abs(matrix) @ point)
    scale = 10.0 ** rng.uniform(-decades / 2, decades / 2, rows)
    return rng.standard_normal(columns) * edge, matrix * scale[:, None], bounds * scale, edge


def test_without_rows_the_best_corner_wins() -> None:
    objective, edge = np.array([2.0, 3.0, 2.0]), np.array([1.0, 4.0, 2.0])
    found, certificate = maximise_linear(objective, np.zeros((0, 3)), np.zeros(0), edge)
    assert found is not None
    np.testing.assert_allclose(found, [1.0, 0.0, 0.0])
    assert certificate.residual == 0.0


def test_the_best_point_of_a_cut_simplex() -> None:
    found, certificate = maximise_linear(
        np.array([1.0, 0.0]), np.array([[-1.0, 1.0], [1.0, 0.0]]), np.array([-0.5, 0.0]), np.ones(2)
    )
    assert found is not None
    np.testing.assert_allclose(found, [0.75, 0.25], rtol=1e-15)  # x_1 - x_2 <= 1/2
    assert certificate.residual <= 1e-16
    assert certificate.method == "exact simplex"


def test_an_infeasible_program_has_no_solution() -> None:
    rows = np.array([[1.0, -1.0], [-1.0, 0.5]])  # x_1 >= x_2 and x_2 >= 2 x_1
    found, certificate = maximise_linear(np.ones(2), rows, np.zeros(2), np.ones(2))
    assert found is None
    assert certificate.method == "infeasible"


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 7), st.sampled_from([0.0, 6.0, 12.0]))
@settings(max_examples=100, deadline=None)
def test_solved_to_rounding_over_twelve_decades(seed: int, rows: int, columns: int, decades: float) -> None:
    objective, matrix, bounds, edge = drawn(seed, rows, columns, decades)
    found, certificate = maximise_linear(objective, matrix, bounds, edge)
    assert found is not None
    assert certificate.residual <= 1e-14
    assert (found >= 0.0).all()
    assert edge @ found == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("size", [4, 20])
def test_highs_and_whole_numbers_find_the_same_optimum(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(8):
        program = drawn(seed, size, size)
        exact = exact_simplex(*program)
        monkeypatch.setattr(_linear_program, "_FEW", 0)
        found, certificate = maximise_linear(*program)
        assert exact is not None
        assert found is not None
        assert certificate.method == "HiGHS"
        assert program[0] @ found == pytest.approx(program[0] @ exact[0], rel=1e-9)


def test_multipliers_prove_the_optimum() -> None:
    """Weak duality in exact numbers: no x can beat ``z - b . y`` when ``c + A' y <= z e`` and y >= 0."""
    for seed in range(10):
        objective, matrix, bounds, edge = drawn(seed, 5, 6)
        solved = exact_simplex(objective, matrix, bounds, edge)
        assert solved is not None
        point, multipliers = solved
        assert (multipliers[:-1] >= 0.0).all()
        assert (objective + matrix.T @ multipliers[:-1] <= multipliers[-1] * edge + 1e-12).all()
        assert objective @ point == pytest.approx(multipliers[-1] - bounds @ multipliers[:-1], rel=1e-12)


def test_cycling_does_not_happen() -> None:
    """Beale's program, on which the largest coefficient alone goes round for ever."""
    objective = np.array([0.75, -150.0, 0.02, -6.0, 0.0])
    rows = -np.array([[0.25, -60.0, -0.04, 9.0, 0.0], [0.5, -90.0, -0.02, 3.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    solved = exact_simplex(objective, rows, np.array([0.0, 0.0, -1.0]), np.full(5, 1e-3))
    assert solved is not None
    assert objective @ solved[0] == pytest.approx(0.05, rel=1e-12)


def test_blands_rule_ends_at_the_same_optimum() -> None:
    for seed in range(6):
        program = drawn(seed, 6, 7)
        tableau = _Tableau(*program)
        tableau.patience = 0
        assert tableau.reach_edge()
        tableau.climb()
        exact = exact_simplex(*program)
        assert exact is not None
        assert program[0] @ tableau.answer()[0] == pytest.approx(program[0] @ exact[0], rel=1e-12)


def test_an_answer_that_highs_spoils_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_linear_program, "_FEW", 0)
    program = drawn(0, 4, 5)
    wrong = np.full(5, 0.2), np.zeros(5)
    monkeypatch.setattr(_linear_program._Program, "by_highs", lambda self: wrong)
    found, certificate = maximise_linear(*program)
    assert found is not None
    assert certificate.method == "exact simplex"
    assert certificate.residual <= 1e-14
    monkeypatch.setattr(_linear_program._Program, "by_highs", lambda self: None)
    assert maximise_linear(*program)[1].method == "exact simplex"
    monkeypatch.setattr(_linear_program, "_MANY", 4)
    with pytest.raises(SolverError, match="5 variables was not solved by HiGHS"):
        maximise_linear(*program)


def test_highs_says_that_it_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_linear_program, "_FEW", 0)
    found, certificate = maximise_linear(np.ones(2), np.array([[1.0, -1.0], [-1.0, 0.5]]), np.zeros(2), np.ones(2))
    assert found is None
    assert certificate.method == "infeasible"
