"""The gradients of each loss on each batch, made without a trace: ``.grad`` is neither read nor written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mtopt._errors import NonFiniteError
from mtopt._losses import Losses, Objective, check_loss, read_losses, run_loss
from mtopt.distributed import refuse_ranks
from mtopt.linalg import Place

Row = list[torch.Tensor | None]
"""A tensor a parameter; None where the loss does not reach it."""


@dataclass(frozen=True)
class BatchRows:
    """The gradients of one batch: by the position of each loss that was present."""

    objectives: list[Objective]
    values: dict[int, float]
    rows: dict[int, Row]


def differentiate(losses: Losses, places: Sequence[Place], *, keep_graph: bool, scale: float = 1.0) -> BatchRows:
    """The gradient of each loss to minimise; a None loss has none.

    Args:
        losses: as :func:`mtopt.backward` takes them.
        keep_graph: the caller goes on to differentiate these losses.
        scale: what a loss is multiplied with before, and its gradient divided by after, so that 16 bits hold it.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite.
    """
    refuse_ranks("a diagnosis", "look at the losses in one process")
    objectives, entries = read_losses(losses)
    parameters = [place.parameter for place in places]
    last = max((k for k, entry in enumerate(entries) if isinstance(entry, torch.Tensor)), default=-1)
    values: dict[int, float] = {}
    rows: dict[int, Row] = {}
    for k, (objective, entry) in enumerate(zip(objectives, entries, strict=True)):
        loss = run_loss(entry)
        if loss is None:
            continue
        check_loss(objective.name, loss)
        values[k] = float(loss.detach())
        kept = keep_graph or (isinstance(entry, torch.Tensor) and k != last)
        found = torch.autograd.grad(
            loss.reshape(()) * (objective.sign * scale), parameters, retain_graph=kept, allow_unused=True
        )
        rows[k] = [None if tensor is None else _plain(tensor, scale) for tensor in found]
    _require_finite(objectives, values, rows)
    return BatchRows(objectives, values, rows)


def _plain(gradient: torch.Tensor, scale: float) -> torch.Tensor:
    """Dense, real, and free of the scale."""
    gradient = gradient.detach()
    gradient = gradient.to_dense() if gradient.layout != torch.strided else gradient
    gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
    return gradient if scale == 1.0 else gradient.float() / scale


def _require_finite(objectives: Sequence[Objective], values: dict[int, float], rows: dict[int, Row]) -> None:
    bad = [
        objectives[k].name
        for k, value in values.items()
        if not torch.tensor(value).isfinite() or not all(t is None or bool(t.isfinite().all()) for t in rows[k])
    ]
    if bad:
        raise NonFiniteError(f"losses {bad} have NaN or infinity in their value or gradient; look at that batch first")
