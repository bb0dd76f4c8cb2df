"""Preference-guided learning as constrained vector optimization."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_non_negative
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._losses import loss_values
from mtopt.combiners._preference import Preference
from mtopt.combiners._ray import check_ray, off_ray, unit_ray
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, read_gramian
from mtopt.solvers import ray_step

_LARGEST = 1e30
"""Largest weight, and term of the direction, for gradients that are not in double precision."""


@register_combiner("ferero")
class FERERO(GramianCombiner):
    """FERERO: towards the ray of the preference at a given rate, and along it as far as descent pays.

    With ``u = p / ||p||`` and B an orthonormal basis of its complement, ``H = B l`` is zero on the ray. The direction
    solves ``min_d ||d||² / 2 - min_k g_k . d`` under ``B J d = c_h H``. By the dual it is ``d = J' (lambda + B' nu)``
    with ``min || J' (lambda + B' nu) ||² / 2 - c_h nu . H`` over lambda in the simplex and nu free. Thus
    ``J d = c_h (l - (l . u) u) + kappa u``: each step takes the share ``c_h`` (times the learning rate) off the
    distance from the ray, straight towards it, and moves kappa along it. d does not depend on which B is taken.

    Chen, Saif, Shen and Chen, "FERERO: a flexible framework for preference-guided multi-objective learning", NeurIPS
    2024, its program for the usual dominance order (cone matrix A = I) and the ray as the absolute preference. The
    authors' published code takes projected gradient steps in lambda and nu, a single one for each training step in
    multi-task learning, and there divides the weights by the sum of their moduli; here the program, which has but one
    unknown after the constraint, is solved exactly at each step.

    Args:
        preference: (K,) the ray p, positive, summing to one: a large p_k allows a large loss. Default: 1/K each.
        c_h: the rate of approach, >= 0. Default 0.5, as in the authors' code.

    Losses may have any sign, but the ray has positive ones. The constraint is solved as by a Newton step, so the part
    of d towards the ray grows as the gradients shrink and as they become parallel (a clipped gradient norm helps), and
    far from the front it may raise every loss. On the ray, d has the gradients' scale: with equal preferences, K
    orthogonal gradients of equal norm give their mean, and K equal ones that gradient. Where ``B J d = c_h H`` has no
    solution (zero gradients, or ones that are dependent as far as they are known, such as equal ones), d comes as near
    to one as it can. For gradients in single or half precision, d is shortened where a weight would exceed 1e30. A loss
    that is absent from a batch takes no part.
    """

    homogeneous = False  # the approach of the ray has the unit of a loss over a gradient
    search_space = {"c_h": ("log", 0.05, 2.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, c_h: float = 0.5) -> None:
        check_ray("FERERO", preference)
        check_non_negative(c_h=c_h)
        self.preference, self.c_h = preference, c_h

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``lambda + B' nu``: (K,) for a Gramian (K, K) and losses (K,)."""
        matrix = read_gramian(gramian)
        values = loss_values(self._losses(losses, len(matrix)))
        ray = unit_ray(self.preference, *self.objectives_of_rows(len(matrix)))
        precision = self._precision(gramian)
        weights, self.certificate = ray_step(matrix, self.c_h * off_ray(values, ray), ray, precision.of_numbers())
        if precision.rows > torch.finfo(torch.float64).eps:
            terms = np.abs(weights) * np.maximum(1.0, np.sqrt(matrix.diagonal()))
            weights *= min(1.0, _LARGEST / max(float(terms.max()), 1.0))
        return make_tensor_like(weights, gramian)
