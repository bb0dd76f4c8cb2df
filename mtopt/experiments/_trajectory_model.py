"""Gaussian processes of objectives over configurations and epochs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Epochs = npt.NDArray[np.integer[Any]]

_NOISE = 1e-6
"""Variance of the noise of an objective, as a share of its own, below which the fit does not go."""


class TrajectoryModel:
    """An independent Gaussian process for each of K objectives on (x, t), x in the unit cube and t = epoch / epochs.

    The kernel is a product over coordinates, so that k((x, t), (x', t')) = k_x(x, x') k_t(t, t'): squared exponentials
    with a length scale of their own each, fitted by maximum likelihood (scikit-learn).

    Args:
        epochs: of a whole trajectory.
        seed: of the samples.
    """

    def __init__(self, epochs: int, *, seed: int = 0) -> None:
        self.epochs = epochs
        self._random = np.random.default_rng(seed)
        self._processes: list[Any] = []
        self._kernels: list[Any] = []
        self._scales: Array = np.ones(0)

    def fit(self, inputs: Array, values: Array, *, tune: bool = True) -> None:
        """Condition on ``values`` (n, K) at ``inputs`` (n, d + 1); ``tune``: with kernels fitted anew."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor

        count = values.shape[1]
        kernels = [self._kernel(inputs.shape[1])] * count if tune or not self._kernels else self._kernels
        optimizer = "fmin_l_bfgs_b" if tune or not self._kernels else None
        with (
            warnings.catch_warnings()
        ):  # a scale at its bound: a coordinate that does not matter, or data without noise
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._processes = [
                GaussianProcessRegressor(kernel, alpha=1e-10, optimizer=optimizer, normalize_y=True).fit(inputs, column)
                for kernel, column in zip(kernels, values.T, strict=True)
            ]
        self._kernels = [process.kernel_ for process in self._processes]
        self._scales = values.std(axis=0)

    @staticmethod
    def _kernel(dimension: int) -> Any:
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        smooth = RBF(np.full(dimension, 0.5), (0.05, 20.0))
        return ConstantKernel(1.0, (1e-2, 1e4)) * smooth + WhiteKernel(1e-4, (_NOISE, 1e-1))

    def predict(self, x: Array, epochs: Epochs) -> tuple[Array, Array]:
        """Mean and standard deviation of the objectives of one configuration at some epochs, (n, K) each."""
        found = [process.predict(self.inputs(x, epochs), return_std=True) for process in self._processes]
        return np.stack([mean for mean, _ in found], axis=1), np.stack([deviation for _, deviation in found], axis=1)

    def sample(self, x: Array, epochs: Epochs, count: int) -> Array:
        """``count`` whole trajectories of one configuration from the joint posterior, (count, n, K)."""
        found = []
        for process in self._processes:
            mean, covariance = process.predict(self.inputs(x, epochs), return_cov=True)
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(values.clip(min=0.0))
            found.append(mean + self._random.standard_normal((count, len(mean))) @ root.T)
        return np.stack(found, axis=2)

    def covariances(self, x: Array, epochs: Epochs) -> Array:
        """(K, n, n) of the posterior of one configuration at some epochs, in units of each objective's variance."""
        found = [process.predict(self.inputs(x, epochs), return_cov=True)[1] for process in self._processes]
        scales = np.where(self._scales > 0, self._scales, 1.0)
        scaled: Array = np.stack(found) / scales[:, None, None] ** 2
        return scaled

    def inputs(self, x: Array, epochs: Epochs) -> Array:
        """(n, d + 1): the configuration beside each epoch, as a share of them all."""
        return np.column_stack((np.tile(x, (len(epochs), 1)), epochs / self.epochs))
