"""Figures: fronts, trajectories, single steps, timelines and rankings, in one colour-blind safe style.

Every figure function takes arrays and mappings, draws on ``ax`` or on a new figure, and returns the Axes; none
of them shows a window or touches the global rcParams. Importing this package does not import matplotlib: a name
is loaded when first used.

A rule has the same colour, marker and line in every figure, whichever rules are beside it::

    ax = mtopt.plotting.plot_front(points, true_front=front)
    mtopt.plotting.save(ax.figure, "report/front")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtopt.plotting.attainment import plot_attainment
    from mtopt.plotting.conflicts import plot_conflicts
    from mtopt.plotting.curves import plot_curves
    from mtopt.plotting.front import plot_front
    from mtopt.plotting.layout import shared_legend
    from mtopt.plotting.output import panels_to_svg, save, to_svg
    from mtopt.plotting.parallel import plot_parallel
    from mtopt.plotting.ranking import plot_ranking
    from mtopt.plotting.rule_style import Style, rule_styles, series_styles
    from mtopt.plotting.step_geometry import plot_step_geometry
    from mtopt.plotting.theme import style
    from mtopt.plotting.trajectories import plot_trajectories
    from mtopt.plotting.weights import plot_weights

__all__ = [
    "Style",
    "panels_to_svg",
    "plot_attainment",
    "plot_conflicts",
    "plot_curves",
    "plot_front",
    "plot_parallel",
    "plot_ranking",
    "plot_step_geometry",
    "plot_trajectories",
    "plot_weights",
    "rule_styles",
    "save",
    "series_styles",
    "shared_legend",
    "style",
    "to_svg",
]

_HOME = {
    "Style": "rule_style",
    "panels_to_svg": "output",
    "plot_attainment": "attainment",
    "plot_conflicts": "conflicts",
    "plot_curves": "curves",
    "plot_front": "front",
    "plot_parallel": "parallel",
    "plot_ranking": "ranking",
    "plot_step_geometry": "step_geometry",
    "plot_trajectories": "trajectories",
    "plot_weights": "weights",
    "rule_styles": "rule_style",
    "save": "output",
    "series_styles": "rule_style",
    "shared_legend": "layout",
    "style": "theme",
    "to_svg": "output",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # the next access does not come through here
    return value


def __dir__() -> list[str]:
    return list(__all__)
