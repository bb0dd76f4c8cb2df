"""One step: the gradients, what combines them, and where no loss rises."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_floats
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import LegendPlace, check_legend, key
from mtopt.plotting.plane import coordinates, half_planes, orthonormal_basis, square_root
from mtopt.plotting.rule_style import Style, styles_for
from mtopt.plotting.step import CONE, HULL, HULL_LINE, Step, tip_keys
from mtopt.plotting.step_geometry3d import draw_step3d
from mtopt.plotting.theme import INK


def plot_step_geometry(
    gradients: Mapping[str, Array] | Array | None = None,
    directions: Mapping[str, Array] | None = None,
    *,
    gramian: Array | None = None,
    weights: Mapping[str, Array] | None = None,
    names: Sequence[str] | None = None,
    lengths: Literal["given", "equal"] = "given",
    dimensions: Literal[2, 3] = 2,
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws the gradients g_k of two or three losses, their convex hull and dual cone, and each rule's direction d.

    The optimizer steps along -d, and the first-order change of loss k is -<g_k, d>: the dual cone, shaded, holds the
    d with <g_k, d> >= 0 for all k, along which no loss rises. Vectors of more than two dimensions are projected on the
    span of the first two (independent) gradients, which for two losses holds the direction of every rule that weights
    them; the legend says what lies outside.

    Args:
        gradients: (K, D), or a mapping from the losses' names to (D,); K is 2 or 3.
        directions: for each rule its direction, (D,): ``create_combiner(rule)(jacobian)``. Default: none.
        gramian: (K, K) inner products in place of ``gradients``; rules then come by ``weights``.
        weights: for each rule its (K,) weights w, for the direction sum_k w_k g_k. Default: none.
        names: the losses of an array, for the labels. Default: ``"g1"`` and so on.
        lengths: ``"given"`` draws every direction as long as it is; ``"equal"`` as long as the longest gradient, so
            that only the angles speak.
        dimensions: 3 draws three independent gradients in space (``projection="3d"``). Default: 2.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes, both axes on one scale.

    Raises:
        ValueError: an argument has a wrong shape or a value that is not finite, every gradient is zero, or three
            dimensions are asked for with gradients that do not span them.
    """
    if dimensions not in (2, 3):
        raise ValueError(f"dimensions must be 2 or 3; found {dimensions!r}")
    if lengths not in ("given", "equal"):
        raise ValueError(f"lengths must be 'given' or 'equal'; found {lengths!r}")
    check_legend(legend)
    if ax is not None and (ax.name == "3d") != (dimensions == 3):
        need = "made with projection='3d'" if dimensions == 3 else "two-dimensional"
        raise ValueError(f"ax must be {need} for dimensions={dimensions}; found a {ax.name!r} projection")
    labels, rows = _gradients(gradients, gramian, names)
    rules = _directions(rows, directions, weights, gramian is not None)
    looks = styles_for(rules, styles)
    step = _projected(labels, rows, rules, lengths, dimensions)
    box, draw = (None, _draw) if dimensions == 2 else ("3d", draw_step3d)
    place = legend if dimensions == 2 or legend is None else "outside"
    with canvas(ax, (4.0, 4.0), title=title, legend=place, projection=box) as drawn:
        ax = drawn.ax
        drawn.keys += draw(ax, step, looks)
        drawn.data = np.concatenate([step.gradients, *(tip[None] for tip in step.directions.values())])[:, :2]
        if lengths == "equal" and rules:
            drawn.heading = "directions as long as the\nlongest gradient"
    return ax


def _gradients(gradients: Any, gramian: Any, names: Sequence[str] | None) -> tuple[list[str], FloatArray]:
    if (gradients is None) == (gramian is None):
        raise ValueError("pass either gradients, (K, D), or gramian, (K, K); found " +
                         ("both" if gradients is not None else "neither"))  # fmt: skip
    if isinstance(gradients, Mapping):
        if names is not None:
            raise ValueError("names are those of the mapping gradients; pass names=None, or gradients as (K, D)")
        names = list(gradients)
        pieces = [as_floats(value, f"gradients[{name!r}]") for name, value in gradients.items()]
        if any(piece.ndim != 1 or piece.shape != pieces[0].shape for piece in pieces):
            found = [piece.shape for piece in pieces]
            raise ValueError(f"gradients must hold vectors of one shape (D,); found {found}: flatten them")
        gradients = np.array(pieces)
    argument = "gradients" if gramian is None else "gramian"
    rows = as_floats(gradients if gramian is None else gramian, argument)
    if rows.ndim != 2 or len(rows) not in (2, 3) or rows.shape[1] < 2:
        raise ValueError(f"{argument} must have two or three rows, (K, D) with D >= 2; found shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{argument} must be finite; found NaN or inf")
    if gramian is not None:
        if rows.shape[0] != rows.shape[1]:
            raise ValueError(f"gramian must be (K, K); found {rows.shape}")
        smallest, largest = np.linalg.eigvalsh((rows + rows.T) / 2)[[0, -1]]
        if np.abs(rows - rows.T).max() > 1e-6 * np.abs(rows).max() or smallest < -1e-6 * largest:
            raise ValueError("gramian must be symmetric and positive semi-definite, J J'; found a matrix that is not")
        rows = square_root(rows)
    if not rows.any():
        raise ValueError(f"{argument} must have a gradient that is not zero; found zeros alone: there is no direction")
    labels = [f"g{k}" for k in range(1, len(rows) + 1)] if names is None else list(names)
    if isinstance(names, str) or len(labels) != len(rows):
        raise ValueError(f"names must hold {len(rows)} names, one per gradient; found {names!r}")
    return labels, rows


def _directions(rows: FloatArray, directions: Any, weights: Any, by_gramian: bool) -> dict[str, FloatArray]:
    if by_gramian and directions:
        raise ValueError("directions have no coordinates beside a gramian; pass weights, one (K,) a rule")
    both = sorted(set(directions or ()) & set(weights or ()))
    if both:
        raise ValueError(f"a rule comes by its direction or by its weights; found {both} in both")
    found = {}
    for argument, mapping, width in (("directions", directions, rows.shape[1]), ("weights", weights, len(rows))):
        if mapping is not None and not isinstance(mapping, Mapping):
            raise ValueError(f"{argument} must be a mapping from rule names to vectors; found {type(mapping).__name__}")
        for name, value in (mapping or {}).items():
            vector = as_floats(value, f"{argument}[{name!r}]")
            if vector.shape != (width,) or not np.isfinite(vector).all():
                raise ValueError(
                    f"{argument}[{name!r}] must be finite and have shape ({width},); found shape {vector.shape}"
                    + ("" if np.isfinite(vector).all() else " with NaN or inf")
                )
            found[name] = vector if argument == "directions" else vector @ rows
    return found


def _projected(
    names: list[str], rows: FloatArray, rules: Mapping[str, FloatArray], lengths: str, dimensions: int
) -> Step:
    if rows.shape[1] == dimensions:
        basis = np.eye(dimensions)
        labels = tuple(f"component {i}" for i in range(1, dimensions + 1))
    else:
        basis = orthonormal_basis([*rows, *rules.values()], dimensions)
        first = figure_text(names[0])
        labels = (f"along {first}", f"across {first}", "across both")[:dimensions]
    gradients = coordinates(rows, basis, dimensions)
    longest = float(np.linalg.norm(gradients, axis=1).max())
    directions, shown = {}, {}
    for name, vector in rules.items():
        tip = coordinates(vector[None], basis, dimensions)[0]
        whole, seen = float(np.linalg.norm(vector)), float(np.linalg.norm(tip))
        shown[name] = seen / whole if whole > 0 else 1.0
        directions[name] = tip * longest / seen if lengths == "equal" and seen > 0 else tip
    return Step(names, gradients, directions, shown, labels)


def _draw(ax: Axes, step: Step, looks: Mapping[str, Style]) -> list[Any]:
    low, high = _square(np.concatenate([step.gradients, *(tip[None] for tip in step.directions.values())]))
    box = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    cone = half_planes(box, step.gradients)
    if len(cone) > 2:
        # with an edge: between opposed gradients the cone is a ray, without area
        ax.fill(*cone.T, facecolor=CONE, edgecolor=CONE, linewidth=2.0, zorder=0.5, label="_dual cone")
    closed = np.concatenate([step.gradients, step.gradients[:1]])
    if len(step.gradients) == 3:
        ax.fill(*step.gradients.T, facecolor=to_rgba(HULL, 0.1), edgecolor="none", zorder=0.9)
    ax.plot(*closed.T, zorder=1, label="_hull", **HULL_LINE)
    for name, tip in zip(step.names, step.gradients, strict=True):
        _arrow(ax, tip, INK, "-", 2.0, shrink=0.0, zorder=2)
        _label(ax, name, tip)
    marks, keys = tip_keys(step, looks)
    for (name, tip), mark in zip(step.directions.items(), marks, strict=True):
        look = looks[name]
        _arrow(ax, tip, look.color, look.linestyle, 1.5, shrink=mark["markersize"] / 2, zorder=3)
        ax.plot(*tip[:, None], linestyle="none", zorder=4, label=figure_text(name), **mark)
    ax.plot([0], [0], marker="o", markersize=3.5, color=INK, zorder=4, label="_origin")
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_aspect("equal")
    ax.set_xlabel(step.axis_labels[0])
    ax.set_ylabel(step.axis_labels[1])
    arrow = key("gradients", color=INK, linewidth=2.0)
    return [
        arrow,
        key("their convex hull", **HULL_LINE),
        Patch(facecolor=CONE, label="dual cone: no loss rises"),
        *keys,
    ]


def _square(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The corners of a square around the points and the origin, with room for labels."""
    every = np.concatenate([points, np.zeros((1, 2))])
    middle = (every.min(axis=0) + every.max(axis=0)) / 2
    half = 0.66 * np.ptp(every, axis=0).max()
    return middle - half, middle + half


def _arrow(ax: Axes, tip: FloatArray, color: str, line: Any, width: float, *, shrink: float, zorder: float) -> None:
    if not tip.any():
        return
    look = {"arrowstyle": "-|>,head_width=0.18,head_length=0.4", "color": color, "linewidth": width, "linestyle": line}
    ax.annotate("", xy=tuple(tip), xytext=(0, 0), zorder=zorder,
                arrowprops={**look, "shrinkA": 0, "shrinkB": shrink, "mutation_scale": 14})  # fmt: skip


def _label(ax: Axes, name: str, tip: FloatArray) -> None:
    """The gradient's name beyond its tip."""
    size = np.linalg.norm(tip)
    outwards = tip / size if size > 0 else np.array([-1.0, -1.0]) / np.sqrt(2)
    ax.annotate(
        figure_text(name),
        tuple(tip),
        xytext=tuple(11 * outwards),
        textcoords="offset points",
        ha="center" if abs(outwards[0]) < 0.5 else ("left" if outwards[0] > 0 else "right"),
        va="center",
        zorder=6,
    )
