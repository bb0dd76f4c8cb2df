"""PMGDA's two programs: the prediction along a ray, and the correction towards it."""

from __future__ import annotations

import numpy as np

from mtopt._errors import SolverError
from mtopt.linalg import Array, Precision, average_norms, normalize_gramian, read_coordinates
from mtopt.solvers._certificate import Certificate
from mtopt.solvers._linear_program import LOOSENING, maximise_linear
from mtopt.solvers._min_norm import min_norm


def predict_along(matrix: Array, normal: Array, precision: Precision) -> tuple[Array, Certificate]:
    """Weights of the shortest ``sum_k w_k g_k + nu q``, ``q = J' n``, w in the simplex and nu free: ``w + nu n``.

    MGDA's where q is zero but for rounding.

    Args:
        matrix: (K, K) inner products.
        normal: n, (K,).
        precision: of the gradients and the Gramian.

    Returns:
        The weights, (K,), and the certificate of the min-norm program across q.

    Raises:
        SolverError: the program is not solved to 1e-10.
    """
    rows, gradient = _coordinates(matrix, normal, precision)
    length = np.linalg.norm(gradient)
    if length == 0.0:
        return min_norm(rows @ rows.T, precision)
    direction = gradient / length
    tangent = rows - np.outer(rows @ direction, direction)
    tangent -= np.outer(tangent @ direction, direction)
    weights, certificate = min_norm(tangent @ tangent.T, precision)
    return weights - (weights @ rows @ direction / length) * normal, certificate


def correct_towards(matrix: Array, normal: Array, sigma: float, precision: Precision) -> tuple[Array, Certificate]:
    """Weights of ``d = sum_k m_k g_k / ||g_k|| + m_0 q / ||q||``, ``q = J' n``, with the largest ``min_k g_k . d``.

    m is in the simplex, and ``q . d >= sigma ||q||``. A linear program in m, m_0 and the pace t = t_+ - t_-:
    ``u_k . d - t / s_k >= 0``, norms s. Zero rows have no pace to keep up with, and take no part.

    Args:
        matrix: (K, K) inner products.
        normal: n, (K,).
        sigma: in [0, 1].
        precision: of the gradients and the Gramian.

    Returns:
        The weights, (K,), and the certificate.

    Raises:
        SolverError: the program is not solved to 1e-10, or has no solution.
    """
    rows, gradient = _coordinates(matrix, normal, precision)
    moving = np.flatnonzero((rows != 0.0).any(axis=1))
    weights = np.zeros(len(rows))
    if not len(moving):
        return weights, Certificate(0.0, 0.0, "zero rows")
    rows, normal = rows[moving], normal[moving]
    every = np.vstack([rows, gradient])
    cosines, norms = normalize_gramian(every @ every.T)
    live = norms > 0.0
    cosines = cosines + LOOSENING * np.outer(live, live)
    count = len(rows)
    paces = np.where(live, norms, 1.0) / average_norms(norms[:count])
    program = np.zeros((count + 1, count + 3))
    program[:, : count + 1] = cosines
    program[:count, count + 1] = -1.0 / paces[:count]
    program[:count, count + 2] = 1.0 / paces[:count]
    program[count, : count + 1] -= sigma * live[count]
    objective, edge = np.zeros(count + 3), np.ones(count + 3)
    objective[count + 1 :] = 1.0, -1.0
    edge[count + 1 :] = 0.0
    found, certificate = maximise_linear(objective, program, np.zeros(count + 1), edge)
    if found is None:
        raise SolverError(
            "PMGDA's linear program has no solution, which it has for every Gramian; compute the Gramian in float64"
        )
    shares = np.divide(found[: count + 1], norms, out=np.zeros(count + 1), where=live)
    weights[moving] = shares[:count] + shares[count] * normal
    return weights, Certificate(certificate.residual, certificate.gap, f"correction, {certificate.method}")


def _coordinates(matrix: Array, normal: Array, precision: Precision) -> tuple[Array, Array]:
    """Rows with these inner products, and q in their coordinates; zero where it is only rounding."""
    rows = read_coordinates(matrix)
    gradient = normal @ rows
    moduli = np.linalg.norm(rows, axis=1) @ np.abs(normal)
    rounding = gradient @ gradient <= precision.rank_share(len(matrix)) * moduli**2
    return rows, np.zeros_like(gradient) if rounding else gradient
