"""A diagnosis as a figure: cosines of the whole and of each layer beside what chance gives, and the norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from mtopt._text import figure_text, joined
from mtopt.diagnosis._findings import Findings, Layer
from mtopt.plotting import series_styles, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYERS = 24  # rows beneath that of the whole model
_PAIRS = 5
_LONGEST = 34  # characters of a layer's name
_WHOLE = "all shared parameters"


def draw(found: Findings) -> Figure:
    """Left, a row for the whole and for each layer; right, the norms of the gradients and of their noise."""
    layers = list(found.layers) if len(found.layers) > 1 else []
    if len(layers) > _LAYERS:
        lowest = sorted(layers, key=lambda layer: float(layer.cosines.min()))[:_LAYERS]
        layers = [layer for layer in layers if layer in lowest]
    rows = 1 + len(layers)
    pairs = found.pairs[:_PAIRS]
    with style():
        height = max(2.4, 1.3 + 0.24 * max(rows, len(found.names) + 2))
        figure = plt.figure(figsize=(9.2, height), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
        _draw_cosines(left, found, layers, pairs)
        _draw_norms(right, found)
        keys, labels = left.get_legend_handles_labels()
        figure.legend(keys, labels, loc="outside lower left", ncols=min(len(labels), 3))
    return figure


def _draw_cosines(ax: Axes, found: Findings, layers: list[Layer], pairs: list[tuple[int, int]]) -> None:
    names = {pair: joined([found.names[k] for k in pair]) for pair in pairs}
    looks = series_styles(names.values())
    levels = [found.chance, *(layer.chance for layer in layers)]
    at = np.arange(len(levels))
    ax.barh(
        at, 2 * np.array(levels), left=-np.array(levels), height=0.8, color="#DDDDDD", label="random directions (95 %)"
    )
    ax.axvline(0.0, color="#888888", linewidth=0.8)
    matrices = [found.cosines, *(layer.cosines for layer in layers)]
    for number, pair in enumerate(pairs):
        look = looks[names[pair]]
        marks: dict[str, Any] = {"marker": look.marker, "color": look.color, "linestyle": "none", "markersize": 5}
        shift = 0.5 * ((number + 0.5) / len(pairs) - 0.5)
        if found.noise is not None:
            low, high = found.noise.intervals[pair]
            ax.plot([low, high], [shift, shift], color=look.color, linewidth=1.6, solid_capstyle="butt")
        label = figure_text(names[pair])
        ax.plot([matrix[pair] for matrix in matrices], at + shift, label=label, zorder=3, **marks)
    labels = [_WHOLE, *(_short(layer.name) for layer in layers)]
    ax.set_yticks(at, [figure_text(label) for label in labels])
    ax.get_yticklabels()[0].set_fontweight("bold")
    ax.set_ylim(len(levels) - 0.4, -0.6)
    ax.set_xlim(-1.05, 1.05)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("cosine of the gradients")
    left_out = len(found.layers) - len(layers) if layers else 0
    more = [f"{len(layers)} most opposed of {len(found.layers)} layers"] if left_out else []
    more += [f"{len(pairs)} most opposed of {len(found.pairs)} pairs"] if len(found.pairs) > len(pairs) else []
    more += [f"bars: 95 % jackknife interval over {found.batches} batches"] if found.noise is not None else []
    if more:
        ax.set_title("; ".join(more))


def _draw_norms(ax: Axes, found: Findings) -> None:
    at = np.arange(len(found.names))
    norms = np.array([found.norms[name] for name in found.names])
    drawn = np.where(norms > 0, norms, np.nan)
    ax.plot(drawn, at, marker="o", linestyle="none", color="#1A1A1A")
    seen = drawn[np.isfinite(drawn)]
    if found.noise is not None:
        noise = np.where(found.noise.norms > 0, found.noise.norms, np.nan)
        ax.plot(noise, at, marker="|", markersize=10, linestyle="none", color="#D55E00")
        seen = np.concatenate([seen, noise[np.isfinite(noise)]])
    if len(seen):
        ax.set_xscale("log")
        middle = np.sqrt(seen.min() * seen.max())
        half = max(np.sqrt(seen.max() / seen.min()) * 1.5, 4.0)
        ax.set_xlim(middle / half, middle * half)
    zero = [figure_text(_short(name)) + (" (zero)" if norm == 0 else "") for name, norm in found.norms.items()]
    ax.set_yticks(at, zero)
    ax.set_ylim(len(found.names) - 0.4, -0.6)
    ax.set_xlabel("gradient norm" + (" (|: its noise)" if found.noise is not None else ""))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
