"""SinkGD: gradient descent with multi-normalised gradients, without a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from mtopt.combiners import Norm, check_norms, multi_normalized
from mtopt.training._optimizer import GradientStep


class SinkGD(GradientStep):
    """``W <- W - lr (S(G) + weight_decay W)``, S(G) the gradient with rows of norm sqrt(n) and columns of norm sqrt(m).

    S is SR-Sinkhorn, :func:`mtopt.combiners.sinkhorn_normalized`. There is no state: memory is that of SGD
    without momentum, and a step has the length ``lr sqrt(m n)`` whatever the gradient's, so lr is an Adam's.

    Scetbon, Ma, Gong and Meeds, "Gradient multi-normalization for efficient LLM training", NeurIPS 2025 (arXiv
    2502.06742). The paper uses it for the two-dimensional weights of linear layers, at 0.05 times a rate of 2e-2, and
    Adam for embeddings, norms and the head; give those to an optimizer of their own to do the same. Here convolutions
    are matrices of (out, everything else), and vectors and scalars are brought to root mean square one.

    Args:
        params: parameters or groups.
        lr: learning rate. Default: 1e-3, the paper's for linear layers.
        iterations: of SR-Sinkhorn. Default: 5.
        norms: others than those of rows and columns, see :func:`mtopt.combiners.multi_normalized`: SWAN is
            ``norms=("row", "spectral"), iterations=1``.
        weight_decay: decoupled, as AdamW's. Default: 0.

    A zero row or column of the gradient gets no step, and parameters without a gradient are left alone.

    Raises:
        ValueError: a negative rate or decay, or no iteration.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        *,
        iterations: int = 5,
        weight_decay: float = 0.0,
        norms: Sequence[Norm] = ("row", "column"),
    ) -> None:
        if not float(lr) >= 0.0:
            raise ValueError(f"lr must not be negative, found {lr!r}")
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"iterations must be a positive int, found {iterations!r}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay must not be negative, found {weight_decay!r}")
        check_norms(norms)
        defaults = {"lr": lr, "iterations": iterations, "weight_decay": weight_decay, "norms": tuple(norms)}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # written before there were others
            group.setdefault("norms", ("row", "column"))

    def update(self) -> None:
        """Step along the normalised gradients. Sparse ones are refused."""
        for group in self.param_groups:
            rate = float(group["lr"])
            for param in group["params"]:
                if param.grad is None:
                    continue
                if param.grad.is_sparse:
                    raise RuntimeError("SinkGD needs dense gradients; give sparse embeddings to torch.optim.SparseAdam")
                update = multi_normalized(param.grad, group["norms"], group["iterations"])
                if group["weight_decay"]:
                    param.mul_(1.0 - rate * group["weight_decay"])
                param.add_(update.to(param.dtype), alpha=-rate)
