"""A few models that together serve many objectives: Tchebycheff set scalarization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtopt.combiners import LossCombiner
from mtopt.linalg import Array, make_tensor_like, read_array


class TchebycheffSet(LossCombiner):
    """(S)TCH-Set: the gradient of ``max_k p_k (min_n l_nk - z_k)`` over N models, maximum and minimum smoothed.

    With ``m_k = -mu log sum_n exp(-l_nk / mu)``, the smooth least loss k among the models, it is the gradient of
    ``mu log sum_k exp(p_k (m_k - z_k) / mu)``: each objective is the business of the model that is best at it, and the
    worst served objective drives the step. The weight of ``l_nk`` is ``p_k s_k t_nk``, s and t the two softmaxes; at
    ``mu=0`` it is ``p_k`` for one model and objective and zero for all others.

    Lin et al., "Few for many: Tchebycheff set scalarization for many-objective optimization", ICLR 2025 (arXiv
    2405.19650). The losses are those of :class:`SetTrainer`: first the K of model 0, then those of model 1.

    Args:
        num_objectives: K.
        mu: smoothing, >= 0, in the unit of the losses. Default: 0.1, the authors'.
        preference: (K,) factors p, non-negative, summing to one. Default: p_k = 1, as the authors' code has it.
        reference: (K,) ideal point z. Default: zeros.

    The weights sum to at most ``max p``. With many models some may serve no objective and get no gradient: the smaller
    mu, the sooner. No loss may be absent from a batch.
    """

    symmetric = False
    search_space = {"mu": ("log", 0.01, 1.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        num_objectives: int,
        mu: float = 0.1,
        preference: Sequence[float] | torch.Tensor | None = None,
        reference: Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        if isinstance(num_objectives, bool) or not isinstance(num_objectives, int) or num_objectives < 1:
            raise ValueError(f"num_objectives must be a positive int, found {num_objectives!r}")
        if not mu >= 0:
            raise ValueError(f"mu must be non-negative, found {mu}")
        for name, given in (("preference", preference), ("reference", reference)):
            if given is not None and np.shape(read_array(given)) != (num_objectives,):
                raise ValueError(f"{name} must have {num_objectives} entries, one per objective, found {given!r}")
        if preference is not None and (
            read_array(preference).min() < 0 or abs(read_array(preference).sum() - 1) > 1e-6
        ):
            raise ValueError(f"preference must be non-negative and sum to one, found {preference!r}")
        self.num_objectives, self.mu, self.preference, self.reference = num_objectives, mu, preference, reference

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The weights (N K,) of losses (N K,)."""
        count, total = self.num_objectives, self.objectives_of_rows(len(losses))[1]
        if len(losses) % count or len(losses) != total:
            raise ValueError(
                f"TchebycheffSet takes the {count} losses of every model, found {len(losses)} of {total} losses; give "
                "all of them in every step"
            )
        values = read_array(losses).reshape(-1, count)
        factors = np.ones(count) if self.preference is None else read_array(self.preference)
        least, among_models = _smooth_max(-values, self.mu)
        shifted = factors * (-least - (0.0 if self.reference is None else read_array(self.reference)))
        _, among_objectives = _smooth_max(shifted[:, None], self.mu)
        return make_tensor_like((factors * among_objectives[:, 0] * among_models).reshape(-1), losses)


def _smooth_max(values: Array, mu: float) -> tuple[Array, Array]:
    """``mu log sum exp(v / mu)`` down each column, and its derivatives; the first of the largest where mu is zero."""
    largest = values.max(axis=0)
    if mu == 0.0:
        return largest, np.eye(len(values))[values.argmax(axis=0)].T
    powers = np.exp((values - largest) / mu)
    totals = powers.sum(axis=0)
    return largest + mu * np.log(totals), powers / totals
