"""Tuning for a front where whole trainings count: every epoch of every configuration may be a point of it."""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt

from mtopt.experiments._space import halton
from mtopt.experiments._trajectory_model import Array, TrajectoryModel
from mtopt.pareto import hypervolume, is_nondominated

_CANDIDATES, _NEAR, _REFINED = 48, 24, 12
"""Configurations at which the acquisition is taken: over the cube, around the front's, around the best of these."""

_NEAR_BY, _REFINED_BY = 0.1, 0.03
"""Standard deviations of those around, in the unit cube."""


class TMOBO:
    """Trajectory-based multi-objective Bayesian optimization: how many epochs to train is decided, too.

    ::

        tuner = TMOBO(dimension=2, epochs=20, reference_point=(1.0, 1.0))
        for _ in range(trainings):
            for values in train(tuner.propose()):  # a generator of the objectives after each epoch
                if not tuner.observe(values):
                    break

    A configuration is chosen by the expected improvement of the hypervolume by its whole predicted trajectory,
    E[HV(P u {F(x, 1), ..., F(x, T)})] - HV(P), with P all points so far. Its training stops as soon as not even
    mean - ``confidence`` standard deviations of any later epoch would add to the hypervolume. Of a trajectory that has
    ended the model keeps ``kept`` epochs, those that leave least variance.

    Args:
        dimension: of x in the unit cube.
        epochs: T, at most, of one training.
        reference_point: (K,), objectives minimised.
        initial: configurations (scrambled Halton) trained to the end first; default: ``dimension + 1``.
        samples: trajectories that the expectation is taken over.

    Raises ValueError for counts below 1, and ImportError without scikit-learn (extra ``tuning``).

    Source: Wang, Fan and Ng, UAI 2025 (arXiv 2405.15303). Its code, kernels and constants were not to be had: kernel,
    confidence, ``kept`` and the search of the acquisition are ours.
    """

    def __init__(
        self,
        dimension: int,
        epochs: int,
        reference_point: npt.ArrayLike,
        *,
        initial: int | None = None,
        samples: int = 32,
        confidence: float = 2.0,
        kept: int = 6,
        seed: int = 0,
    ) -> None:
        for name, value in (("dimension", dimension), ("epochs", epochs), ("samples", samples), ("kept", kept)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if importlib.util.find_spec("sklearn") is None:
            raise ImportError("TMOBO needs scikit-learn: pip install 'mtopt[tuning]'")
        self.reference = np.asarray(reference_point, dtype=np.float64)
        self.epochs, self.samples, self.confidence, self.kept = epochs, samples, confidence, kept
        self._dimension = dimension
        self._random = np.random.default_rng(seed)
        self._model = TrajectoryModel(epochs, seed=seed)
        self._first = halton(dimension, initial or dimension + 1, seed=seed)
        self._x: Array | None = None
        self._values: list[Array] = []
        self._inputs_kept = np.empty((0, dimension + 1))
        self._values_kept = np.empty((0, len(self.reference)))
        self._front = np.empty((0, len(self.reference)))
        self._front_at = np.empty((0, dimension))
        self._fitted = False

    @property
    def front(self) -> Array:
        """(n, K): the points of all epochs so far that none of them dominates."""
        return self._front

    def propose(self) -> Array:
        """The configuration to train next, (d,)."""
        self._end_trajectory()
        if self._first:
            self._x = np.array(self._first.pop(0))
            return self._x
        self._model.fit(self._inputs_kept, self._values_kept)
        self._fitted = True
        near = self._front_at[self._random.integers(len(self._front_at), size=_NEAR)] if len(self._front_at) else None
        candidates = self._random.random((_CANDIDATES, self._dimension))
        if near is not None:
            candidates = np.vstack((candidates, self._around(near, _NEAR_BY)))
        best, gain = self._best(candidates)
        refined, better = self._best(self._around(np.tile(best, (_REFINED, 1)), _REFINED_BY))
        self._x = refined if better > gain else best
        return self._x

    def observe(self, values: npt.ArrayLike) -> bool:
        """Take the objectives after one more epoch, (K,); gives whether to train on.

        NaN or infinite values are of no use to the model: the training has diverged, and stops.
        """
        point = np.asarray(values, dtype=np.float64)
        if self._x is None:
            raise ValueError("observe needs a configuration: call propose first, and again after the end of a training")
        if point.shape != self.reference.shape:
            raise ValueError(f"values must be {len(self.reference)} numbers, one per objective, found {values!r}")
        if not np.isfinite(point).all():
            self._end_trajectory()
            return False
        self._values.append(point)
        self._add_to_front(point, self._x)
        done = len(self._values)
        if done == self.epochs or (self._fitted and not self._may_add(done)):
            self._end_trajectory()
            return False
        return True

    def _may_add(self, done: int) -> bool:
        """Whether a later epoch of this training may add to the hypervolume."""
        assert self._x is not None
        seen, later = np.arange(1, done + 1), np.arange(done + 1, self.epochs + 1)
        inputs = np.vstack((self._inputs_kept, self._model.inputs(self._x, seen)))
        self._model.fit(inputs, np.vstack((self._values_kept, self._values)), tune=False)
        mean, deviation = self._model.predict(self._x, later)
        return may_still_add(mean, self.confidence * deviation, self._front, self.reference)

    def _best(self, candidates: Array) -> tuple[Array, float]:
        epochs = np.arange(1, self.epochs + 1)
        gains = [
            trajectory_improvements(self._model.sample(x, epochs, self.samples), self._front, self.reference).mean()
            for x in candidates
        ]
        at = int(np.argmax(gains))
        return candidates[at], float(gains[at])

    def _around(self, centres: Array, by: float) -> Array:
        moved: Array = (centres + by * self._random.standard_normal(centres.shape)).clip(0.0, 1.0)
        return moved

    def _add_to_front(self, point: Array, x: Array) -> None:
        points, places = np.vstack((self._front, point)), np.vstack((self._front_at, x))
        stays = np.asarray(is_nondominated(points))
        self._front, self._front_at = points[stays], places[stays]

    def _end_trajectory(self) -> None:
        """Take the epochs of the training into the model that tell most."""
        if self._x is not None and self._values:
            done = np.arange(1, len(self._values) + 1)
            kept = np.unique(np.linspace(0, len(done) - 1, self.kept).round().astype(int))
            if self._fitted and len(done) > self.kept:
                self._model.fit(self._inputs_kept, self._values_kept, tune=False)
                kept = most_telling(self._model.covariances(self._x, done), self.kept)
            self._inputs_kept = np.vstack((self._inputs_kept, self._model.inputs(self._x, done[kept])))
            self._values_kept = np.vstack((self._values_kept, np.array(self._values)[kept]))
        self._x, self._values = None, []


def trajectory_improvements(trajectories: Array, front: Array, reference: Array) -> Array:
    """HV(front u trajectory) - HV(front) of each trajectory: (S, T, K), (n, K), (K,) -> (S,)."""
    before = hypervolume(front, reference) if len(front) else 0.0
    return np.array([hypervolume(np.vstack((front, points)), reference) for points in trajectories]) - before


def may_still_add(mean: Array, margin: Array, front: Array, reference: Array) -> bool:
    """Whether a point ``mean - margin`` (n, K) is below the reference and weakly dominated by none of the front."""
    best = mean - margin
    below = best[(best < reference).all(axis=1)]
    return any(not (front <= point).all(axis=1).any() for point in below)


def most_telling(covariances: Array, count: int) -> npt.NDArray[np.intp]:
    """Indices of ``count`` epochs, each that of the largest posterior variance, over all objectives, given the others.

    ``covariances`` (K, n, n) are the posterior's before any of them is seen.
    """
    left, chosen = covariances.copy(), list[int]()
    for _ in range(min(count, left.shape[1])):
        variances = left.diagonal(axis1=1, axis2=2).sum(axis=0)
        variances[chosen] = -np.inf
        at = int(np.argmax(variances))
        chosen.append(at)
        column, own = left[:, :, at], left[:, at, at]
        scale = np.where(own > 1e-12, own, np.inf)
        left = left - column[:, :, None] * column[:, None, :] / scale[:, None, None]
    return np.sort(np.array(chosen))
