"""Coordinates and cones for the picture of one step: at most three gradients, in two or three dimensions."""

from collections.abc import Sequence

import numpy as np

from mtopt.plotting.arrays import FloatArray

# What is left of a unit vector after its part in a span is taken out; below this it is rounding.
_INDEPENDENT = 1e-9


def orthonormal_basis(vectors: Sequence[FloatArray], dimensions: int) -> FloatArray:
    """At most ``dimensions`` orthonormal rows that span the first independent ones of the (D,) vectors.

    Gram and Schmidt, each vector taken out twice, so that rows stay orthogonal for nearly parallel vectors.
    """
    basis: list[FloatArray] = []
    for vector in vectors:
        scale = np.abs(vector).max(initial=0.0)
        if scale == 0 or len(basis) == dimensions:
            continue
        unit = vector / scale
        unit = unit / np.linalg.norm(unit)
        for _ in range(2):
            for row in basis:
                unit = unit - (row @ unit) * row
        size = np.linalg.norm(unit)
        if size > _INDEPENDENT:
            basis.append(unit / size)
    return np.array(basis).reshape(len(basis), len(vectors[0]))


def coordinates(vectors: FloatArray, basis: FloatArray, dimensions: int) -> FloatArray:
    """(N, D) vectors in the basis, (N, dimensions): 0 along what the basis lacks."""
    shown = vectors @ basis.T
    return np.pad(shown, ((0, 0), (0, dimensions - shown.shape[1])))


def square_root(gramian: FloatArray) -> FloatArray:
    """(K, K) rows with the Gramian's inner products: gradients as good as those it was made of."""
    values, vectors = np.linalg.eigh((gramian + gramian.T) / 2)
    rows: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return rows


def half_planes(box: FloatArray, normals: FloatArray) -> FloatArray:
    """The corners (M, 2) of a convex polygon's part with a non-negative product with each of the (K, 2) normals."""
    corners = box
    for normal in normals:
        heights = corners @ normal
        kept: list[FloatArray] = []
        for here, following in zip(range(len(corners)), np.roll(range(len(corners)), -1), strict=True):
            if heights[here] >= 0:
                kept.append(corners[here])
            if heights[here] * heights[following] < 0:
                share = heights[here] / (heights[here] - heights[following])
                kept.append(corners[here] + share * (corners[following] - corners[here]))
        corners = np.array(kept).reshape(-1, 2)
    return corners


def dual_rays(gradients: FloatArray) -> FloatArray:
    """The unit edges, the rows of (3, 3), of the cone {d: <g_k, d> >= 0} of three independent gradients."""
    units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    edges = np.linalg.inv(units).T
    rays: FloatArray = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    return rays
