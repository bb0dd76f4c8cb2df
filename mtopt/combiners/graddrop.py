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

    At each coordinate, with ``P = (1 + sum_k g_k / sum_k |g_k|) / 2`` and ``u`` drawn uniformly from (0, 1): if
    ``P >= u`` the positive entries stay and the negative ones are dropped, else the other way round. What is left is
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
        leak: share of a gradient that passes undropped, in [0, 1]: one number, or one per objective. 0 is the paper's
            default, 1 the plain sum.
        seed: of ``u``, drawn anew in each step: D numbers of 16 bits, on the CPU, so that all ranks draw the same.
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
            raise ValueError(f"leak must be a number in [0, 1], or one per objective, found {leak!r}")
        self.leak, self.seed, self.generator = leak, seed, generator
        self._random = rule_generator(seed, generator)

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The sum of what is not dropped: (D,) for a Jacobian (K, D)."""
        leaks = self._leaks(len(jacobian))
        direction = jacobian.new_empty(jacobian.shape[1])
        columns = _COLUMNS if jacobian.is_cpu else _COLUMNS_ELSEWHERE
        wide = torch.promote_types(jacobian.dtype, torch.float32)
        passing = jacobian.new_tensor(leaks, dtype=wide) if any(leaks) else None
        parts = _Parts(jacobian.new_empty((len(jacobian) + 3) * min(columns, len(direction)), dtype=wide))
        for block, out in zip(torch.split(jacobian, columns, 1), torch.split(direction, columns), strict=True):
            out.copy_(parts.drop(block.to(wide), passing, self._draw(len(out)).to(out.device)))
        return direction

    def _draw(self, columns: int) -> torch.Tensor:
        """``1 - u`` for each column, four of one number: drawn in parts they are those that are drawn at once."""
        bits = torch.empty(-(-columns // 4), dtype=torch.int64).random_(-(2**63), None, generator=self._random)
        return bits.view(torch.int16)[:columns].float().add_(2**15 + 0.5).div_(2**16)

    def _leaks(self, count: int) -> list[float]:
        """The leak of each row of this step."""
        objectives, total = self.objectives_of_rows(count)
        values = torch.as_tensor(self.leak, dtype=torch.float64)
        if values.ndim == 0:
            return [float(values)] * count
        if len(values) != total:
            raise ValueError(f"leak has {len(values)} entries for {total} objectives; give one entry per objective")
        return [float(values[k]) for k in objectives]


class _Parts:
    """Room for what is made of some columns: memory that is taken anew for each block costs more than its numbers."""

    def __init__(self, room: torch.Tensor) -> None:
        self.room = room

    def drop(self, block: torch.Tensor, leaks: torch.Tensor | None, drawn: torch.Tensor) -> torch.Tensor:
        """The sum of what is not dropped of some columns (K, n), until the next call; ``drawn`` is ``1 - u``."""
        rows, columns = block.shape
        parts = self.room[: (rows + 3) * columns].view(rows + 3, columns)
        part, positive, negative, downward = parts[:rows], parts[rows], parts[rows + 1], parts[rows + 2]
        torch.sum(torch.clamp(block, min=0, out=part), 0, out=positive)
        kept_positive = positive if leaks is None else (1.0 - leaks) @ part
        torch.sum(torch.clamp(block, max=0, out=part), 0, out=negative)
        kept_negative = negative if leaks is None else (1.0 - leaks) @ part
        # P < u where (1 - u) (positive + |negative|) < |negative|, which needs no epsilon: there 1, elsewhere 0
        torch.gt(torch.sub(negative, positive, out=downward).mul_(drawn), negative, out=downward)
        upward = torch.sub(1.0, downward, out=part[0])
        kept = kept_positive.mul_(upward).addcmul_(kept_negative, downward)
        return kept if leaks is None else kept.add_(leaks @ block)
