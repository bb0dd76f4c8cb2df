"""Priority-constrained descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like, normalize_gramian, read_gramian
from mtopt.solvers import least_distance


@register_combiner("pcd")
class PCD(GramianCombiner):
    """PCD: the primary loss's gradient, changed as little as gives every other loss its share of progress.

    ``d = argmin_d || d - n_1 ||²`` subject to ``n_j . d >= tau ||n_j||²`` for every secondary j, where
    ``n_k = g_k / sqrt(v_k)`` and ``v_k`` is the bias-corrected running mean of ``||g_k||²``, as Adam's second moment; d
    is then rescaled to the length of the primary gradient ``g_1``.

    Varam and AlHajri, "Not all objectives are born equal: priority-constrained descent for hierarchical multi-objective
    optimization", TMLR 2026 (arXiv 2606.29521); the formulas are those of the authors' page and code. They try every
    set of active constraints; here the program is solved exactly for any K (:func:`mtopt.solvers.least_distance`).

    Args:
        tau: share of the progress along its own normalised gradient that a secondary loss is given, in [0, 1]; or one
            for each secondary, in their order.
        beta: decay of the running means, in [0, 1).
        eps: added to v. The paper's 1e-8 stops the normalisation of gradients shorter than 1e-4; the default leaves
            none out.
        primary: position of the primary loss.

    Without a conflict, and with enough progress for all, d is the primary gradient: the secondary losses are
    constraints. Without the primary loss in the step, or with a zero gradient of it, d is zero. Demands that cannot be
    met together as far as the gradients are known (of opposite secondaries, say) are dropped for the step. Where the
    primary gradient and its change cancel, d is zero. The state is 2 K numbers.
    """

    stateful = True
    symmetric = False
    search_space = {"tau": ("log", 0.005, 0.5)}  # noqa: RUF012  (a class-level constant)
    state = ("_means", "_counts")
    _as_long = ("_means", "_counts")

    def __init__(
        self, *, tau: float | Sequence[float] = 0.02, beta: float = 0.999, eps: float = 0.0, primary: int = 0
    ) -> None:
        shares = list(tau) if isinstance(tau, Sequence) else [tau]
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"tau must be in [0, 1], found {tau}")
        if not 0 <= beta < 1 or not 0 <= eps < float("inf"):
            raise ValueError(f"beta must be in [0, 1) and eps finite and non-negative, found beta={beta}, eps={eps}")
        if not isinstance(primary, int) or primary < 0:
            raise ValueError(f"primary must be the position of an objective, 0, 1, ..., found {primary!r}")
        self.tau, self.beta, self.eps, self.primary = tau, beta, eps, primary
        self.scale_invariant = self.homogeneous = eps == 0
        self._means: list[float] = []  # of the squared norms, not yet corrected
        self._counts: list[int] = []  # steps in them

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) for a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        precision = self._precision(gramian).of_numbers()
        cosines, norms = normalize_gramian(matrix)
        objectives, total = self.objectives_of_rows(len(norms))
        if self.primary >= total:
            raise ValueError(f"primary is {self.primary}, but there are only {total} objectives")
        sizes = self._normalised(norms, objectives, total)
        shares = self._shares(objectives, total)
        weights = np.zeros_like(norms)
        self.certificate = None
        row = objectives.index(self.primary) if self.primary in objectives else -1
        if row < 0 or norms[row] == 0.0:
            return make_tensor_like(weights, gramian)
        others = norms.nonzero()[0]
        others = others[others != row]
        terms = np.zeros_like(norms)
        terms[row] = sizes[row]
        missed = 0.0  # the largest violation of a demand
        if len(others):
            block = cosines[others[:, None], others]
            demands = shares[others] * sizes[others] - sizes[row] * cosines[others, row]
            changes, self.certificate = least_distance(block, demands, precision)
            if changes is None:
                missed = float(demands.max())
            else:
                terms[others] = changes
                length = math.sqrt(max(float(changes.dot(block).dot(changes)), 0.0))
                missed = self.certificate.residual * max(float(np.abs(demands).max()), length)
        squared = float(terms.dot(cosines).dot(terms))
        # a product is off by its rounding, and a demand that was just met by that of a projection
        rounding = max(precision.rank_share(len(terms)), (2.0 * len(terms) * precision.linear) ** 2)
        if squared > rounding * float(terms.sum()) ** 2:
            lengths = norms if norms.min() > 0.0 else np.where(norms > 0.0, norms, 1.0)
            weights = terms / math.sqrt(squared) * (norms[row] / lengths)  # the terms of zero rows are zero
            if self.certificate is not None:  # the demands are those of a direction that was not yet rescaled
                self.certificate = replace(self.certificate, residual=missed / math.sqrt(squared))
        return make_tensor_like(weights, gramian)

    def _normalised(self, norms: Array, objectives: Sequence[int], total: int) -> Array:
        """The lengths of the normalised gradients, after the running means have taken these norms in."""
        if len(self._means) != total:
            if self._means:
                raise ValueError(f"this PCD has met {len(self._means)} objectives, found {total}; create another")
            self._means, self._counts = [0.0] * total, [0] * total
        sizes = []
        for norm, objective in zip(norms.tolist(), objectives, strict=True):
            self._counts[objective] += 1
            self._means[objective] = self.beta * self._means[objective] + (1.0 - self.beta) * norm**2
            mean = self._means[objective] / (1.0 - self.beta ** self._counts[objective]) + self.eps
            sizes.append(norm / math.sqrt(mean) if mean > 0.0 else 0.0)
        return np.array(sizes)

    def _shares(self, objectives: Sequence[int], total: int) -> Array:
        """tau of each row; the primary's is not used."""
        if not isinstance(self.tau, Sequence):
            return np.full(len(objectives), float(self.tau))
        if len(self.tau) != total - 1:
            raise ValueError(f"tau has {len(self.tau)} entries for {total - 1} secondary objectives; give one each")
        shares = [*self.tau[: self.primary], 0.0, *self.tau[self.primary :]]
        return np.array([shares[objective] for objective in objectives])
