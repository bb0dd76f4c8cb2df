"""Multi-normalised gradients: every row and every column of a matrix brought to one length."""

from __future__ import annotations

import torch

from mtopt.combiners._base import Combiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._wrapper import Wrapper
from mtopt.linalg import CHUNK, Gradients


def sinkhorn_normalized(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """SR-Sinkhorn: rows of norm sqrt(n) and columns of norm sqrt(m) for an (m, n) matrix, by turns.

    ``X <- sqrt(n) diag(1 / ||X_i.||) X``, then ``X <- sqrt(m) X diag(1 / ||X_.j||)``, ``iterations`` times: Sinkhorn's
    scaling of the squared entries. The columns are exact at the end, the rows nearly so; the Frobenius norm is sqrt(m
    n), and positive factors on ``matrix`` do not matter.

    Scetbon, Ma, Gong and Meeds, "Gradient multi-normalization for efficient LLM training", NeurIPS 2025 (arXiv
    2502.06742). Some code leaves sqrt(n) and sqrt(m) out, which changes the learning rate by that factor.

    Args:
        matrix: any shape. Of three dimensions or more, such as a convolution's weight, all but the first are joined
            into the columns. A vector or a scalar has no rows and columns; it is brought to root mean square one
            (alternating would leave nothing but signs).
        iterations: default 5, the paper's.

    Returns:
        The same shape; float32 where ``matrix`` has 16 bits. A zero row, column or matrix stays zero.
    """
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    values = matrix.to(dtype)
    if matrix.numel() == 0:
        return values
    if matrix.ndim < 2 or min(matrix.shape[0], matrix[0].numel()) == 1:
        return _to_norm(values.reshape(1, -1), matrix.numel() ** 0.5, dim=1).reshape(matrix.shape)
    values = values.reshape(len(matrix), -1)
    rows, columns = values.shape
    for _ in range(iterations):
        values = _to_norm(values, columns**0.5, dim=1)
        values = _to_norm(values, rows**0.5, dim=0)
    return values.reshape(matrix.shape)


def _to_norm(values: torch.Tensor, norm: float, *, dim: int) -> torch.Tensor:
    """Each vector along ``dim`` at the given norm; by its largest entry first, so that no square overflows."""
    largest = values.abs().amax(dim, keepdim=True)
    values = values / torch.where(largest > 0, largest, 1.0)
    # sums are made in pairs, which is exact enough but for those of very many
    norms = values.square().sum(dim, keepdim=True, dtype=torch.float64 if values.shape[dim] > CHUNK else None).sqrt()
    return values * (norm / torch.where(norms > 0, norms, 1.0)).to(values.dtype)


class MultiNormalized(Wrapper):
    """The rule's direction for gradients whose matrices are multi-normalised: rows and columns of one length each.

    Each parameter's part of each gradient goes through :func:`sinkhorn_normalized`, so no loss, layer, row or column
    outweighs another, and the rule combines what comes out; its weights are those of the normalised gradients.
    ``MultiNormalized(Linear(reduction="sum"))`` is NGDiff with this normaliser in place of the l2 norm,
    ``sum_k S(g_k)``, whose entries are about one: its rate is an Adam's, not an SGD's. ``MultiNormalized(NGDiff())``
    divides that by the square root of the number of parameters: a direction as long as NGDiff's.

    Scetbon et al., arXiv 2502.06742, for one gradient (:class:`mtopt.training.SinkGD`).

    Args:
        rule: a rule on the gradients of one mini-batch.
        iterations: of the alternation. Default: 5.

    K gradients are needed in every step, by parameter: use :func:`mtopt.backward`. A Jacobian's rows are vectors, which
    get root mean square one. A task's head gets its own raw gradient unless ``private="combined"`` counts it as shared.
    The step's record has no weights, as there are none for the raw gradients.
    """

    def __init__(self, rule: Combiner, iterations: int = 5) -> None:
        super().__init__(rule)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"iterations must be a positive int, found {iterations!r}")
        if rule.draws > 1:
            raise ValueError(f"{rule!r} weighs a draw it has not seen; MultiNormalized needs the gradients themselves")
        self.iterations = iterations
        self._declare(
            needs="jacobian", features=False, on_features=False, weighted=False, non_conflicting=False, homogeneous=True
        )
        self._declare(scale_invariant=rule.needs != "losses")

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        rows = [[sinkhorn_normalized(tensor, self.iterations) for tensor in row] for row in gradients.rows]
        normalized = Gradients(rows, objectives=gradients.objectives, total=gradients.total, places=gradients.places)
        outcome = self.rule.combine(normalized, losses)
        self.certificate = self.rule.certificate
        if outcome.direction is not None:
            return Outcome(None, outcome.direction)
        assert outcome.weights is not None
        return Outcome(None, torch.cat([piece.reshape(-1) for piece in normalized.combined(outcome.weights)]))
