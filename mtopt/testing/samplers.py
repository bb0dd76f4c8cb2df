"""Jacobians to try a rule on, of known rank, scale and stationarity: the same for the same seed, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch


def generic(seed: int, rows: int, columns: int) -> torch.Tensor:
    """Independent normal entries: full rank, with and without conflicts."""
    return torch.randn(rows, columns, generator=_generator(seed), dtype=torch.float64)


def of_rank(seed: int, rows: int, columns: int, rank: int) -> torch.Tensor:
    """Rows in a random subspace of ``rank`` dimensions."""
    if not 0 <= rank <= min(rows, columns):
        raise ValueError(f"rank must be between 0 and {min(rows, columns)} for {rows} x {columns}, found {rank}")
    generator = _generator(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return left @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)


def stationary(seed: int, rows: int, columns: int, involved: int | None = None) -> torch.Tensor:
    """Pareto-stationary: a combination of the rows with positive weights, of ``involved`` of them or all, is zero."""
    involved = rows if involved is None else involved
    if not 1 <= involved <= rows:
        raise ValueError(f"involved must be between 1 and {rows} rows, found {involved}")
    generator = _generator(seed)
    jacobian = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    weights = 0.2 + torch.rand(involved, generator=generator, dtype=torch.float64)
    jacobian[involved - 1] = -(weights[:-1] @ jacobian[: involved - 1]) / weights[-1]
    return jacobian[torch.randperm(rows, generator=generator)]


def agreeing(seed: int, rows: int, columns: int) -> torch.Tensor:
    """No two rows conflict: all entries are non-negative."""
    return generic(seed, rows, columns).abs()


def conflicting(seed: int, rows: int, columns: int) -> torch.Tensor:
    """Rows that mostly point away from one another: their mean is a tenth of what it would be."""
    jacobian = generic(seed, rows, columns)
    return jacobian - 0.9 * jacobian.mean(0) if rows > 1 else jacobian


def opposite_pairs(seed: int, rows: int, columns: int, beside: int | None = None) -> torch.Tensor:
    """``a, -a, b, -b, ...``, and ``beside`` other rows (one where ``rows`` is odd): one gains what another loses."""
    beside = rows % 2 if beside is None else beside
    if not 0 <= beside <= rows or (rows - beside) % 2:
        raise ValueError(f"beside must leave an even number of {rows} rows for pairs, found {beside}")
    half = generic(seed, rows - (rows - beside) // 2, columns)
    pairs = half[: (rows - beside) // 2]
    return torch.cat([torch.stack([pairs, -pairs], 1).flatten(0, 1), half[len(pairs) :]])


def signs(seed: int, rows: int, columns: int) -> torch.Tensor:
    """Entries of 1 and -1: products without rounding, and many rows that are equal, opposite or dependent."""
    return 2.0 * torch.randint(2, (rows, columns), generator=_generator(seed)).double() - 1.0


def summing_to_zero(seed: int, rows: int, columns: int, involved: int | None = None) -> torch.Tensor:
    """Small whole numbers; ``involved`` of the rows (default: all) sum to zero, without rounding in any dtype."""
    involved = rows if involved is None else involved
    if not 1 <= involved <= rows:
        raise ValueError(f"involved must be between 1 and {rows} rows, found {involved}")
    jacobian = torch.randint(-3, 4, (rows, columns), generator=_generator(seed)).double()
    jacobian[involved - 1] = -jacobian[: involved - 1].sum(0)
    return jacobian


def repeated(seed: int, rows: int, columns: int, distinct: int | None = None) -> torch.Tensor:
    """``distinct`` rows (default: half of ``rows``), which come again with factors of 1/2, 1 or 2."""
    distinct = max(1, rows // 2) if distinct is None else distinct
    if not 1 <= distinct <= rows:
        raise ValueError(f"distinct must be between 1 and {rows}, found {distinct}")
    generator = _generator(seed)
    jacobian = torch.randn(distinct, columns, generator=generator, dtype=torch.float64)
    again = torch.randint(distinct, (rows - distinct,), generator=generator)
    factors = 2.0 ** torch.randint(-1, 2, (rows - distinct, 1), generator=generator).double()
    return torch.cat([jacobian, factors * jacobian[again]])


DEPENDENT: dict[str, Callable[[int, int, int], torch.Tensor]] = {
    "opposite pairs": opposite_pairs,
    "one pair beside others": lambda seed, rows, columns: opposite_pairs(seed, rows, columns, rows - 2),
    "rows of 1 and -1": signs,
    "rows that sum to zero": summing_to_zero,
    "a sum of zero beside another": lambda seed, rows, columns: summing_to_zero(seed, rows, columns, rows - 1),
    "a rounded sum of zero": stationary,
    "repeated rows": repeated,
}
"""Families of dependent rows, of two rows or more: where a Gramian is singular, and rounding looks like a gradient."""


def with_row_scales(jacobian: torch.Tensor, decades: float, seed: int = 0, *, exact: bool = False) -> torch.Tensor:
    """``jacobian`` with rows whose factors span ``10**-decades`` to ``10**decades``, in random order.

    With ``exact`` the factors are the nearest powers of two: multiples of one row stay so in every dtype.
    """
    rows = len(jacobian)
    factors = torch.logspace(-decades, decades, rows, dtype=torch.float64) if rows > 1 else torch.ones(1)
    factors = factors.log2().round().exp2() if exact else factors
    order = torch.randperm(rows, generator=_generator(seed))
    return jacobian * factors[order][:, None].to(jacobian)


def losses(seed: int, rows: int) -> torch.Tensor:
    """Positive loss values between 0.5 and 2."""
    return 0.5 + 1.5 * torch.rand(rows, generator=_generator(seed + 7919), dtype=torch.float64)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
