"""The worst loss's best descent within a ball around the mean gradient: CAGrad's program."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import SolverError
from mtopt.linalg import (
    Array,
    Indices,
    Live,
    Precision,
    TwoGradients,
    load_lapack,
    normalize_live_rows,
    read_gramian,
    read_two,
    take_semidefinite_root,
)
from mtopt.solvers._active_set import nonnegative_within
from mtopt.solvers._certificate import Certificate, certify
from mtopt.solvers._dual_cone import project_dual_cone
from mtopt.solvers._min_norm import stationary_terms
from mtopt.solvers._nonnegative import nonnegative

_NAME = "CAGrad's program"

_VANISHING = 64.0
"""Errors of a cosine that the squared length of g_w must have, over the squared sum of its terms, to point anywhere."""

_ROUNDS = 100
"""Programs on the way to the right multiplier; two to five are usual."""

_TRIES = 5
"""Supports tried before the multiplier is bracketed; two or three are usual."""

_SOLVED = 1e-12
"""Residual above which an answer by exchanges is computed anew."""

_SHORT = 1e-4
"""Residual from which the way to the dual cone may be the better answer: g_w is hardly known."""

_EXCUSED = 1e-2
"""Violation, over the ball's reach, from which an answer is none; one below it has a certificate that says so."""

_PARALLEL = 1e-9
"""Ratio of the eigenvalues of two gradients' cosines below which they go through the general program."""

_REACHED = 1e-9
"""Share of its radius by which the ball may miss a point that counts as in it."""

_APART = 1e-9
"""A guess closer than this to an end of the bracket, where the support was another, does not narrow it."""


def conflict_averse(
    gramian: torch.Tensor | npt.ArrayLike, radius: float, precision: Precision | None = None
) -> tuple[Array, Certificate]:
    """Weights of ``argmax_d min_k g_k . d`` over ``|| d - g_0 || <= c || g_0 ||``, ``g_0 = sum_k g_k / K``, exactly.

    The dual is ``min_w g_w . g_0 + c ||g_0|| ||g_w||`` over the simplex, ``g_w = sum_k w_k g_k``, and
    ``d = g_0 + (c ||g_0|| / ||g_w||) g_w``. For a fixed ``t`` the shortest convex combination of the rows
    ``g_k + t g_0`` is a non-negative least-squares problem, as in :func:`min_norm`; the dual's solution is that of the
    one t with ``||g_w|| = c ||g_0|| t``. On a support with min-norm point m of its affine hull, and P the projection on
    that hull's directions, ``||g_w||² = ||m||² + t² ||P g_0||²``, which gives t in closed form once the support is
    right.

    Where ``g_w`` vanishes, as far as is known (no direction in the ball lowers every loss), d is the nearest of the
    best: the projection of ``g_0`` on the dual cone, or as far towards it as the ball goes. Zero rows count in ``g_0``
    and not in the minimum.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        radius: c >= 0.
        precision: how exactly gradients and Gramian are known. Default: by the Gramian's dtype.

    Returns:
        The weights of d, (K,) float64 (they sum to 1 + c ||g_0|| / ||g_w||), and their certificate: ``residual`` is how
        far ``g_k . d`` may lie below the dual value in unit gradients, or d outside of the ball, over
        ``(1 + c) ||g_0||``; ``gap`` is the duality gap over ``||g_0||²``.

    Raises:
        SolverError: a violation is above 1e-10 and more than rounding.
    """
    matrix = read_gramian(gramian)
    precision = (precision or Precision.behind(gramian)).of_numbers()
    share = max(_VANISHING * precision.products, precision.vanishing)
    two = read_two(matrix)
    if two is not None and radius > 0.0 and two.independent(max(_PARALLEL, share)):
        return _closed_form(two, radius, precision)
    cosines, norms, live = normalize_live_rows(matrix)
    weights = np.full(len(norms), 1.0 / len(norms))
    if not len(cosines):
        return weights, Certificate(0.0, 0.0, "zero rows")
    lengths = norms[live]
    inverse = lengths.min() / lengths
    mean = 1.0 / (inverse * len(norms))  # g_0 in unit gradients, the shortest row's norm being 1
    unit = cosines
    root, cosines = take_semidefinite_root(unit)
    centre = root.dot(mean)
    reach = math.sqrt(centre.dot(centre))
    if radius == 0.0:
        return weights, Certificate(precision.products, 0.0, "no ball")
    if reach**2 <= share * float(mean.sum()) ** 2:  # and so is the ball: nothing in it can be told from the mean
        return weights, Certificate(math.sqrt(share), 0.0, "zero mean")
    stationary = stationary_terms(unit, root, cosines, precision.products)
    program = _Program(root, cosines, inverse, mean, radius, share, precision.products)
    toward = functools.partial(_towards_cone, matrix, weights, program, lengths, live, precision)
    if stationary is not None and program.within_reach():
        return toward(stationary / inverse.dot(stationary))
    best, vector = program.solve()
    second = toward(vector) if best is None or best[1].residual > _SHORT else None
    if best is None or (second is not None and second[1].residual < best[1].residual):
        assert second is not None
        return second
    weights[live] += inverse * best[0]
    return weights, best[1]


def _towards_cone(
    matrix: Array,
    weights: Array,
    program: _Program,
    lengths: Array,
    live: Live,
    precision: Precision,
    vector: Array | None,
) -> tuple[Array, Certificate]:
    """The mean's projection on the dual cone, or the point of the ball on the way to it.

    How good that is the dual's value tells, at ``vector`` or at the shortest combination.
    """
    vector = program.shortest(0.0) if vector is None else vector
    length, total = _length(program.root, vector), float(vector.sum())
    vanishes = program.vanishes(vector, length)
    projected, certificate = project_dual_cone(matrix, weights, precision=precision)
    change = (projected - weights)[live] * lengths / lengths.min()
    distance = _length(program.root, change)
    unknown = math.sqrt(precision.products) if vanishes else precision.products * total / length
    if vanishes and distance <= program.bound * (1.0 + _REACHED):
        # g_w can be longer than zero, and so can be what the worst loss might fall by
        fall = program.bound * precision.short * total * float(program.inverse.max()) / program.length
        return projected, Certificate(certificate.residual + fall, certificate.gap, "Pareto-stationary")
    share = min(program.bound / distance, 1.0) if distance > 0.0 else 1.0
    weights = weights + share * (projected - weights)
    terms = program.mean + share * change
    hidden = precision.products * float(np.abs(terms).sum())
    best = float(vector.dot(program.slopes)) + program.bound * (length + unknown * total)
    missed = float((best * program.inverse - program.cosines.dot(terms)).max())
    return weights, Certificate((max(missed, 0.0) + hidden) / program.length, None, "towards the dual cone")


def _closed_form(two: TwoGradients, radius: float, precision: Precision) -> tuple[Array, Certificate]:
    """The answer for two gradients that are not parallel.

    d equals the mean plus a step in the direction of g_w. Either all weight is on the shorter gradient, or d is
    orthogonal to ``g_1 - g_2``: a multiple of the shortest vector m of the line through both. With ``h = ||m||`` and
    ``tau = g_0 . (g_1 - g_2) / ||g_1 - g_2||`` it is ``(1 + sqrt(c² ||g_0||² - tau²) / h) m``.
    """
    cosine, short = two.cosine, min(two.first, two.second)  # the longer one has norm 1
    mean = 0.5 * math.sqrt(short * short + 1.0 + 2.0 * cosine * short)
    bound = radius * mean
    apart = math.sqrt(short * short + 1.0 - 2.0 * cosine * short)
    tau = 0.5 * (1.0 - short) * (1.0 + short) / apart
    to_short, to_long = 0.5 + bound / short, 0.5
    room = (bound - tau) * (bound + tau)
    if room > 0.0:
        height = short * math.sqrt((1.0 - cosine) * (1.0 + cosine)) / apart
        factor = (1.0 + math.sqrt(room) / height) / apart**2
        if factor * short * (short - cosine) > 0.5:
            to_short, to_long = factor * (1.0 - cosine * short), factor * short * (short - cosine)
    certificate = _certify_two(short, cosine, to_short, to_long, mean + bound, precision.products)
    return np.array([to_short, to_long] if two.first <= two.second else [to_long, to_short]), certificate


def _certify_two(
    short: float, cosine: float, to_short: float, to_long: float, length: float, products: float
) -> Certificate:
    """:meth:`_Program.certify` in plain floats, the longer gradient's norm being 1."""
    added_short, added_long = to_short - 0.5, to_long - 0.5
    share = added_long / (added_short + added_long)  # of the longer in g_w
    falls = (
        short * (short * to_short + cosine * to_long),  # g_k . d
        cosine * short * to_short + to_long,
    )
    value = (1.0 - share) * falls[0] + share * falls[1]
    missed = max((value - falls[0]) / short, value - falls[1])
    size = short * to_short + to_long
    scaled = (1.0 - share) * short + share
    hidden = products * size * (1.0 + scaled / short)
    # the ball: the length of what was added to the mean, which may cancel
    squared = (short * added_short) ** 2 + added_long**2 + 2.0 * cosine * short * added_short * added_long
    hidden = max(hidden, 0.5 * products * (short * added_short + added_long) ** 2 / math.sqrt(squared))
    gap = max(value - min(falls), 0.0) / (0.25 * (short * short + 1.0 + 2.0 * cosine * short))
    return certify(_NAME, missed, hidden, length, gap, "closed form")


def _length(root: Array, vector: Array) -> float:
    combined = root.dot(vector)
    return math.sqrt(combined.dot(combined))


class _Program:
    """The dual in unit gradients: R their root, a = 1 / s, v = s w, so that a' v = 1 and g_w = R v.

    ``mean`` are the terms of g_0, ``share`` is that of the squared sum of its terms below which a squared length is
    rounding, ``products`` the error of a cosine.
    """

    def __init__(
        self,
        root: Array,
        cosines: Array,
        inverse: Array,
        mean: Array,
        radius: float,
        share: float,
        products: float,
    ) -> None:
        self.root, self.cosines, self.inverse, self.mean, self.radius = root, cosines, inverse, mean, radius
        self.share, self.products = share, products
        self.centre = root.dot(mean)
        reach = math.sqrt(self.centre.dot(self.centre))
        self.bound, self.length = radius * reach, (1.0 + radius) * reach
        self.target = np.zeros(len(root) + 1)
        self.target[-1] = 1.0
        self.slopes = self.centre.dot(root)

    def solve(self) -> tuple[tuple[Array, Certificate] | None, Array | None]:
        """The better of two answers, as what is added to the terms of the mean, with its certificate; and a v."""
        best: tuple[Array, Certificate] | None = None
        vector = None
        for find in (self.quickly, self.bracketed):
            found = find()
            if found is None:
                continue
            vector = found
            length = _length(self.root, found)
            if self.vanishes(found, length):
                continue
            stretch = self.bound / length
            try:
                certificate = self.certify(found, stretch)
            except SolverError:  # the next may do
                continue
            if best is None or certificate.residual < best[1].residual:
                best = stretch * found, certificate
            if certificate.residual <= _SOLVED:
                break
        return best, vector

    def certify(self, vector: Array, stretch: float) -> Certificate:
        """How far ``g_0 + stretch g_w`` may be from the best."""
        terms = self.mean + stretch * vector
        slopes = self.cosines.dot(terms)
        # positive where a loss falls more slowly than the dual says
        violation = vector.dot(slopes) * self.inverse - slopes
        size, total = float(terms.sum()), float(vector.sum())
        # of the dual's value and the slopes, and of the ball: the length of g_w is known to the rounding of its square
        reach = stretch * math.sqrt(max(float(vector.dot(self.cosines).dot(vector)), 1e-300))
        hidden = self.products * max(size * (1.0 + total), 0.5 * (stretch * total) ** 2 / reach)
        gap = float(max((violation / self.inverse).max(), 0.0) / self.mean.dot(self.cosines).dot(self.mean))
        # where g_w is short beside its terms, their rounding is long beside it
        excused = 4.0 * hidden + _EXCUSED * self.length
        return certify(_NAME, float(violation.max()), hidden, self.length, gap, "nnls", excused)

    def quickly(self) -> Array | None:
        """v from a multiplier of usual size, once the support found there is that of the solution; None otherwise."""
        step = 2.0 / self.radius
        for _ in range(_TRIES):
            support = self.shortest(step).nonzero()[0]
            solved = self.on_support(support)
            if solved is None:  # too many rows
                step *= 3.0
                continue
            fixed, moved, step = solved
            vector = np.zeros_like(self.inverse)
            vector[support] = fixed - step * moved
            if vector.min() >= 0.0 and self.optimal(vector, step):
                return None if self.vanishes(vector, _length(self.root, vector)) else vector
        return None

    def optimal(self, vector: Array, step: float) -> bool:
        """Whether no row outside the support of ``vector``, the best within, would shorten the combination."""
        slopes = self.cosines.dot(vector) + step * self.slopes
        excess = slopes - vector.dot(slopes) * self.inverse
        return bool(excess.min() >= -1e-13 * (np.abs(slopes).max()))

    def bracketed(self) -> Array | None:
        """v at the multiplier with ``||R v|| = bound * t``, between bounds; None where R v vanishes with t."""
        low, high = 0.0, 1.0 / (float(self.inverse.min()) * self.bound)  # no combination is longer than a row
        vector = self.shortest(0.0)
        length = _length(self.root, vector)
        if self.vanishes(vector, length):
            if self.within_reach():
                return None
            step = high
        else:
            step = self.following(self.guess(vector), low, high, length)
        for _ in range(_ROUNDS):
            vector = self.shortest(step)
            length = _length(self.root, vector)
            guess = self.guess(vector)
            if guess is not None and abs(guess - step) <= 1e-12 * step:
                break
            low, high = (step, high) if length > self.bound * step else (low, step)
            if high - low <= 1e-15 * high:
                break
            step = self.following(guess, low, high, length)
        return vector

    def following(self, guess: float | None, low: float, high: float, length: float) -> float:
        """The next multiplier: ``guess`` inside the bracket, and a point that narrows it otherwise."""
        if guess is not None and low * (1.0 + _APART) < guess < high * (1.0 - _APART):
            return guess
        if low > 0.0:
            return math.sqrt(low * high)
        return min(length / self.bound, 0.5 * high)  # the root is at least where the combination at zero stands

    def shortest(self, step: float) -> Array:
        """v of the shortest convex combination of the rows ``g_k + step * g_0``."""
        shifted = self.root + step * self.centre[:, None] * self.inverse
        lengths = np.sqrt((shifted * shifted).sum(axis=0))
        if lengths.min() == 0.0:
            lengths = np.where(lengths > 0.0, lengths, 1.0)
        edge = self.inverse / lengths
        stacked = np.concatenate((shifted / lengths, edge[None] / edge.max()))
        vector = nonnegative(stacked.T.dot(stacked), stacked, self.target) / lengths
        return np.asarray(vector / self.inverse.dot(vector))

    def vanishes(self, vector: Array, length: float) -> bool:
        return length**2 <= self.share * float(vector.sum()) ** 2

    def within_reach(self) -> bool:
        """Whether the projection of g_0 on the dual cone lies in the ball."""
        steps = nonnegative_within(self.cosines, self.slopes, float(self.mean.sum()), self.products)
        return _length(self.root, steps) <= self.bound * (1.0 + _REACHED)

    def guess(self, vector: Array) -> float | None:
        """The multiplier of the support of ``vector``."""
        solved = self.on_support(vector.nonzero()[0])
        return None if solved is None else solved[2]

    def on_support(self, support: Indices) -> tuple[Array, Array, float] | None:
        """m, P g_0 and t with ``t² (bound² - ||P g_0||²) = ||m||²``, for the affine hull of the rows in ``support``.

        m and P g_0 are given by their multiples of the unit gradients: ``v = m - t P g_0``.
        """
        size = len(support)
        inverse = self.inverse[support]
        largest = inverse.max()
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = self.cosines[support[:, None], support]
        system[:size, size] = system[size, :size] = inverse / largest
        right = np.zeros((size + 1, 2))
        right[size, 0] = 1.0 / largest
        right[:size, 1] = self.slopes[support]
        _, _, solved, failed = load_lapack().dgesv(system, right)
        if failed:  # affinely dependent rows
            return None
        fixed, moved = solved[:size].T
        columns = self.root[:, support]
        reach = 0.0 if size == 1 else _length(columns, moved)
        room = (self.bound - reach) * (self.bound + reach)
        return (fixed, moved, _length(columns, fixed) / math.sqrt(room)) if room > 0.0 else None
