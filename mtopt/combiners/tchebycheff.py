"""The Tchebycheff scalarization."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import Reference, check_reference, losses_above, shares_of_largest
from mtopt.combiners._preference import Preference, check_preference
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


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
        preference, above = losses_above(self, losses, self.preference, self.reference)
        if not (preference > 0).any():
            return make_tensor_like(np.zeros(len(preference)), losses)
        terms = np.where(preference > 0, preference * above, -np.inf)
        return make_tensor_like(preference * shares_of_largest(terms), losses)
