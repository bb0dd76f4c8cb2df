"""Following the weights of rules that solve ``G w = w**(-1 / alpha)``."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import SolverError
from mtopt.combiners._matrix_free import FollowsWeights
from mtopt.linalg import Array, read_array
from mtopt.solvers import alpha_fair


class FollowsFairWeights(FollowsWeights):
    """Positive weights of any size, mixed by their logarithms; alpha = 1 is Nash-MTL.

    Their ratios are what is followed: with ``w = c v`` the best c has the closed form
    ``c**(1 + 1/alpha) = sum_k v_k**(1 - 1/alpha) / ||J'v||²``, so that every direction has the
    rule's own length. The error is ``max_k |w_k**(1/alpha) (G w)_k - 1|``. At alpha = 1, where the objective is
    self-concordant, the direction is within ``sqrt(-2 delta - 2 log(1 - delta))``, about delta, of the exact one, whose
    length is ``sqrt(K)``, if ``delta² = sum_k (w_k (G w)_k - 1)² < 1``.
    """

    max_norm: float | None

    def _power(self) -> float:
        """1 / alpha."""
        return 1.0

    def _solution(self, gramian: Array) -> Array:
        solution, certificate = alpha_fair(gramian, 1.0 / self._power())
        if self._error(solution, gramian @ solution) > 0.5:  # it is 1 where a combination of the rows vanishes
            raise SolverError(f"the model of the Gramian is singular ({certificate.method})")
        return solution

    def _error(self, weights: Array, products: Array) -> float:
        return float(np.abs(weights ** self._power() * products - 1.0).max(initial=0.0))

    def _live(self, products: Array) -> npt.NDArray[np.bool_]:
        # a zero gradient has nothing to bargain for: its weight, which acts on nothing, is kept
        return np.asarray(products != 0.0)

    def _with_new(self, weights: Array, new: int) -> Array:
        usual = float(np.exp(np.log(weights).mean())) if len(weights) else 1.0
        return np.concatenate([weights, np.full(new, usual)])

    def _used(self, weights: Array) -> Array:
        return np.asarray(weights / weights.max())  # that a loss in 16 bits can be multiplied with them

    def _kept(self, before: Array, moved: Array) -> Array:
        return moved

    def _mixed(self, weights: Array, solution: Array, rate: float) -> Array:
        # a model of noisy products may be far off: no weight changes a hundredfold at once
        return np.asarray(weights * np.clip(solution / weights, 0.01, 100.0) ** rate)

    def _factor(self, weights: Array, squared_length: float) -> float:
        power = self._power()
        return float(((weights ** (1.0 - power)).sum() / squared_length) ** (1.0 / (1.0 + power)))

    def _shortening(self, length: float) -> float:
        return 1.0 if self.max_norm is None or length <= self.max_norm else self.max_norm / length


def clipped(weights: Array, gramian: torch.Tensor, max_norm: float | None) -> Array:
    """``weights``, scaled down where ``|| sum_k w_k g_k ||`` is above ``max_norm``."""
    if max_norm is None:
        return weights
    norm = math.sqrt(max(float(weights @ read_array(gramian) @ weights), 0.0))
    return weights * (max_norm / norm) if norm > max_norm else weights
