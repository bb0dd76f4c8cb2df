"""Every convex rule on a thousand drawn Gramians whose rows span twelve decades: optimal to 1e-10.

The residuals are computed here, from the weights that come out and the Gramian that went in: in unit gradients, which
is the program with its diagonal scaled, in extended precision, and relative to the moduli of what is added up. Where an
optimality condition squares what cancels, a change of the cosines by some roundings of float64 is left out of it: no
answer could be held to digits that the Gramian does not have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from mtopt.combiners import (
    EPO,
    FERERO,
    GEM,
    IMTLG,
    MGDA,
    PCD,
    PMGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    NashMTL,
    UPGrad,
)
from mtopt.solvers import project_rows
from mtopt.testing import samplers
from tests.solvers.helpers import Array

DRAWS = 1000
DECADES = 6.0  # from 1e-6 to 1e6
ALLOWED = 1e-10
ROUNDING = 16.0 * float(np.finfo(np.float64).eps)


def parallel(seed: int, rows: int, columns: int) -> torch.Tensor:
    """One direction, but for parts between 1e-2 and 1e-10 of its length."""
    apart = 10.0 ** -(2.0 + seed % 9)
    return samplers.generic(seed, 1, columns) + apart * samplers.generic(seed + 1, rows, columns)


def opposite(seed: int, rows: int, columns: int) -> torch.Tensor:
    """The same with every other row turned round."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(rows)[:rows]
    return signs[:, None] * parallel(seed, rows, columns)


KINDS: tuple[Callable[[int, int, int], torch.Tensor], ...] = (
    samplers.generic,
    samplers.conflicting,
    samplers.agreeing,
    lambda seed, rows, columns: samplers.of_rank(seed, rows, columns, max(1, rows // 2)),
    samplers.stationary,
    parallel,
    opposite,
    lambda seed, rows, columns: samplers.generic(seed, rows, max(1, rows - 1)),
)
FULL_RANK = (samplers.generic, samplers.conflicting, samplers.agreeing)


def drawn(
    kinds: tuple[Callable[[int, int, int], torch.Tensor], ...] = KINDS, most: int = 8
) -> Iterator[tuple[int, torch.Tensor]]:
    """Seeds and Gramians of two to ``most`` gradients, of every kind in turn."""
    for seed in range(DRAWS):
        rows = 2 + (seed // len(kinds)) % (most - 1)
        jacobian = samplers.with_row_scales(kinds[seed % len(kinds)](seed, rows, 2 * rows), DECADES, seed)
        yield seed, jacobian @ jacobian.T


class Scaled:
    """A Gramian in unit gradients, in extended precision: cosines C, norms s over the least one, and ``x = s w``."""

    def __init__(self, gramian: torch.Tensor) -> None:
        matrix = gramian.numpy().astype(np.longdouble)
        norms = np.sqrt(matrix.diagonal())
        self.cosines = matrix / norms / norms[:, None]
        self.norms = norms / norms.min()
        self.shortest = norms.min()

    def terms(self, weights: torch.Tensor | Array) -> Array:
        return np.asarray(weights, dtype=np.longdouble) * self.norms


# -- the optimality conditions ------------------------------------------------------------------------------------


def min_norm(scaled: Scaled, weights: torch.Tensor) -> float:
    """``(G w)_k >= w' G w`` over the simplex."""
    vector = scaled.terms(weights)
    slopes, size = scaled.cosines @ vector, vector.sum()
    value = vector @ slopes - ROUNDING * size**2
    outside = max(float(-weights.min()), abs(float(weights.sum()) - 1.0))
    return max(float((value / scaled.norms - slopes).max() / size), outside)


def projection(scaled: Scaled, start: Array, weights: torch.Tensor | Array, fixed: int | None = None) -> float:
    """``v >= u``, ``(G v)_k >= 0``, and equality in one of the two; row ``fixed`` keeps ``v = u`` and may have any."""
    vector = scaled.terms(weights)
    added = vector - scaled.terms(start)
    size = np.abs(vector).sum()
    slopes = scaled.cosines @ vector
    chosen = np.arange(len(vector)) != fixed
    # what is added below the rounding of the sum is not there
    positive = added > ROUNDING * np.abs(vector)
    missed = np.where(positive, np.abs(slopes), -slopes)[chosen].max()
    stays = np.where(chosen, -added, np.abs(added)).max()
    return float(max(missed, stays) / size)


def conflict_averse(scaled: Scaled, weights: torch.Tensor, radius: float) -> float:
    """In the ball, with the worst loss falling as fast as the dual's value at the w that the weights came from.

    Where no loss can be made to fall: the projection of the mean on the dual cone, in the ball.
    """
    count = len(weights)
    mean = np.full(count, 1.0 / count)
    vector = scaled.terms(weights)
    added = np.maximum(scaled.terms(weights) - scaled.terms(mean), 0.0)
    size, slopes = np.abs(vector).sum(), scaled.cosines @ vector
    bound = radius**2 * (scaled.terms(mean) @ scaled.cosines @ scaled.terms(mean))
    reach = added @ scaled.cosines @ added
    outside = float(max(reach - bound - ROUNDING * size**2, 0.0) / size**2)
    total = (added / scaled.norms).sum()
    if total > 0.0:
        worst = added @ slopes / total
        # the mean's share has been taken off again: each of the terms is only known to the rounding of the sum
        unknown = ROUNDING * (vector @ np.abs(slopes) + size * added.sum()) / total
        inside = float(max(bound - reach - ROUNDING * size**2, 0.0) / size**2)
        missed = float(((worst - unknown) / scaled.norms - slopes).max() / size)
        best = max(missed, inside)
    else:
        best = float("inf")
    return max(outside, min(best, projection(scaled, mean, weights)))


def stationary_to_rounding(cosines: Array) -> bool:
    """Whether a combination of the unit gradients, with non-negative weights, vanishes as far as the Gramian knows."""
    values, vectors = np.linalg.eigh(cosines.astype(np.float64))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    weights, _ = nnls(np.vstack([root, np.ones(len(root))]), np.append(np.zeros(len(root)), 1.0))
    combination = root @ (weights / weights.sum())
    return float(combination @ combination) <= 1e-13


def alpha_fair(scaled: Scaled, weights: torch.Tensor, alpha: float) -> float:
    """``w_k (G w)_k = w_k**(1 - 1/alpha)``; where there is no such w, those of the shortest combination."""
    if bool((weights > 0.0).all()):
        vector = scaled.terms(weights) * scaled.shortest
        wanted = weights.numpy().astype(np.longdouble) ** (1.0 - 1.0 / alpha)
        size = wanted + vector * (np.abs(scaled.cosines) @ vector)
        residual = float((np.abs(vector * (scaled.cosines @ vector) - wanted) / size).max())
        if residual <= ALLOWED:
            return residual
    return min_norm(scaled, weights / weights.sum()) if stationary_to_rounding(scaled.cosines) else float("inf")


def equal_projections(scaled: Scaled, weights: torch.Tensor) -> float:
    """``C x`` is a multiple of what of (1, ..., 1) the gradients span, ``C (1 - C x / c) = 0``."""
    vector = scaled.terms(weights)
    found = scaled.cosines @ vector
    reach = np.abs(scaled.cosines) @ np.abs(vector)
    if len(vector) == 2 or not vector.any():
        return float(abs(found[0] - found[-1]) / max(reach.max(), 1e-300))
    factor = (found @ found) / found.sum()
    missed = scaled.cosines @ (1.0 - found / factor)
    return float(np.abs(missed).max() / (1.0 + (reach / abs(factor)).max()))


# -- the rules ----------------------------------------------------------------------------------------------------


def test_mgda() -> None:
    rule = MGDA()
    assert max(min_norm(Scaled(gramian), rule.weights(gramian)) for _, gramian in drawn()) <= ALLOWED


def test_upgrad() -> None:
    """The K projections one by one, and the rule's answer as their mean."""
    worst = 0.0
    for _, gramian in drawn(most=6):
        scaled, projections = Scaled(gramian), project_rows(gramian)[0]
        rows = zip(np.eye(len(gramian)), projections, strict=True)
        worst = max(worst, *(projection(scaled, unit, row) for unit, row in rows))
        torch.testing.assert_close(UPGrad().weights(gramian).numpy(), projections.mean(axis=0), rtol=1e-14, atol=0.0)
    assert worst <= ALLOWED


def test_dualproj() -> None:
    rule = DualProj()
    residuals = (
        projection(Scaled(gramian), np.full(len(gramian), 1.0 / len(gramian)), rule.weights(gramian))
        for _, gramian in drawn()
    )
    assert max(residuals) <= ALLOWED


def test_gem() -> None:
    rule = GEM()
    residuals = (
        projection(Scaled(gramian), np.eye(len(gramian))[0], rule.weights(gramian), fixed=0) for _, gramian in drawn()
    )
    assert max(residuals) <= ALLOWED


@pytest.mark.parametrize("radius", [0.4, 1.5])
def test_cagrad(radius: float) -> None:
    rule = CAGrad(c=radius)
    assert max(conflict_averse(Scaled(gramian), rule.weights(gramian), radius) for _, gramian in drawn()) <= ALLOWED


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_nash_mtl_and_fairgrad(alpha: float) -> None:
    rule = NashMTL() if alpha == 1.0 else FairGrad(alpha=alpha)
    assert max(alpha_fair(Scaled(gramian), rule.weights(gramian), alpha) for _, gramian in drawn()) <= ALLOWED


@pytest.mark.parametrize("rule", [ConFIG(), IMTLG()])
def test_config_and_imtl_g(rule: ConFIG | IMTLG) -> None:
    assert max(equal_projections(Scaled(gramian), rule.weights(gramian)) for _, gramian in drawn()) <= ALLOWED


def test_aligned_mtl() -> None:
    """``B G B = sigma²`` for the symmetric matrix B whose columns are the answers to unit vectors."""
    worst = 0.0
    for _, gramian in drawn(FULL_RANK, most=5):
        scaled = Scaled(gramian)
        rules = (AlignedMTL(preference=unit.tolist()) for unit in torch.eye(len(gramian)))
        matrix = torch.stack([rule.weights(gramian) for rule in rules], dim=1).numpy()
        factors = scaled.terms(matrix)  # B diag(s)
        product = factors @ scaled.cosines @ factors.T
        product /= product.diagonal().mean()
        worst = max(worst, float(np.abs(product - np.eye(len(gramian))).max()))
        worst = max(worst, float(np.abs(matrix - matrix.T).max() / np.abs(matrix).max()))
        # of the eigenvalues of B the largest is one: sigma is the smallest singular value, not another
        worst = max(worst, abs(float(np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[-1]) - 1.0))
    assert worst <= ALLOWED


def test_pcd() -> None:
    """The nearest to the primary with ``n_j . d >= tau ||n_j||²``: every step is the first, so all n have length 1."""
    tau, worst = 0.02, 0.0
    for _, gramian in drawn():
        scaled = Scaled(gramian)
        weights = PCD(tau=tau).weights(gramian).numpy()
        if stationary_to_rounding(scaled.cosines) or stationary_to_rounding(scaled.cosines[1:, 1:]):
            continue  # the demands may be incompatible, or the direction zero
        vector = scaled.terms(weights) / (scaled.norms[0] * weights[0])  # the primary's share is one
        slopes = scaled.cosines @ vector - tau
        missed = np.where(vector > 0.0, np.abs(slopes), -slopes)[1:]
        worst = max(worst, float(missed.max() / vector.sum()), float(-vector.min()))
    assert worst <= ALLOWED


def test_ferero() -> None:
    """``J d = y + kappa u``, with the slope of the objective's linear part at kappa."""
    worst = 0.0
    for seed, gramian in drawn(FULL_RANK, most=6):
        count = len(gramian)
        losses = samplers.losses(seed, count)
        weights = FERERO(c_h=0.5).weights(gramian, losses)
        ray = np.full(count, np.longdouble(count) ** -0.5)
        values = losses.numpy().astype(np.longdouble)
        target = 0.5 * (values - (values @ ray) * ray)
        norms = np.sqrt(gramian.numpy().diagonal().astype(np.longdouble))
        vector = weights.numpy() * norms
        scaled = Scaled(gramian)
        rates = norms * (scaled.cosines @ vector)
        sizes = norms * (np.abs(scaled.cosines) @ np.abs(vector)) + np.abs(target)
        best = int(sizes.argmin())
        kappa = (rates[best] - target[best]) / ray[best]
        missed = np.abs(rates - target - kappa * ray) / (sizes + sizes[best])
        # equal preferences: all slopes of the minimum are the same, and u . w is it
        slope = abs((ray * weights.numpy()).sum() - ray[0]) / (np.abs(ray * weights.numpy()).sum() + ray[0])
        worst = max(worst, float(missed.max()), float(slope))
    assert worst <= ALLOWED


# -- linear programs, against all their vertices in exact arithmetic ----------------------------------------------

Row = list[Fraction]


def exact(values: Array) -> Row:
    return [Fraction(float(value)) for value in values]


def dot(first: Row, second: Row) -> Fraction:
    return sum((a * b for a, b in zip(first, second, strict=True)), Fraction(0))


def whole(row: Row) -> list[int]:
    """``row`` times a power of two that makes it whole."""
    scale = max(entry.denominator for entry in row)
    return [int(entry * scale) for entry in row]


def crossing(table: list[list[int]]) -> list[int] | None:
    """``[x, 1]`` times a positive number, for ``rows . x = right`` with the right-hand side in the last column.

    By elimination without fractions; None where the system is singular.
    """
    table, size, last = [list(row) for row in table], len(table), 1
    for column in range(size):
        pivot = next((k for k in range(column, size) if table[k][column]), None)
        if pivot is None:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        line, entry = table[column], table[column][column]
        for k in range(size):
            if k != column:
                factor = table[k][column]
                table[k] = [(entry * a - factor * b) // last for a, b in zip(table[k], line, strict=True)]
        last = entry
    sign = 1 if last > 0 else -1
    return [sign * row[-1] for row in table] + [sign * last]


def best_vertex(objective: Row, rows: list[Row], bounds: Row, edge: Row) -> Fraction | None:
    """The largest ``c . x`` over ``A x >= b`` and ``e . x = 1``; None where there is no such x."""
    best = None
    lines = [whole([*row, bound]) for row, bound in zip(rows, bounds, strict=True)]
    first = whole([*edge, Fraction(1)])
    for chosen in itertools.combinations(lines, len(objective) - 1):
        found = crossing([first, *chosen])
        if found is None:
            continue
        point, unit = found[:-1], found[-1]
        if all(sum(a * x for a, x in zip(line, point, strict=False)) >= line[-1] * unit for line in lines):
            value = dot(objective, [Fraction(x, unit) for x in point])
            best = value if best is None else max(best, value)
    return best


def program_residual(objective: Row, rows: list[Row], bounds: Row, edge: Row, point: Row) -> float:
    """By how much ``point`` misses a row or the best value, over the moduli of the terms."""

    def relative(missed: Fraction, terms: Row, other: Fraction = Fraction(0)) -> float:
        size = sum((abs(a * b) for a, b in zip(terms, point, strict=True)), abs(other))
        return float(missed / size) if size else 0.0

    residual = abs(relative(dot(edge, point) - 1, edge))
    for row, bound in zip(rows, bounds, strict=True):
        residual = max(residual, relative(bound - dot(row, point), row, bound))
    best = best_vertex(objective, rows, bounds, edge)
    return residual if best is None else max(residual, relative(best - dot(objective, point), objective, best))


def units(count: int) -> list[Row]:
    return [exact(row) for row in np.eye(count)]


def test_epo() -> None:
    """Balance on unequal losses; the descent, with ``relax``, on equal ones and nearly equal ones."""
    worst = 0.0
    for seed, gramian in drawn(most=3):
        count = len(gramian)
        losses = torch.ones(count, dtype=torch.float64) if seed % 3 == 0 else samplers.losses(seed, count)
        rule = EPO(relax=True)
        shares = losses.numpy() / losses.numpy().sum()
        logs = np.log(count * shares)
        uneven = float(shares @ logs)
        weights = exact(rule.weights(gramian, losses).numpy())
        matrix = [exact(row) for row in gramian.numpy()]
        if uneven <= rule.epsilon:
            objective, rows = [sum(column, Fraction(0)) for column in zip(*matrix, strict=True)], matrix
            bounds = [Fraction(0)] * count
        else:
            anchor = count * (logs - uneven)
            objective = [dot(row, exact(anchor)) for row in matrix]
            sizes = np.abs(gramian.numpy()) @ np.abs(anchor)
            signs = [
                0 if abs(float(c)) <= ROUNDING * count * s else (c > 0) - (c < 0)
                for c, s in zip(objective, sizes, strict=True)
            ]
            largest = losses.numpy() == losses.numpy().max()
            kept = [k for k in range(count) if max(signs) <= 0 or largest[k] or signs[k] <= 0]
            rows = [matrix[k] for k in kept]
            free = [max(signs) <= 0 or largest[k] or signs[k] == 0 for k in kept]
            bounds = [Fraction(0) if none else objective[k] for k, none in zip(kept, free, strict=True)]
        rows, bounds = rows + units(count), bounds + [Fraction(0)] * count
        worst = max(worst, program_residual(objective, rows, bounds, [Fraction(1)] * count, weights))
    assert worst <= ALLOWED


def test_pmgda() -> None:
    """The correction for two losses: its unit vectors weigh the gradients and q = J' n, with the sum 1."""
    worst, sigma = 0.0, 0.95
    for seed, gramian in drawn(most=2):
        losses = samplers.losses(seed, 2)
        weights = PMGDA(sigma=sigma, h_eps=1e-12).weights(gramian, losses).numpy()
        matrix = gramian.numpy()
        norms = np.sqrt(matrix.diagonal())
        normal = np.array([1.0, -1.0]) * np.sign(float(losses[0] - losses[1])) / np.sqrt(2.0)
        rates = matrix @ normal  # g_k . q
        length = np.sqrt(normal @ rates)
        # d . g_k and d . q / ||q||, in unit gradients
        falls = matrix @ weights / norms
        pace = weights @ rates / length
        sizes = np.abs(matrix) @ np.abs(weights) / norms
        cosines = np.block(
            [
                [matrix / norms / norms[:, None], (rates / norms / length)[:, None]],
                [rates / norms / length, np.ones(1)],
            ]
        )
        objective = exact(np.array([0.0, 0.0, 0.0, 1.0]))
        unit = norms / norms.min()
        rows = [[*exact(cosines[k]), -1 / Fraction(float(unit[k]))] for k in (0, 1)]
        rows.append([*exact(cosines[2] - sigma), Fraction(0)])
        rows += units(4)[:3]
        best = best_vertex(objective, rows, [Fraction(0)] * 6, exact(np.array([1.0, 1.0, 1.0, 0.0])))
        assert best is not None
        reached = falls * unit
        worst = max(worst, float(sigma - pace), float(((float(best) - reached) / (unit * (1.0 + sizes))).max()))
    assert worst <= ALLOWED
