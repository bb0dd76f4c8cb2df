"""Exact Pareto optimal search."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_positive
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._preference import Preference, preference_of
from mtopt.combiners._ray import check_ray
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, read_gramian
from mtopt.solvers import balance_or_descend


@register_combiner("epo")
class EPO(GramianCombiner):
    """EPO, exact Pareto optimal search: to the ray of the preference, and along it to the front.

    With ``r = 1 / p``, ``h = r l / sum(r l)`` the shares of the weighted losses and ``mu = sum_k h_k log(K h_k)`` their
    non-uniformity (zero on the ray ``l = t p``), the anchoring direction has the coefficients
    ``a = r (log(K h) - mu)``, and ``c = G a`` are the rates at which it lowers the losses. The weights w, non-negative
    with the sum 1, solve a linear program.

    - Balance, while ``mu > epsilon``: the largest ``w . c``, such that the losses do not rise that have the largest
      ``r l``, and of the others those with ``c_k <= 0`` no faster than along the anchoring direction,
      ``(G w)_k >= c_k``. Where no ``c_k`` is positive, no loss may rise.
    - Descent, near the ray: the largest ``sum_k (G w)_k``, such that no loss rises and
      ``w . c >= min(0, max_k c_k)``, the balance gets no worse; not the latter with ``relax``.

    In balance losses that are small for the preference may rise ("controlled ascent"), which is how points on
    concave fronts are reached. Mahapatra and Rajan, "Multi-task learning with user preferences: gradient descent with
    controlled ascent in Pareto optimization", ICML 2020, with the two programs of the authors' code. Their r is the
    preference itself; here p is the ray on which the losses end, as in ``asf``, ``pbi`` and ``pmgda``: a large p_k
    allows a large loss.

    The balance program has a solution always: its bounds are not positive, and MGDA's weights have ``G w >= 0``. So has
    the descent program for two losses, and with ``relax``; for three or more no w may meet ``w . c >= min(0, max c)``.
    The bound is then the largest ``w . c`` that does not let a loss rise. (The authors' code has no solution there; it,
    libmoon and others take the weights p.)

    Args:
        preference: (K,) the ray p, positive, summing to one. Default: 1/K each.
        epsilon: the non-uniformity that counts as being on the ray, > 0.
        relax: leave the balance out of the descent.

    Every loss must be positive. The weights sum to one, and are a vertex of the program: away from conflicts often one
    gradient alone. With no conflict, on the ray, that is the gradient with the largest sum of inner products with all,
    so K equal gradients give that gradient. Steps have the gradients' scale; the authors multiply them by
    ``10 max(mu, 0.1)`` in their toy experiments and by K in multi-task training, which is left to the learning rate.
    libmoon clips ``K h`` to 1e-3 in the logarithm; it is not clipped here. A loss that is absent from a batch takes no
    part. A zero gradient belongs to a stationary loss and stays in the program: its weight may be 1, and the step zero.
    ``certificate.method`` says which program was solved.
    """

    positive_losses = True
    search_space = {"relax": ("choice", False, True)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, epsilon: float = 1e-4, relax: bool = False) -> None:
        check_ray("EPO", preference)
        check_positive(epsilon=epsilon)
        self.preference, self.epsilon, self.relax = preference, epsilon, relax

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of the linear program for a Gramian (K, K) and losses (K,)."""
        matrix = read_gramian(gramian)
        values = loss_values(self._losses(losses, len(matrix)))
        objectives, total = self.objectives_of_rows(len(matrix))
        require_above(self, values, objectives, why="it takes the logarithms of their shares")
        inverse = 1.0 / preference_of(self.preference, objectives, total).numpy()
        weighted = inverse * (values / values.max())
        shares = weighted / weighted.sum()
        logs = np.log(len(values) * shares)
        uneven = max(float(shares @ logs), 0.0)
        largest = weighted >= (1.0 - 1e-12) * weighted.max() if uneven > self.epsilon else None
        weights, self.certificate = balance_or_descend(
            matrix, inverse * (logs - uneven), largest, self._precision(gramian), relax=self.relax
        )
        return make_tensor_like(weights, gramian)
