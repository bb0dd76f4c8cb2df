"""From the inner products of the gradients on several batches to cosines, and to what chance and noise make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEVEL = 0.95


def chance_level(dimensions: int) -> float:
    """What the cosine of two random directions stays within in 95 % of draws; about 1.96 / sqrt(D).

    Its square has the distribution Beta(1 / 2, (D - 1) / 2).
    """
    if dimensions < 2:
        return 1.0
    from scipy.special import betaincinv

    return float(np.sqrt(betaincinv(0.5, (dimensions - 1) / 2, LEVEL)))


def cosines_of(gramian: Array) -> Array:
    """(K, K) cosines; 0 beside a zero row."""
    norms = np.sqrt(np.maximum(gramian.diagonal(), 0.0))
    safe = np.where(norms > 0, norms, 1.0)
    cosines = gramian / safe / safe[:, None]
    return np.clip(0.5 * (cosines + cosines.T), -1.0, 1.0)


def mean_gramian(products: Array) -> Array:
    """The Gramian (K, K) of the mean gradients, from products (B, K, B, K) of those of B batches."""
    return np.asarray(products.mean(axis=(0, 2)))


@dataclass(frozen=True)
class Noise:
    """What B independent batches tell of the noise.

    Attributes:
        norms: (K,), the root mean square norm of the noise in each mean gradient.
        intervals: (K, K, 2), 95 % confidence intervals of the mean gradients' cosines, by the jackknife over batches.
        denoised: (K, K), the cosines of the gradients behind the noise, from products across batches; NaN where the
            noise is all there is to see.
    """

    norms: Array
    intervals: Array
    denoised: Array


def read_noise(products: Array) -> Noise:
    """The noise in the mean of B >= 2 batches, from their products (B, K, B, K)."""
    from scipy.special import stdtrit

    count = len(products)
    whole = mean_gramian(products)
    same = np.einsum("bibj->bij", products)  # products within a batch
    squares = np.einsum("bii->i", same) / count - whole.diagonal()  # mean squared distance from the mean gradient
    across = (count**2 * whole - same.sum(axis=0)) / (count * (count - 1))
    signal = across.diagonal()
    seen = signal > 0
    scale = np.sqrt(np.where(seen, signal, 1.0))
    denoised = np.where(np.outer(seen, seen), np.clip(across / scale / scale[:, None], -1.0, 1.0), np.nan)
    kept = [np.delete(np.arange(count), b) for b in range(count)]
    without = np.stack([cosines_of(mean_gramian(products[np.ix_(b, np.arange(len(whole)), b)])) for b in kept])
    variance = (count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    half = float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * np.sqrt(variance)
    middle = cosines_of(whole)
    intervals = np.stack([np.maximum(middle - half, -1.0), np.minimum(middle + half, 1.0)], axis=-1)
    return Noise(np.sqrt(np.maximum(squares, 0.0) / (count - 1)), intervals, 0.5 * (denoised + denoised.T))
