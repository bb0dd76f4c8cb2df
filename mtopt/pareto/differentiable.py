"""Hypervolume that can be trained: two objectives, in torch."""

import torch

from mtopt._errors import NonFiniteError
from mtopt._real_numbers import as_real, require_real


def hypervolume_2d(points: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`hypervolume` of two objectives with a gradient: a scalar tensor with the dtype and device of `points`.

    With the non-dominated points in order of f1, and the reference as the border on both sides,

        dHV/df1_k = -(f2_{k-1} - f2_k),   dHV/df2_k = -(f1_{k+1} - f1_k)

    the lengths of the borders that a point has to itself. **Dominated points, and points not below the reference, get
    zero gradient**: on their own they never move. `hypervolume_weights` moves them too, layer by layer, in any number
    of objectives. Of equal points one gets all of the gradient. O(N log N).

    Args:
        points: (N, 2), minimised; N may be 0.
        reference: (2,).

    Raises:
        TypeError: `points` is no tensor of a floating dtype.
        ValueError: another shape, or NaN or infinity.

    (Emmerich and Deutz, "Time complexity and zeros of the hypervolume indicator gradient field", 2014.)
    """
    if not isinstance(points, torch.Tensor) or not points.is_floating_point():
        raise TypeError(f"points must be a torch.Tensor of a floating dtype, found {type(points).__name__}")
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must have shape (N, 2), two objectives in each row, found {tuple(points.shape)}")
    border = reference if isinstance(reference, torch.Tensor) else torch.from_numpy(as_real("reference", reference))
    require_real("reference", border)
    border = border.to(points)
    if border.shape != (2,):
        raise ValueError(f"reference must have shape (2,), one entry for each objective, found {tuple(border.shape)}")
    if not (points.isfinite().all() and border.isfinite().all()):
        raise NonFiniteError("points and reference must be finite; drop the rows of diverged runs first")
    below = points[(points.detach() < border).all(dim=1)]
    # by f1, then by f2: a stable sort by the second key first
    ordered = below[below.detach()[:, 1].argsort(stable=True)]
    ordered = ordered[ordered.detach()[:, 0].argsort(stable=True)]
    first, second = ordered.unbind(dim=1)
    # the best f2 so far, before each point: it adds something only if it is lower
    before = torch.cat((border[1:], second.detach().cummin(dim=0).values))[: len(second)]
    adds = second.detach() < before
    first, second = first[adds], second[adds]
    heights = torch.cat((border[1:], second))[: len(second)] - second
    return ((border[0] - first) * heights).sum()
