"""The scalarizations of decomposition methods: Tchebycheff, achievement, penalty boundary intersection."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_non_negative
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import Reference, check_reference, loss_values, reference_of
from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like


def _shares(terms: Array) -> Array:
    """A subgradient of the maximum of ``terms``: those that attain it share equally, so that order does not matter."""
    attained = terms == terms.max()
    return np.asarray(attained / attained.sum())


@register_combiner("tchebycheff")
class Tchebycheff(LossCombiner):
    """Tchebycheff scalarization: the gradient of ``max_k p_k (l_k - z_k)``.

    One loss has the weight p_k, the one that is furthest from z in the weighted sense, and the others have none; losses
    that tie share it. Its minimisers are weakly Pareto optimal, and every Pareto point is one for some preference, on
    concave fronts, too: the ray it ends on is ``l_k - z_k ~ 1 / p_k``. Bowman 1976; Miettinen, "Nonlinear
    multiobjective optimization", 1999, section 3.4. As it is not smooth, a gradient method jumps between losses
    near the end; :class:`~mtopt.combiners.smooth_tchebycheff.STCH` does not. (libmoon's ``tche`` leaves the factor p_k
    out of the value and of the gradient.) K equal losses and preferences give the mean of the gradients divided by K.

    Args:
        preference: (K,) weights p, non-negative, summing to one. Default: 1/K each. An objective with p_k = 0 takes no
            part, whatever its loss.
        reference: (K,) ideal point z, below all that the losses may reach. Default: zeros.

    An objective may be maximised, if its z is below its (negative) loss. A loss that is absent from a batch drops out
    of the maximum.
    """

    def __init__(self, *, preference: Preference = None, reference: Reference = None) -> None:
        check_preference(preference)
        check_reference(reference)
        self.preference, self.reference = preference, reference

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """p_k for the loss that attains the maximum, zero for the others: (K,) for losses (K,)."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        preference = preference_of(self.preference, objectives, total).numpy()
        above = values - reference_of(self.reference, objectives, total)
        if not (preference > 0).any():
            return make_tensor_like(np.zeros(len(values)), losses)
        return make_tensor_like(preference * _shares(np.where(preference > 0, preference * above, -np.inf)), losses)


@register_combiner("asf")
class ASF(LossCombiner):
    """ASF, achievement scalarizing function: ``max_k (l_k - z_k) / p_k + rho sum_k (l_k - z_k) / p_k``.

    The loss that attains the maximum weighs ``1 / p_k`` (losses that tie share it), and each has ``rho / p_k`` more.
    It ends on the ray ``l - z ~ p`` where that meets the front: a large p_k allows a large loss. With ``rho = 0``
    minimisers are weakly Pareto optimal; with a small ``rho > 0`` (the augmented function, AASF) they are properly
    so. Wierzbicki, "The use of reference objectives in multiobjective optimization", 1980. K equal losses and
    preferences give, for ``rho = 0``, the sum of the gradients.

    Args:
        preference: (K,) weights p, positive, summing to one. Default: 1/K each.
        reference: (K,) reference point z, the aspiration; it need not be below the losses. Default: zeros.
        rho: the augmentation, >= 0. Default 0; 1e-6 to 0.1 are in use.

    Losses may have any sign, so that an objective may be maximised. A loss that is absent from a batch drops out of
    the maximum and of the sum.
    """

    def __init__(self, *, preference: Preference = None, reference: Reference = None, rho: float = 0.0) -> None:
        check_preference(preference)
        if preference is not None and not bool((torch.as_tensor(preference) > 0).all()):
            raise ValueError(
                f"ASF divides by the preference: it must be positive, found {torch.as_tensor(preference).tolist()}; "
                "give a small number instead of zero, or use 'tchebycheff'"
            )
        check_reference(reference)
        check_non_negative(rho=rho)
        self.preference, self.reference, self.rho = preference, reference, rho

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``([k attains the maximum] + rho) / p_k``: (K,) for losses (K,)."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        preference = preference_of(self.preference, objectives, total).numpy()
        above = values - reference_of(self.reference, objectives, total)
        return make_tensor_like((_shares(above / preference) + self.rho) / preference, losses)


@register_combiner("pbi")
class PBI(LossCombiner):
    """PBI, penalty-based boundary intersection: ``d_1 + theta d_2``.

    With ``v = l - z`` and the unit vector ``u = p / ||p||``, ``d_1 = v . u`` is the way along the preference's ray and
    ``d_2 = || v - d_1 u ||`` the distance from it. The weights are ``u + theta (v - d_1 u) / d_2``: of length
    ``sqrt(1 + theta^2)`` off the ray, and u on it. It ends on the ray ``l - z ~ p``, where that meets the front, if
    theta is large enough. Weights are often negative: a loss that is too small for the preference is made to rise.
    K equal losses and preferences give the sum of the gradients over ``sqrt(K)``.

    Zhang and Li, "MOEA/D: a multiobjective evolutionary algorithm based on decomposition", 2007. The paper takes the
    absolute value of d_1, which is the same for losses above z; here d_1 keeps its sign, as in pymoo, so that losses
    below z are not made to rise.

    Args:
        preference: (K,) direction p, non-negative, summing to one. Default: 1/K each.
        reference: (K,) ideal point z, below all that the losses may reach. Default: zeros.
        theta: the penalty, >= 0. Default 5, the paper's and pymoo's; libmoon takes 1.

    An objective may be maximised; give a z below its (negative) loss, or the ray points away from it. A loss that is
    absent from a batch drops out of both vectors.
    """

    search_space = {"theta": ("log", 0.1, 10.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, reference: Reference = None, theta: float = 5.0) -> None:
        check_preference(preference)
        check_reference(reference)
        check_non_negative(theta=theta)
        self.preference, self.reference, self.theta = preference, reference, theta

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``u + theta (v - d_1 u) / d_2``: (K,) for losses (K,)."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        preference = preference_of(self.preference, objectives, total).numpy()
        if not (preference > 0).any():
            return make_tensor_like(np.zeros(len(values)), losses)
        ray = preference / np.linalg.norm(preference)
        above = values - reference_of(self.reference, objectives, total)
        off = above - (above @ ray) * ray
        distance = np.linalg.norm(off)
        if distance <= 1e-14 * np.linalg.norm(above):  # on the ray but for rounding: zero is a subgradient
            return make_tensor_like(ray, losses)
        return make_tensor_like(ray + self.theta * off / distance, losses)
