"""Gradient sign dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._random import rule_generator
from mtopt.combiners._registry import register_combiner

_COLUMNS = 32_768
"""Columns looked at together, so that what is made of them stays in the cache: a multiple of what a generator's kernel
fills at once."""

_COLUMNS_ELSEWHERE = 1 << 22
"""The same on an accelerator, where each part costs the start of its kernels."""


@register_combiner("graddrop")
class GradDrop(JacobianCombiner):
    """GradDrop: at each coordinate only the gradients of one sign survive, drawn by how much of it there is.

    At each coordinate, with ``P = (1 + sum_k g_k / sum_k |g_k|) / 2`` and ``u`` drawn uniformly from [0, 1): if
    ``P > u`` the positive entries stay and the negative ones are dropped, else the other way round. What is left is
    added: ``d = sum_k (leak_k + (1 - leak_k) M_k) g_k`` with ``M_k`` the 0/1 mask.

    Chen et al., "Just pick a sign: optimizing deep multitask models with gradient sign dropout", NeurIPS 2020, with
    the identity for its function f. The paper drops at the shared activations Z, on ``sign(Z) g`` summed over the
    batch (LibMTL does only that); on parameters, where this works, the gradients are already summed over the batch and
    have no activation to go with (the authors of CAGrad and SDMGrad do this, and take the mean over k instead of the
    sum). For the same reason the rule does not take gradients of a representation.

    Where all entries have one sign nothing is dropped: without a conflict the direction is the sum of the gradients,
    K times that of ``linear``. On average over ``u`` it is ``P`` times the positive part plus ``1 - P`` times the
    negative part.

    Args:
        leak: share of a gradient that passes undropped, in [0, 1]: one number, or one an objective. 0 is the paper's
            default, 1 the plain sum.
        seed: of ``u``, drawn anew in each step: D numbers, on the CPU, so that all ranks draw the same.
        generator: a CPU generator to draw from instead of the rule's own.
    """

    features = False
    stochastic = True
    stateful = True
    search_space = {"leak": ("uniform", 0.0, 0.9)}  # noqa: RUF012  (a class-level constant)
    state = ("_random",)

    def __init__(
        self, *, leak: float | Sequence[float] = 0.0, seed: int = 0, generator: torch.Generator | None = None
    ) -> None:
        values = torch.as_tensor(leak, dtype=torch.float64)
        if values.ndim > 1 or not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(f"leak must be a number in [0, 1], or one an objective, found {leak!r}")
        self.leak, self.seed, self.generator = leak, seed, generator
        self._random = rule_generator(seed, generator)

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The sum of what is not dropped: (D,) for a Jacobian (K, D)."""
        leaks = torch.tensor(self._leaks(len(jacobian)), dtype=torch.float64)
        direction = jacobian.new_empty(jacobian.shape[1])
        columns = _COLUMNS if jacobian.is_cpu else _COLUMNS_ELSEWHERE
        wide = torch.promote_types(jacobian.dtype, torch.float32)
        part = jacobian.new_empty(len(jacobian) * min(columns, len(direction)), dtype=wide)
        for block, out in zip(torch.split(jacobian, columns, 1), torch.split(direction, columns), strict=True):
            # numbers that are drawn in parts are those that are drawn at once
            drawn = torch.rand(len(out), generator=self._random, dtype=torch.float32).to(out.device)
            out.copy_(_dropped(block.to(wide), leaks, drawn, part[: block.numel()].view(block.shape)))
        return direction

    def _leaks(self, count: int) -> list[float]:
        """The leak of each row of this step."""
        objectives, total = self.objectives_of_rows(count)
        values = torch.as_tensor(self.leak, dtype=torch.float64)
        if values.ndim == 0:
            return [float(values)] * count
        if len(values) != total:
            raise ValueError(f"leak has {len(values)} entries for {total} objectives; give one entry per objective")
        return [float(values[k]) for k in objectives]


def _dropped(block: torch.Tensor, leaks: torch.Tensor, drawn: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """The sum of what is not dropped of some columns (K, n); ``part`` is as large, and written over."""
    torch.clamp(block, min=0, out=part)
    positive = part.sum(0)
    alike = bool((leaks == leaks[0]).all())
    factors = None if alike else (1.0 - leaks)[:, None].to(block)
    kept_positive = positive if factors is None else part.mul_(factors).sum(0)
    torch.clamp(block, max=0, out=part)
    negative = part.sum(0)
    kept_negative = negative if factors is None else part.mul_(factors).sum(0)
    # P = positive / (positive + |negative|), which needs no epsilon; where both are zero either choice gives zero
    upward = torch.gt(positive, (positive - negative).mul_(drawn)).logical_or_(negative == 0)
    kept = torch.where(upward, kept_positive, kept_negative)
    if factors is not None:
        torch.mul(block, leaks[:, None].to(block), out=part)
        return kept.add_(part.sum(0))
    leak = float(leaks[0])
    return kept if leak == 0.0 else kept.mul_(1.0 - leak).add_(positive.add_(negative), alpha=leak)
