"""Sets of preferences: vectors (K,), non-negative, summing to one."""

import math
from itertools import combinations

import numpy as np
import torch


def das_dennis(num_objectives: int, partitions: int) -> torch.Tensor:
    """All preferences whose entries are multiples of 1/partitions: the simplex lattice.

    Args:
        num_objectives: K >= 1.
        partitions: H >= 1, the number of steps along each edge of the simplex. Interior preferences need H >= K.

    Returns:
        (C(H+K-1, K-1), K) float64, in decreasing lexicographic order: from (1, 0, ..) to (.., 0, 1).

    Raises:
        TypeError, ValueError: an argument is not a positive int.

    (Das and Dennis 1998.)
    """
    _check_positive("num_objectives", num_objectives)
    _check_positive("partitions", partitions)
    slots = partitions + num_objectives - 1
    # Stars and bars: K-1 bars among the slots, and the stars between two bars are an entry.
    bars = np.array(list(combinations(range(slots), num_objectives - 1)), dtype=np.int64)
    bars = bars.reshape(_lattice_size(num_objectives, partitions), num_objectives - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, slots)))
    counts = np.diff(edges, axis=1) - 1
    return torch.from_numpy(counts[::-1] / partitions)


def uniform_preferences(num_objectives: int, n: int, *, minimum: float = 0.0) -> torch.Tensor:
    """n preferences spread evenly over the simplex, for any n, its K corners among them.

    For K = 2, n equal steps from (1, 0) to (0, 1). For K >= 3, the lattice of `das_dennis` where it has exactly n
    points; otherwise n points of a fine lattice, each the one farthest from those before it, starting with the
    corners, so that no preference on the lattice is more than twice as far from a chosen one as it need be. The same
    on every call.

    Args:
        num_objectives: K >= 1.
        n: number of preferences; at least K, and 1 for K = 1.
        minimum: the least weight that any objective gets, in [0, 1/K). Above zero the simplex shrinks towards its
            centre, and no objective is ever left out.

    Returns:
        (n, K) float64, in decreasing lexicographic order.

    Raises:
        TypeError: a count is not an int.
        ValueError: an argument is out of its range.
    """
    _check_positive("num_objectives", num_objectives)
    _check_positive("n", n)
    if n < num_objectives or (num_objectives == 1 and n > 1):
        wanted = "1, the only preference there is" if num_objectives == 1 else f"at least {num_objectives}"
        raise ValueError(f"n must be {wanted} for {num_objectives} objectives, found {n}")
    if not 0 <= minimum < 1 / num_objectives:
        raise ValueError(f"minimum must lie in [0, 1/{num_objectives}), found {minimum}")
    if num_objectives == 1:
        spread = torch.ones(1, 1, dtype=torch.float64)
    elif num_objectives == 2:
        first = torch.linspace(1, 0, n, dtype=torch.float64)
        spread = torch.stack((first, 1 - first), dim=-1)
    else:
        spread = _spread(num_objectives, n)
    return minimum + (1 - num_objectives * minimum) * spread


def riesz_preferences(num_objectives: int, n: int, *, iterations: int = 500) -> torch.Tensor:
    """n preferences that repel each other: a local minimum of the Riesz s-energy on the simplex, for any n.

    The energy is sum_{i<j} ||w_i - w_j||^-s with s = K^2, so that near neighbours count most. It is lowered from
    `uniform_preferences` by projected gradient steps on its logarithm, of lengths that halve where a step does not
    lower it, and that never move a preference by more than a tenth of the least distance. For K = 2 equal steps are the
    minimum, and are returned at once. The same on every call.

    Args:
        num_objectives: K >= 2.
        n: number of preferences, at least K.
        iterations: at most so many steps; they end early where no step lowers the energy by 1e-9 of its logarithm.

    Returns:
        (n, K) float64, in decreasing lexicographic order.

    Raises:
        TypeError, ValueError: as `uniform_preferences`, and for one objective.

    (Hardin and Saff 2005; Blank, Deb, Dhebar, Bandaru, Seada, "Generating well-spaced points on a unit simplex for
    evolutionary many-objective optimization", 2021, who minimise with Adam from a random start.)
    """
    _check_positive("iterations", iterations)
    points = uniform_preferences(num_objectives, n)
    if num_objectives == 1:
        raise ValueError("num_objectives must be at least 2: one objective has one preference")
    if num_objectives == 2 or n == num_objectives:
        return points
    energy, gradient = _riesz(points)
    reach = 0.1
    for _ in range(iterations):
        longest = float(gradient.norm(dim=1).max())
        if longest == 0:
            break
        step = reach * float(torch.pdist(points).min()) / longest
        moved = _project_rows(points - step * gradient)
        new_energy, new_gradient = _riesz(moved)
        if new_energy < energy:
            gained = energy - new_energy
            points, energy, gradient = moved, new_energy, new_gradient
            reach = min(0.1, 1.5 * reach)
            if gained < 1e-9 * abs(energy):
                break
        else:
            reach /= 2
            if reach < 1e-9:
                break
    order = np.lexsort(points.flip(1).numpy().T)[::-1]
    return points[torch.from_numpy(order.copy())]


def random_preferences(num_objectives: int, n: int, *, concentration: float = 1.0, seed: int = 0) -> torch.Tensor:
    """n preferences drawn from the symmetric Dirichlet distribution; the same for the same seed.

    Args:
        num_objectives: K >= 1.
        n: number of preferences.
        concentration: alpha > 0. 1 is uniform on the simplex, above it the middle and below it the corners are
            preferred.
        seed: of the draw, which leaves the global generators alone.

    Returns:
        (n, K) float64.

    Raises:
        TypeError, ValueError: an argument is not a positive number.
    """
    _check_positive("num_objectives", num_objectives)
    _check_positive("n", n)
    if not 0 < concentration < math.inf:
        raise ValueError(f"concentration must be positive and finite, found {concentration}")
    drawn = np.random.default_rng(seed).dirichlet(np.full(num_objectives, float(concentration)), size=n)
    return torch.from_numpy(drawn)


def _riesz(points: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The logarithm of the energy and its gradient, in the plane of the simplex."""
    leaf = points.clone().requires_grad_()
    energy = torch.logsumexp(-(points.shape[1] ** 2) * torch.pdist(leaf).log(), dim=0)
    (gradient,) = torch.autograd.grad(energy, leaf)
    return float(energy.detach()), gradient - gradient.mean(dim=1, keepdim=True)


def _project_rows(points: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex to each row: max(p - tau, 0) with the tau that makes the sum one."""
    descending = points.sort(dim=1, descending=True).values
    thresholds = (descending.cumsum(dim=1) - 1) / torch.arange(1, points.shape[1] + 1)
    last = (descending > thresholds).sum(dim=1, keepdim=True) - 1
    return (points - thresholds.gather(1, last)).clamp(min=0)


def _spread(num_objectives: int, n: int) -> torch.Tensor:
    partitions = 1
    while _lattice_size(num_objectives, partitions) < n:
        partitions += 1
    if _lattice_size(num_objectives, partitions) == n:
        return das_dennis(num_objectives, partitions)
    while _lattice_size(num_objectives, partitions) < 20 * n:
        partitions += 1
    candidates = das_dennis(num_objectives, partitions)
    chosen = torch.nonzero((candidates == 1).any(dim=1)).squeeze(1).tolist()
    distances = torch.cdist(candidates, candidates[chosen]).amin(dim=1)
    while len(chosen) < n:
        farthest = int(distances.argmax())
        chosen.append(farthest)
        distances = torch.minimum(distances, (candidates - candidates[farthest]).norm(dim=1))
    return candidates[sorted(chosen)]


def _lattice_size(num_objectives: int, partitions: int) -> int:
    return math.comb(partitions + num_objectives - 1, num_objectives - 1)


def _check_positive(argument: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, found {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, found {value}")
