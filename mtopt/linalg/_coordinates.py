"""Gradients in coordinates of their own span: K numbers each, with the inner products that were given."""

from __future__ import annotations

import numpy as np

from mtopt.linalg._arrays import Array
from mtopt.linalg._gramian import normalize_gramian
from mtopt.linalg._semidefinite import take_semidefinite_root


def read_coordinates(matrix: Array) -> Array:
    """(K, K) rows with ``rows @ rows.T == matrix``, up to making it positive semi-definite.

    For programs on combinations of the gradients, whose squared lengths are thus never negative. A Gramian does not
    know the length of a combination that cancels to less than the square root of its own precision.
    """
    cosines, norms = normalize_gramian(matrix)
    root, _ = take_semidefinite_root(cosines)
    return np.asarray(norms[:, None] * root.T)


def average_norms(norms: Array) -> float:
    """The geometric mean of the norms that are not zero, 1 if there are none: the unit least far from all of them."""
    live = norms[norms > 0.0]
    return float(np.exp(np.log(live).mean())) if len(live) else 1.0
