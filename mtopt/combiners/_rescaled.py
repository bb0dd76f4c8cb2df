"""Gradients whose rows are multiplied by factors before a rule sees them."""

from __future__ import annotations

import torch

from mtopt.combiners._base import Combiner
from mtopt.combiners._gradients import Gradients


def rescaled(gradients: Gradients, factors: torch.Tensor, rule: Combiner) -> Gradients:
    """The rows ``factors[k] g_k`` as ``rule`` needs them; for one that looks at inner products alone, only these."""
    if rule.needs == "jacobian" or not rule.weighted:
        return _with_rows(gradients, factors)
    return gradients.with_gramian(gradients.gramian * factors * factors[:, None])


def _with_rows(gradients: Gradients, factors: torch.Tensor) -> Gradients:
    """Rows of 16 bits become float32."""
    if gradients.factors is not None:
        factors = factors * torch.tensor(gradients.factors, dtype=torch.float64)
    rows = []
    for row, factor in zip(gradients.rows, (factors / gradients.scale).tolist(), strict=True):
        # in float64, since the factor of a short row may be too large for float32
        products = ((tensor.double() * factor).to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in row)
        rows.append(list(products))
    return Gradients(rows, objectives=gradients.objectives, total=gradients.total, places=gradients.places)
