"""The front of a task in the report: the run under the pointer, or the arrow keys, is described. Works offline."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtopt._text import html_text
from mtopt.experiments._plan import TUNING_SEED
from mtopt.experiments._results import Cell
from mtopt.experiments.presentation._figures import STATIC
from mtopt.experiments.presentation._pieces import in_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


STYLE = """
figure.runs { position: relative } .spot { cursor: pointer } .spot:focus { outline: none }
.ring { fill: none; stroke: #1a1a1a; stroke-width: 1.5; pointer-events: none } .ring.same { stroke-dasharray: 2 1.5 }
.tip { position: absolute; max-width: 22rem; padding: .4rem .6rem; background: #fff; border: 1px solid #888;
       border-radius: 3px; box-shadow: 0 2px 6px #0003; font-size: .8rem; line-height: 1.35; white-space: pre-line;
       pointer-events: none; z-index: 1 }
.tip[hidden] { display: none }
"""

# Without it the texts are still there, as the native tooltips of the points. They are put on the page as text, never
# as markup.
SCRIPT = """
"use strict";
for (const figure of document.querySelectorAll("figure.runs")) {
  const svg = figure.querySelector("svg"), tip = figure.querySelector(".tip");
  const spots = [...svg.querySelectorAll(".spot")];
  for (const spot of spots) {
    const title = spot.querySelector("title");
    spot.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  let rings = [];
  const hide = () => { tip.hidden = true; rings.forEach((ring) => ring.remove()); rings = []; };
  const circle = (spot, kind) => {
    const box = spot.getBBox(), ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "ring " + kind);
    ring.setAttribute("cx", box.x + box.width / 2);
    ring.setAttribute("cy", box.y + box.height / 2);
    ring.setAttribute("r", 6.5);
    svg.append(ring);
    rings.push(ring);
  };
  const show = (found, x, y) => {
    hide();
    const texts = found.slice(0, 3).map((spot) => spot.getAttribute("aria-label"));
    if (found.length > 3) texts.push(`and ${found.length - 3} more here`);
    tip.textContent = texts.join("\\n\\n");
    spots.filter((s) => s !== found[0] && s.dataset.run === found[0].dataset.run).forEach((s) => circle(s, "same"));
    circle(found[0], "this");
    tip.hidden = false;
    const frame = figure.getBoundingClientRect();
    tip.style.left = Math.max(0, Math.min(x - frame.left + 14, frame.width - tip.offsetWidth)) + "px";
    tip.style.top = y - frame.top + 14 + "px";
  };
  svg.addEventListener("pointermove", (event) => {
    const below = document.elementsFromPoint(event.clientX, event.clientY).map((e) => e.closest(".spot"));
    const found = [...new Set(below)].filter((spot) => spot !== null && svg.contains(spot));
    if (found.length) show(found, event.clientX, event.clientY); else hide();
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focusout", hide);
  svg.addEventListener("focusin", (event) => {
    const spot = event.target.closest(".spot");
    if (spot === null) return;
    spots.forEach((s) => s.setAttribute("tabindex", s === spot ? 0 : -1));
    const box = spot.getBoundingClientRect();
    show([spot], box.x + box.width / 2, box.y + box.height / 2);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const here = spots.indexOf(document.activeElement);
    if (event.key === "Escape") hide();
    if (step === undefined || here < 0) return;
    event.preventDefault();
    spots[(here + step + spots.length) % spots.length].focus();
  });
}
"""


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of the front's figure: where it is, what is said of it, and which run it belongs to."""

    at: tuple[float, ...]
    text: str
    run: str


def interactive(figure: Figure, cells: Sequence[Cell], caption: str) -> str | None:
    """The ``<figure>`` of a front that shows its runs; None where nothing can be pointed at.

    Draws invisible marks on the figure, so call it after the figure is saved elsewhere.
    """
    from mtopt.plotting import panels_to_svg

    spots = [spot for spot in spots_of(cells) if all(map(math.isfinite, spot.at))]
    if not spots or len(spots[0].at) > 3:  # parallel axes have no point to a run
        return None
    _mark(figure, spots)
    svg, *legends = panels_to_svg(figure)
    svg = re.sub(r'<g id="[\w-]+-spot-(\d+)">', lambda tag: f"{tag[0][:-1]} {_opening(spots, int(tag[1]))}", svg)
    svg = svg.replace('role="img"', f'role="group" aria-label="{html_text(caption)}"', 1)
    hint = "Point at a mark, or move with Tab and the arrow keys, to see its run."
    return (
        f'<figure class="runs">{in_panels([svg, *legends])}<div class="tip" role="status" hidden></div>'
        f"<figcaption>{html_text(caption)} {hint}</figcaption></figure>"
    )


def _opening(spots: Sequence[Spot], number: int) -> str:
    """What goes into the tag of a spot's group, and after it."""
    spot = spots[number]
    return (
        f'class="spot" role="img" tabindex="{0 if number == 0 else -1}" data-run="{html_text(spot.run)}">'
        f"<title>{html_text(spot.text)}</title>"
    )


def spots_of(cells: Sequence[Cell]) -> list[Spot]:
    """Every point of every run, rule by rule and by increasing first objective: the order of the arrow keys."""
    spots: list[Spot] = []
    for cell in cells:
        for run in cell.runs:
            spots += sorted(_spots(cell, run, cell.combiner), key=lambda spot: spot.at)
    for cell in cells:
        static = [
            spot for number, run in enumerate(cell.front) for spot in _spots(cell, run, STATIC, f"static {number}")
        ]
        spots += sorted(static, key=lambda spot: spot.at)
    return spots


def _spots(cell: Cell, run: Mapping[str, Any], name: str, key: str | None = None) -> Iterator[Spot]:
    points = run["result"]["points"]["test"]
    objectives = cell.task["objectives"]
    settings = {"learning rate": run["learning_rate"], **run["hyperparameters"]}
    share = cell.task["front_hypervolume"] is not None
    score = f"{100 * cell.score_of(run):.1f} % of the whole front's" if share else f"{cell.score_of(run):.4g}"
    for number, point in enumerate(points, start=1):
        place = ("the tuning seed" if run["seed"] == TUNING_SEED else f"seed {run['seed']}") + (
            f", training {number} of {len(points)}" if len(points) > 1 else ""
        )
        # a maximised objective is stored with its sign flipped
        values = [
            f"{objective['name']} {(-value if objective['sense'] == 'max' else value):.5g}"
            for objective, value in zip(objectives, point, strict=True)
        ]
        lines = [
            name,
            place,
            ", ".join(values),
            f"hypervolume of the run {score}",
            ", ".join(f"{setting} {_plain(value)}" for setting, value in settings.items()),
        ]
        yield Spot(tuple(float(value) for value in point), "\n".join(lines), key or f"{run['seed']} {cell.combiner}")


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _mark(figure: Figure, spots: Sequence[Spot]) -> None:
    """An invisible mark with an id of its own at each spot; at the border for what lies beyond it."""
    from mtopt.plotting.offscale import border_places

    (ax,) = figure.axes
    at = np.array([spot.at for spot in spots])
    intervals = [getattr(ax, f"get_{axis}lim")() for axis in "xyz"[: at.shape[1]]]
    low, high = np.array(intervals).T
    places = np.clip(at, low, high) if at.shape[1] == 3 else low + border_places(at, intervals) * (high - low)
    for number, place in enumerate(places):
        ax.plot(
            *place[:, None],
            linestyle="none",
            marker="o",
            markersize=9,
            alpha=0.0,
            zorder=20,
            label=f"_spot {number}",
            gid=f"spot-{number}",
        )
