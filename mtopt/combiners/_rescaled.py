"""Gradients whose rows are multiplied by factors before a rule sees them."""

from __future__ import annotations

import torch

from mtopt.combiners._base import Combiner
from mtopt.linalg import Gradients, rescale_rows


def rescaled(gradients: Gradients, factors: torch.Tensor, rule: Combiner) -> Gradients:
    """The rows ``factors[k] g_k`` as ``rule`` needs them; for one that looks at inner products alone, only these."""
    if rule.needs == "jacobian" or not rule.weighted:
        return rescale_rows(gradients, factors)
    return gradients.with_gramian(gradients.gramian * factors * factors[:, None])
