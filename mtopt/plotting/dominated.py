"""The region that points dominate, up to the reference point: its area, or volume, is their hypervolume."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.limits import Interval
from mtopt.plotting.offscale import with_note
from mtopt.plotting.pieces import sorted_line, staircase
from mtopt.plotting.rule_style import Style

# The corners of the unit cube, three faces at the low ends and three at the high ones.
_FACES = np.array(
    [
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]],
        [[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]],
        [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
    ],
    dtype=np.float64,
)

Shade = bool | Collection[str]


def shaded_names(shade: Shade, names: Collection[str], reference: FloatArray | None) -> set[str]:
    """The rules whose region is drawn."""
    if isinstance(shade, str):
        raise ValueError(f"shade must be True, False or a set of rule names; found {shade!r}: pass {{{shade!r}}}")
    chosen = (set(names) if shade else set()) if isinstance(shade, bool) else set(shade)
    unknown = sorted(chosen - set(names))
    if unknown:
        raise ValueError(f"shade must name rules of series; found {unknown}, while series has {list(names)}")
    if chosen and (reference is None or len(reference) != 1):
        raise ValueError("shade draws the region up to the reference point and needs one; pass reference=")
    return chosen


def outline(points: FloatArray, reference: FloatArray) -> FloatArray:
    """The corners (M, 2) of the region between (N, 2) points and the reference (2,); (0, 2) where it is empty.

    Its area is the hypervolume of the points.
    """
    counted = _counted(points, reference)
    if not len(counted):
        return counted
    return np.concatenate([staircase(sorted_line(counted), reference), reference[None]])


def boxes(points: FloatArray, reference: FloatArray) -> FloatArray:
    """The faces (N, 6, 4, 3) of the box from each non-dominated point to the reference; their union is the region."""
    counted = _counted(points, reference)[:, None, None]
    return counted + _FACES * (reference - counted)


def draw_regions(
    ax: Axes,
    points: Mapping[str, FloatArray],
    reference: FloatArray,
    intervals: Sequence[Interval],
    looks: Mapping[str, Style],
    keys: Mapping[str, Line2D],
) -> None:
    """Shades the region of each rule's (N, K) points on axes of K dimensions, and adds its size to the rule's key."""
    import moocore

    for name, every in points.items():
        finite = every[np.isfinite(every).all(axis=1)]
        size = float(moocore.hypervolume(finite, ref=reference)) if len(finite) else 0.0
        keys[name].set_label(with_note(str(keys[name].get_label()), f"hypervolume {size:.4g}"))
        if len(reference) == 2:
            _draw_area(ax, outline(finite, reference), looks[name])
        else:
            # the box does not clip
            _draw_boxes(ax, boxes(finite, np.minimum(reference, [high for _, high in intervals])), looks[name])


def _draw_area(ax: Axes, corners: FloatArray, look: Style) -> None:
    if len(corners):
        ax.fill(*corners.T, facecolor=to_rgba(look.color, 0.13), edgecolor="none", zorder=1.2)
        ax.plot(*corners[:-1].T, color=to_rgba(look.color, 0.7), linewidth=0.8, zorder=1.3, label="_region")


def _draw_boxes(ax: Axes, faces: FloatArray, look: Style) -> None:
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

    if len(faces):
        collection: Any = Poly3DCollection(
            list(faces.reshape(-1, 4, 3)),
            facecolor=to_rgba(look.color, 0.05),
            edgecolor=to_rgba(look.color, 0.25),
            linewidth=0.4,
        )
        box: Any = ax
        box.add_collection3d(collection)


def _counted(points: FloatArray, reference: FloatArray) -> FloatArray:
    import moocore

    better = points[np.isfinite(points).all(axis=1) & (points < reference).all(axis=1)]
    if not len(better):
        return better
    unique = np.unique(better, axis=0)
    kept: FloatArray = unique[moocore.is_nondominated(unique, keep_weakly=True)]
    return kept
