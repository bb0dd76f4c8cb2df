"""Roots of Gramians that rounding has made slightly indefinite."""

from __future__ import annotations

import numpy as np
import pytest

from mtopt import SolverError
from mtopt.linalg import normalize_gramian, require_cosine, take_semidefinite_root
from tests.solvers.helpers import KINDS, drawn_jacobian


@pytest.mark.parametrize("rows", [1, 2, 5, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_the_root_gives_the_matrix_back(kind: str, rows: int) -> None:
    jacobian = drawn_jacobian(kind, 1, rows, 6) + 1e-300
    cosines, _ = normalize_gramian(jacobian @ jacobian.T)
    root, matrix = take_semidefinite_root(cosines)
    np.testing.assert_allclose(root.T @ root, matrix, atol=1e-14)
    np.testing.assert_allclose(matrix, cosines, atol=1e-13)


def test_a_slightly_indefinite_matrix_becomes_the_nearest_semidefinite_one() -> None:
    cosines = np.array([[1.0, 1.0 + 1e-7], [1.0 + 1e-7, 1.0]])
    root, matrix = take_semidefinite_root(cosines)
    assert np.linalg.eigvalsh(matrix)[0] >= -1e-15
    np.testing.assert_allclose(matrix, cosines, atol=2e-7)
    np.testing.assert_allclose(root.T @ root, matrix, atol=1e-15)


def test_a_matrix_that_is_no_gramian_is_refused() -> None:
    with pytest.raises(SolverError, match="not positive semi-definite"):
        take_semidefinite_root(np.array([[1.0, 1.5], [1.5, 1.0]]))
    with pytest.raises(SolverError, match="not positive semi-definite"):
        require_cosine(-1.5)
    assert require_cosine(-1.0 - 1e-7) == 1.0
