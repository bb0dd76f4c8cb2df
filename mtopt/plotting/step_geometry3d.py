"""One step of three losses in space: the same picture, with the dual cone as the three faces between its edges."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mtopt._text import figure_text
from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.layout import key
from mtopt.plotting.plane import dual_rays
from mtopt.plotting.rule_style import Style
from mtopt.plotting.step import CONE, HULL, HULL_LINE, Step, tip_keys
from mtopt.plotting.theme import INK

_GREEN = "#5E9E68"


def draw_step3d(ax: Axes, step: Step, looks: Mapping[str, Style]) -> list[Any]:
    """Draws the step on 3-D axes; returns the legend's keys."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

    gradients = step.gradients
    norms = np.linalg.norm(gradients, axis=1)
    if len(gradients) < 3 or (norms == 0).any() or np.linalg.cond(gradients / norms[:, None]) > 1e9:
        raise ValueError(
            "dimensions=3 draws three gradients that span space; found fewer, or dependent ones: pass dimensions=2"
        )
    box: Any = ax  # mplot3d has no types
    rays = dual_rays(gradients) * norms.max()
    faces: Any = Poly3DCollection(
        [np.array([np.zeros(3), rays[i], rays[j]]) for i, j in ((0, 1), (1, 2), (2, 0))],
        facecolor=to_rgba(_GREEN, 0.12),
        edgecolor=to_rgba(_GREEN, 0.7),
        linewidth=0.8,
    )
    box.add_collection3d(faces)
    box.add_collection3d(Poly3DCollection([gradients], facecolor=to_rgba(HULL, 0.12), edgecolor="none"))
    box.plot(*np.concatenate([gradients, gradients[:1]]).T, label="_hull", **HULL_LINE)
    for name, tip in zip(step.names, gradients, strict=True):
        _arrow(box, tip, INK, 2.0)
        box.text(
            *(tip * (1 + 0.09 * norms.max() / np.linalg.norm(tip))),
            figure_text(name),
            ha="center",
            va="center",
            zorder=6,
        )
    marks, keys = tip_keys(step, looks)
    for (name, tip), mark in zip(step.directions.items(), marks, strict=True):
        box.plot(*np.stack([np.zeros(3), tip]).T, color=looks[name].color, linestyle=looks[name].linestyle)
        box.plot(*tip[:, None], linestyle="none", label=figure_text(name), **mark)
    _frame(box, np.concatenate([gradients, rays, *(tip[None] for tip in step.directions.values())]), step.axis_labels)
    arrow = key("gradients", color=INK, linewidth=2.0)
    cone = Patch(facecolor=CONE, edgecolor=_GREEN, label="dual cone: no loss rises")
    return [arrow, key("their convex hull", **HULL_LINE), cone, *keys]


def _arrow(box: Any, tip: FloatArray, color: str, width: float) -> None:
    box.quiver(0, 0, 0, *tip, color=color, linewidth=width, arrow_length_ratio=0.1)


def _frame(box: Any, points: FloatArray, labels: tuple[str, ...]) -> None:
    every = np.concatenate([points, np.zeros((1, 3))])
    middle = (every.min(axis=0) + every.max(axis=0)) / 2
    half = 0.55 * np.ptp(every, axis=0).max()
    for axis, centre, label in zip("xyz", middle, labels, strict=True):
        getattr(box, f"set_{axis}lim3d")(centre - half, centre + half)
        getattr(box, f"set_{axis}label")(label, labelpad=2)
        getattr(box, f"{axis}axis").set_pane_color((0.98, 0.98, 0.98, 1.0))
        getattr(box, f"{axis}axis").set_major_locator(MaxNLocator(4))
    box.tick_params(pad=0)
    box.set_box_aspect((1, 1, 1))
    # From between the gradients, where the cone is seen into.
    mean = points[:3].sum(axis=0)
    box.view_init(elev=22, azim=float(np.degrees(np.arctan2(mean[1], mean[0]))) - 55)
