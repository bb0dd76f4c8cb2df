"""Three objectives: the same figure as the two-dimensional front, in a box."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from mtopt._text import figure_text
from mtopt.plotting.arrays import BoolArray, FloatArray, deviation_over_seeds
from mtopt.plotting.front_scene import FrontScene
from mtopt.plotting.layout import key
from mtopt.plotting.limits import Interval
from mtopt.plotting.marks import REFERENCE, marker_look
from mtopt.plotting.offscale import OFF_SCALE, in_view, offscale_note, with_note
from mtopt.plotting.rule_style import Style


def draw_front3d(ax: Axes, scene: FrontScene, intervals: Sequence[Interval], *, spread: bool) -> list[Line2D]:
    """Draws the rules, the front as a cloud of dots and the reference on 3-D axes; returns the legend's keys."""
    box: Any = ax  # mplot3d has no types
    handles = []
    for name, centre in scene.centres.items():
        _stand(box, centre[in_view(centre, intervals)], intervals, scene.looks[name])
    if scene.front:
        cloud = np.concatenate(scene.front)
        dots = {"linestyle": "none", "marker": ".", "markersize": 2.5, "color": "#9A9A9A"}
        box.plot(*cloud.T, label="true front", **dots)
        handles.append(key("true front", **{**dots, "markersize": 5}))
    for name, centre in scene.centres.items():
        look = scene.looks[name]
        shown = in_view(centre, intervals)
        if spread:
            _draw_bars(box, np.stack(scene.points[name]), centre, shown, look)
        marks = marker_look(look, small=spread)
        # The box does not clip: what lies beyond it is drawn hollow on its wall instead.
        box.plot(*centre[shown].T, linestyle="none", label=figure_text(name), **marks)
        every = np.concatenate(scene.points[name])
        beyond = every[np.isfinite(every).all(axis=1) & ~in_view(every, intervals)]
        if len(beyond):
            low, high = np.array(intervals).T
            hollow = {**marks, "markerfacecolor": "white"}
            box.plot(*np.clip(beyond, low, high).T, linestyle="none", label="_" + OFF_SCALE, gid=OFF_SCALE, **hollow)
        label = with_note(figure_text(name), offscale_note(every, intervals, scene.labels))
        handles.append(key(label, linestyle="none", **marks))
    if scene.reference is not None:
        low, high = np.array(intervals).T
        box.plot(*np.clip(scene.reference, low, high).T, label="reference point", **REFERENCE)
        note = offscale_note(scene.reference, intervals, scene.labels)
        handles.append(key(with_note("reference point", note), **REFERENCE))
    _dress(box, intervals, scene.labels)
    return handles


def _stand(ax: Any, points: FloatArray, intervals: Sequence[Interval], look: Style) -> None:
    """A thread from each point down to its shadow on the floor: where it stands in depth."""
    floor = points.copy()
    floor[:, 2] = intervals[2][0]
    for top, foot in zip(points, floor, strict=True):
        ax.plot(*np.stack([foot, top]).T, color=to_rgba(look.color, 0.3), linewidth=0.7, label="_thread", zorder=1)
    shadow = {"linestyle": "none", "marker": ".", "markersize": 3.5, "color": "#B5B5B5"}
    ax.plot(*floor.T, label="_shadow", zorder=0.5, **shadow)


def _draw_bars(ax: Any, seeds: FloatArray, centre: FloatArray, shown: BoolArray, look: Style) -> None:
    """Bars of one standard deviation along the three axes at the (N, 3) centres in view."""
    if len(seeds) < 2:
        return
    deviation = deviation_over_seeds(seeds)
    for i in np.flatnonzero(shown):
        for column in range(3):
            ends = np.repeat(centre[i][None], 2, axis=0)
            ends[:, column] += (-deviation[i, column], deviation[i, column])
            ax.plot(*ends.T, color=to_rgba(look.color, 0.7), linewidth=1.0)


def _dress(ax: Any, intervals: Sequence[Interval], labels: Sequence[str]) -> None:
    ax.set_xlim3d(*intervals[0])
    ax.set_ylim3d(*intervals[1])
    ax.set_zlim3d(*intervals[2])
    ax.set_xlabel(labels[0], labelpad=2)
    ax.set_ylabel(labels[1], labelpad=2)
    ax.set_zlabel(labels[2], labelpad=2)
    ax.text2D(0.0, 0.0, "lower is better, on every axis", transform=ax.transAxes, fontsize=8, color="#555555")
    ax.tick_params(pad=0)
    # From the side of the ideal point a front is seen whole.
    ax.view_init(elev=26, azim=32)
    ax.set_box_aspect(None, zoom=0.88)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((0.98, 0.98, 0.98, 1.0))
