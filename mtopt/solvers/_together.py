"""Many non-negative least-squares programs with one matrix: products of matrices in place of a factorisation each.

The supports of K programs have little in common (half of the variables each, on random gradients), so that one of K
factorisations tells nothing of the next. A product with the matrix serves all of them, runs near the peak of the
processor, and in single precision at twice that.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mtopt.linalg import Array, Mask

Single = npt.NDArray[np.float32]

_CHUNK = 128
"""Programs whose vectors fit in the cache beside the matrix."""

_BETWEEN = 8
"""Steps of the gradient method between two looks at the supports."""

FEW_LOOKS, LOOKS, PATIENT = 3, 8, 48
"""Looks at most: before programs are solved one by one; together; and where a wrong guess costs more than steps."""

_POWERS = 12
"""Steps of the power method: nearly the largest eigenvalue, which bounds the rate."""

_ROUNDS, _STEPS = 10, 60
"""Exchanges of a program, and conjugate gradients between two, at most."""

_LEFT = 3e-6
"""Share that conjugate gradients in single precision leave of a residual."""

_SOLVED = 2e-14
"""Residual, over the moduli of its terms, of a program that is solved."""


def guess_together(matrix: Single, slopes: Single, looks: int = LOOKS) -> Single:
    """Nearly ``x >= 0`` for many slopes, (n, K), in rows: projected gradients with momentum, until supports stay.

    Momentum is dropped by a program that it takes uphill (O'Donoghue and Candes, 2015).
    """
    top = np.linspace(1.0, 2.0, len(matrix), dtype=np.float32)
    for _ in range(_POWERS):
        top = matrix @ (top / max(float(np.linalg.norm(top)), 1e-3))
    rate = np.float32(0.9 / max(float(np.linalg.norm(top)), 1.0))
    values = np.maximum(-rate * slopes, 0.0)
    ahead, moved = values.copy(), np.empty_like(values)
    momentum = np.full((len(values), 1), 0.5 * (1.0 + math.sqrt(5.0)), dtype=np.float32)
    seen = values > 0.0
    for _ in range(looks):
        for _ in range(_BETWEEN):
            np.matmul(ahead, matrix, out=moved)
            moved += slopes
            moved *= -rate
            moved += ahead
            np.maximum(moved, 0.0, out=moved)
            ahead -= moved
            values -= moved  # minus the step
            momentum[np.einsum("ij,ij->i", ahead, values) < 0.0] = 1.0
            following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            np.multiply(values, (1.0 - momentum) / following, out=ahead)
            ahead += moved
            values, moved, momentum = moved, values, following
        supports = values > 0.0
        changed = np.count_nonzero(supports ^ seen)
        if changed <= len(values):  # one in a program
            break
        seen = supports
    return np.asarray(values)


def solve_together(matrix: Array, slopes: Array) -> tuple[Array, Mask]:
    """``x >= 0``, (n, K), with ``y = C x + q >= 0`` and ``x y = 0`` for many q in rows, and which of them are solved.

    Supports are guessed, the system of each is solved by conjugate gradients in single precision on residuals in double
    precision, and variables of the wrong sign are exchanged, all at once. Where C is far from well-conditioned that
    does not settle; what has not is a good guess of the support.
    """
    single = matrix.astype(np.float32)
    values = np.zeros_like(slopes)
    solved = np.zeros(len(slopes), dtype=bool)
    steps = _STEPS
    for start in range(0, len(slopes), _CHUNK):
        part = slice(start, start + _CHUNK)
        values[part], solved[part] = _solve_some(matrix, single, slopes[part], steps)
        if np.count_nonzero(solved[part]) < 0.5 * len(solved[part]):
            steps = 0  # nor would the rest
    return values, solved


def _solve_some(matrix: Array, single: Single, slopes: Array, steps: int) -> tuple[Array, Mask]:
    values = guess_together(single, slopes.astype(np.float32)).astype(np.float64)
    solved = np.zeros(len(slopes), dtype=bool)
    if not steps:
        return values, solved
    left = np.arange(len(slopes))
    positive = values > 0.0
    for _ in range(_ROUNDS):
        current, chosen = values[left], positive[left]
        after = current.dot(matrix)
        after += slopes[left]
        rounding = _SOLVED * (1.0 + np.abs(current).sum(axis=1, keepdims=True))
        wrong = np.where(chosen, current, after) < -rounding
        missed = np.where(chosen, -after, 0.0)
        settled = ~wrong.any(axis=1) & (np.abs(missed) <= rounding).all(axis=1)
        solved[left[settled]] = True
        if settled.all():
            break
        if settled.any():
            keep = ~settled
            left, current, chosen, wrong, after = left[keep], current[keep], chosen[keep], wrong[keep], after[keep]
        dropped = np.where(chosen & wrong, current, 0.0)
        chosen ^= wrong
        after -= dropped.astype(np.float32) @ single
        found = _conjugate(single, np.where(chosen, -after, 0.0), chosen, steps)
        values[left] = current - dropped + found
        positive[left] = chosen
    return np.maximum(values, 0.0), solved


def _conjugate(single: Single, right: Array, chosen: Mask, steps: int) -> Array:
    """x with ``C x = b`` on the chosen variables of each program, and zero elsewhere, nearly."""
    size = np.sqrt(np.einsum("ij,ij->i", right, right))[:, None]
    residual = (right / np.maximum(size, 1e-300)).astype(np.float32)
    mask = chosen.astype(np.float32)
    found, product, search = np.zeros_like(residual), np.empty_like(residual), residual.copy()
    squares = np.einsum("ij,ij->i", residual, residual)[:, None]
    for _ in range(steps):
        np.matmul(search, single, out=product)
        curvature = np.einsum("ij,ij->i", search, product)[:, None]
        step = squares / np.maximum(curvature, np.float32(1e-30))
        found += step * search
        product *= step
        residual -= product
        residual *= mask
        following = np.einsum("ij,ij->i", residual, residual)[:, None]
        if following.max() <= _LEFT**2:
            break
        search *= following / np.maximum(squares, np.float32(1e-30))
        search += residual
        squares = following
    return np.asarray(found * size)
