"""Rules that have to tell a zero eigenvalue from a small one."""

from __future__ import annotations

import torch

from mtopt.combiners._base import GramianCombiner


class RankCombiner(GramianCombiner):
    """A Gramian rule that decides the rank of the gradients, and so must know how exact their inner products are."""

    def _rank_tolerance(self, gramian: torch.Tensor) -> float:
        """The share of the largest eigenvalue, for unit gradients, that counts as zero."""
        return self._precision(gramian).rank_share(len(gramian))
