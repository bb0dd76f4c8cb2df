"""KLoM: are the models after unlearning distributed as models that never saw the data?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .ensemble import Ensemble
from .settings import Points

LIMIT = 100.0
"""The histograms' margins are clipped to plus and minus this."""

Array = NDArray[np.float64]


def margins(ensemble: Ensemble, points: Points) -> Array:
    """(N, n): how much the label of each point is preferred by each model, ``z_y - log sum_{c != y} exp z_c``."""
    with torch.no_grad():
        logits = ensemble(points.images).double()
    own = points.labels.expand(logits.shape[:2])[..., None]
    others = logits.scatter(2, own, -torch.inf).logsumexp(2)
    return np.asarray((logits.gather(2, own)[..., 0] - others).numpy())


def klom(unlearned: Array, retrained: Array, *, bins: int = 20, floor: float = 1e-5) -> Array:
    """KL divergence of margins, (n,), one for each point: ``KL(P || Q)`` in nats of its margin's distribution P over
    the N unlearned models from its distribution Q over the M retrained ones, as histograms.

    ``bins`` bins of equal width span both samples, each clipped to ``[-100, 100]``; an empty bin of Q where P has
    something counts as ``floor``, which bounds KLoM by ``-log floor``, 11.5 by default. Two samples of one distribution
    do not give zero: two sets of retrained digit classifiers are 0.33 apart with N = M = 100, and 3.0 with 20. Compare
    with that floor.

    Georgiev et al., "Attribute-to-delete" (arXiv 2410.23232); the parameters are those of the data-unlearning-bench
    code, whose half-open bins leave out the largest margin.

    Args:
        unlearned: margins (N, n).
        retrained: margins (M, n).
        bins: of each histogram.
        floor: of Q.
    """
    ours, theirs = (np.clip(sample, -LIMIT, LIMIT) for sample in _checked(unlearned, retrained))
    low = np.minimum(ours.min(0), theirs.min(0))
    width = np.maximum(ours.max(0), theirs.max(0)) - low
    width[width == 0] = 1.0
    p, q = (_histograms((sample - low) / width, bins) for sample in (ours, theirs))
    q = np.where(p > 0, np.maximum(q, floor), q)
    q /= q.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / q), 0.0)
    return np.asarray(terms.sum(0))


def gaussian_klom(unlearned: Array, retrained: Array) -> Array:
    """KLoM, (n,), between normal distributions with the means and variances of both samples, in nats:
    ``log(s_Q / s_P) + (s_P^2 + (m_P - m_Q)^2) / (2 s_Q^2) - 1/2``.

    Its floor for two samples of one distribution falls as 1 / N, and it has no ceiling, so that it tells apart where
    the histograms no longer overlap. Margins are not clipped, so that a method which drives them far out is seen to;
    infinite where one sample does not vary and the other does.

    Args:
        unlearned: margins (N, n), N > 1.
        retrained: margins (M, n), M > 1.
    """
    ours, theirs = _checked(unlearned, retrained)
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"a variance needs at least 2 models on each side, found {len(ours)} and {len(theirs)}")
    distance = (ours.mean(0) - theirs.mean(0)) ** 2
    p, q = ours.var(0, ddof=1), theirs.var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (np.log(q / p) + (p + distance) / q - 1.0) / 2.0
    same = (p == 0) & (q == 0) & (distance == 0)
    return np.where(same, 0.0, np.where(np.isnan(divergence), np.inf, divergence))


def _checked(unlearned: Array, retrained: Array) -> tuple[Array, Array]:
    both = []
    for name, sample in (("unlearned", unlearned), ("retrained", retrained)):
        sample = np.asarray(sample, dtype=np.float64)
        if sample.ndim != 2 or not sample.size:
            raise ValueError(f"{name} must be margins (models, points), found the shape {sample.shape}")
        if not np.isfinite(sample).all():
            raise ValueError(f"{name} must be finite: a model diverged; lower the learning rate of the method")
        both.append(sample)
    ours, theirs = both
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"both need margins of the same points, found {ours.shape[1]} and {theirs.shape[1]}")
    return ours, theirs


def _histograms(shares: Array, bins: int) -> Array:
    """Shares (bins, n) of each column's values, given in [0, 1]; the largest is in the last bin."""
    places = np.minimum((shares * bins).astype(np.int64), bins - 1)
    counts = np.zeros((bins, shares.shape[1]))
    np.add.at(counts, (places, np.arange(shares.shape[1])[None, :]), 1.0)
    return counts / len(shares)
