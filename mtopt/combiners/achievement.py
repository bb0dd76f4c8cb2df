"""The achievement scalarizing function."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_non_negative
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import Reference, check_reference, losses_above, shares_of_largest
from mtopt.combiners._preference import Preference, check_preference
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


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
        preference, above = losses_above(self, losses, self.preference, self.reference)
        return make_tensor_like((shares_of_largest(above / preference) + self.rho) / preference, losses)
