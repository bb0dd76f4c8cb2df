"""Multi-normalised gradients: every row and every column of a matrix brought to one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from mtopt.combiners._base import Combiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._wrapper import Wrapper, require_seen
from mtopt.linalg import CHUNK, Gradients


def multi_normalized(
    matrix: torch.Tensor, norms: Sequence[Norm] = ("row", "column"), iterations: int = 5
) -> torch.Tensor:
    """MNGD's normalisation: a matrix brought to the greatest size in several norms, by turns.

    For each norm N of ``norms``, ``X <- argmax_{N(U) <= N_0} <X, U>``, ``iterations`` rounds of them, with N_0 such
    that the Frobenius norm of an (m, n) matrix becomes sqrt(m n):

    - ``"row"``, ``"column"``: each row of norm sqrt(n), each column of norm sqrt(m);
    - ``"spectral"``: all singular values equal, ``U V'`` of ``X = U S V'`` (whitening);
    - ``"max"``: all entries of modulus one, the sign;
    - ``"frobenius"``: the length alone.

    ``("row", "column")`` is SinkGD, and ``("row", "spectral")`` with one iteration SWAN. Scetbon, Ma, Gong and Meeds,
    "Gradient multi-normalization for efficient LLM training", NeurIPS 2025 (arXiv 2502.06742). Some code leaves sqrt(n)
    and sqrt(m) out, which changes the learning rate by that factor. SWAN's code takes the whitening by Newton and
    Schulz; here it is a singular value decomposition.

    Args:
        matrix: any shape. Of three dimensions or more, such as a convolution's weight, all but the first are joined
            into the columns. A vector or a scalar has no rows and columns; it is brought to root mean square one
            (alternating would leave nothing but signs).
        norms: in their order; the last holds exactly at the end.
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
    for _ in range(iterations):
        for norm in norms:
            values = _PROJECTIONS[norm](values)
    return values.reshape(matrix.shape)


def sinkhorn_normalized(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """SR-Sinkhorn: :func:`multi_normalized` by rows and columns, Sinkhorn's scaling of the squared entries."""
    return multi_normalized(matrix, ("row", "column"), iterations)


def check_norms(norms: Sequence[Norm]) -> None:
    """Raise ValueError unless ``norms`` names one or more of the norms."""
    if isinstance(norms, str) or not norms or not set(norms) <= set(_PROJECTIONS):
        raise ValueError(f"norms must hold one or more of {list(_PROJECTIONS)}, found {norms!r}")


def _whitened(values: torch.Tensor) -> torch.Tensor:
    """``U V'`` at the Frobenius norm sqrt(m n); directions that are rounding alone are left out."""
    scaled = values / values.abs().amax().clamp(min=torch.finfo(values.dtype).tiny)
    left, sizes, right = torch.linalg.svd(scaled, full_matrices=False)
    kept = sizes > max(values.shape) * torch.finfo(values.dtype).eps * sizes[0]
    return _to_norm(((left * kept) @ right).reshape(1, -1), values.numel() ** 0.5, dim=1).reshape(values.shape)


def _to_norm(values: torch.Tensor, norm: float, *, dim: int) -> torch.Tensor:
    """Each vector along ``dim`` at the given norm; by its largest entry first, so that no square overflows."""
    largest = values.abs().amax(dim, keepdim=True)
    values = values / torch.where(largest > 0, largest, 1.0)
    # sums are made in pairs, which is exact enough but for those of very many
    norms = values.square().sum(dim, keepdim=True, dtype=torch.float64 if values.shape[dim] > CHUNK else None).sqrt()
    return values * (norm / torch.where(norms > 0, norms, 1.0)).to(values.dtype)


Norm = Literal["row", "column", "spectral", "max", "frobenius"]

_PROJECTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "row": lambda values: _to_norm(values, values.shape[1] ** 0.5, dim=1),
    "column": lambda values: _to_norm(values, values.shape[0] ** 0.5, dim=0),
    "spectral": _whitened,
    "max": torch.sign,
    "frobenius": lambda values: _to_norm(values.reshape(1, -1), values.numel() ** 0.5, dim=1).reshape(values.shape),
}


class MultiNormalized(Wrapper):
    """The rule's direction for gradients whose matrices are multi-normalised: rows and columns of one length each.

    Each parameter's part of each gradient goes through :func:`multi_normalized`, so no loss, layer, row or column
    outweighs another, and the rule combines what comes out; its weights are those of the normalised gradients.
    ``MultiNormalized(Linear(reduction="sum"))`` is NGDiff with this normaliser in place of the l2 norm,
    ``sum_k S(g_k)``, whose entries are about one: its rate is an Adam's, not an SGD's. ``MultiNormalized(NGDiff())``
    divides that by the square root of the number of parameters: a direction as long as NGDiff's.

    Scetbon et al., arXiv 2502.06742, for one gradient (:class:`mtopt.training.SinkGD`).

    Args:
        rule: a rule on the gradients of one mini-batch.
        iterations: of the alternation. Default: 5.
        norms: default ``("row", "column")``; see :func:`multi_normalized`.

    K gradients are needed in every step, by parameter: use :func:`mtopt.backward`. A Jacobian's rows are vectors, which
    get root mean square one. A task's head gets its own raw gradient unless ``private="combined"`` counts it as shared.
    The step's record has no weights, as there are none for the raw gradients.
    """

    def __init__(self, rule: Combiner, iterations: int = 5, *, norms: Sequence[Norm] = ("row", "column")) -> None:
        super().__init__(rule)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"iterations must be a positive int, found {iterations!r}")
        check_norms(norms)
        require_seen(self, rule)
        self.iterations, self.norms = iterations, norms
        self._declare(
            needs="jacobian", features=False, on_features=False, weighted=False, non_conflicting=False, homogeneous=True
        )
        self._declare(scale_invariant=rule.needs != "losses", shardable=False)  # a matrix has to be whole

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        rows = [[multi_normalized(tensor, self.norms, self.iterations) for tensor in row] for row in gradients.rows]
        normalized = Gradients(rows, objectives=gradients.objectives, total=gradients.total, places=gradients.places)
        outcome = self.rule.combine(normalized, losses)
        self.certificate = self.rule.certificate
        if outcome.direction is not None:
            return Outcome(None, outcome.direction)
        assert outcome.weights is not None
        return Outcome(None, torch.cat([piece.reshape(-1) for piece in normalized.combined(outcome.weights)]))
