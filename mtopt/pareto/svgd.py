"""Stein variational descent for several objectives: a set of solutions that descend and keep apart."""

import math

import numpy as np
import torch

from mtopt._errors import NonFiniteError
from mtopt._real_numbers import require_real


def moo_svgd(
    points: torch.Tensor, jacobians: torch.Tensor, *, repulsion: float = 1.0, bandwidth: float | None = None
) -> torch.Tensor:
    """The MOO-SVGD direction of N solutions; an optimizer steps along minus it.

    ``d_i = 1/N sum_j [ k(F_i, F_j) J_j' w_j - repulsion J_j' dk(F_i, F_j)/dF_j ]`` with the Gaussian kernel
    ``k(F, G) = exp(-||F - G||^2 / h)`` of the objective values and the min-norm (MGDA) weights ``w_j`` of solution j.
    The first term moves a solution down together with those near it on the front, the second one keeps it apart
    from them. Both carry the gradients of one solution over to another, in the same coordinates: solutions should
    start near each other (copies of one model with small changes, not unrelated models).

    Liu, Tong and Liu, "Profiling Pareto front with multi-objective Stein variational gradient descent", NeurIPS 2021.
    The median heuristic is ``h = median^2 / log N`` over the distances between pairs of objective vectors. libmoon
    multiplies by h where the kernel divides by it, and its kernel is the identity: no solution sees another.

    Args:
        points: (N, K) objective values, minimised.
        jacobians: (N, K, D), row k of entry i the gradient of objective k at solution i.
        repulsion: how strongly the solutions keep apart, >= 0. The first term fades as they come to the front, and the
            second does not, so at 1, the formula of the paper, some are driven off it; smaller values bring them down.
        bandwidth: h > 0. Default: the median heuristic. Where at least half of the pairs coincide the median is zero,
            and the mean distance is taken instead; where all do, they are one solution, and nothing drives it apart.

    Returns:
        (N, D), in the dtype and on the device of ``jacobians``.

    Raises:
        ValueError: a wrong shape, fewer than two solutions, a negative repulsion, or a bandwidth that is not positive.
        NonFiniteError: NaN or infinity.
        SolverError: the MGDA weights could not be certified.
    """
    from mtopt.linalg import gramian_of
    from mtopt.solvers import min_norm

    if jacobians.ndim != 3 or points.shape != jacobians.shape[:2] or jacobians.numel() == 0:
        raise ValueError(
            "jacobians must have shape (N, K, D) and points (N, K), found "
            f"{tuple(jacobians.shape)} and {tuple(points.shape)}"
        )
    if len(points) < 2:
        raise ValueError("points must hold at least two solutions, found one; MGDA is the rule for one")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, found {bandwidth}")
    if not repulsion >= 0:
        raise ValueError(f"repulsion must be non-negative, found {repulsion}")
    require_real("points", points)
    require_real("jacobians", jacobians)
    rows, values = jacobians.detach(), points.detach().to("cpu", torch.float64)
    gramians = [gramian_of(one) for one in rows]
    bad = [
        i
        for i, gramian in enumerate(gramians)
        if not bool(values[i].isfinite().all() and gramian.diagonal().isfinite().all())
    ]
    if bad:
        raise NonFiniteError(f"solutions {bad} hold NaN or infinity in points or jacobians; drop them or skip the step")
    down = torch.stack([torch.from_numpy(np.asarray(min_norm(gramian)[0])) for gramian in gramians])
    kernel, slopes = _kernel(values, bandwidth)
    # coefficients of gradient k of solution j in the direction of solution i
    mixed = (kernel[..., None] * down - repulsion * slopes) / len(values)
    flat = mixed.reshape(len(values), -1).to(rows)
    return flat @ rows.reshape(flat.shape[1], -1)


def _kernel(values: torch.Tensor, bandwidth: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """k(F_i, F_j), (N, N), and its derivative by F_j, (N, N, K)."""
    differences = values[:, None] - values
    squares = differences.square().sum(-1)
    h = _median_heuristic(squares) if bandwidth is None else bandwidth
    kernel = torch.exp(-squares / h)
    return kernel, kernel[..., None] * differences * (2 / h)


def _median_heuristic(squares: torch.Tensor) -> float:
    count = len(squares)
    pairs = squares[tuple(torch.triu_indices(count, count, 1))].sqrt()
    typical = float(pairs.quantile(0.5)) or float(pairs.mean())
    return typical**2 / math.log(count) or 1.0  # any value will do where all solutions coincide
