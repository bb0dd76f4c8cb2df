"""Gradients whose rows are multiplied by factors."""

from __future__ import annotations

import torch

from mtopt.linalg._gradients import Gradients


def rescale_rows(gradients: Gradients, factors: torch.Tensor) -> Gradients:
    """The rows ``factors[k] g_k``, free of a GradScaler's factor; those of 16 bits become float32."""
    if gradients.factors is not None:
        factors = factors * torch.tensor(gradients.factors, dtype=torch.float64)
    rows = []
    for row, factor in zip(gradients.rows, (factors / gradients.scale).tolist(), strict=True):
        # in float64, since the factor of a short row may be too large for float32
        products = ((tensor.double() * factor).to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in row)
        rows.append(list(products))
    return Gradients(rows, objectives=gradients.objectives, total=gradients.total, places=gradients.places)
