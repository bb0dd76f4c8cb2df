"""What was measured, as tables, a figure and a file."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mtopt.plotting
from mtopt.files import write_text

OWN, PEER = "mtopt", "TorchJD"


@dataclass(frozen=True)
class Measured:
    """One side of a cell: seconds a call, one entry a round, and the errors of its first answers."""

    seconds: list[float]
    errors: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def error(self) -> float | None:
        """The worst one; NaN if there is one."""
        if any(math.isnan(error) for error in self.errors):
            return math.nan
        return max(self.errors, default=None)


@dataclass(frozen=True)
class Cell:
    """One rule at one K; ``peer`` is None where TorchJD was not timed."""

    rule: str
    title: str
    count: int
    meaning: str
    own: Measured
    peer: Measured | None

    @property
    def ratio(self) -> float | None:
        """How many times as long TorchJD takes."""
        return None if self.peer is None else self.peer.median / self.own.median


def geometric_mean(cells: Iterable[Cell]) -> float | None:
    """Of the ratios there are; None without any."""
    ratios = [cell.ratio for cell in cells if cell.ratio is not None]
    return statistics.geometric_mean(ratios) if ratios else None


def write_json(path: Path, cells: Sequence[Cell], settings: dict[str, Any]) -> None:
    """The raw figures: every round's seconds a call and every error, beside the medians and ratios."""
    rows = [
        {
            **asdict(cell),
            "ratio": cell.ratio,
            "own_median": cell.own.median,
            "peer_median": None if cell.peer is None else cell.peer.median,
        }
        for cell in cells
    ]
    write_text(path, json.dumps({"settings": settings, "cells": rows}, indent=1) + "\n")


# -- tables -------------------------------------------------------------------------------------------------------


def print_tables(cells: Sequence[Cell], settings: dict[str, Any], file: Any = None) -> None:
    """Times and errors of every cell, then the ratios with their geometric means."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file)
    if not console.is_terminal:
        console = Console(file=file, width=120)
    compared = any(cell.peer is not None for cell in cells)
    times = Table(title="Weights alone, Gramian given: median CPU time of a call, one thread", title_justify="left")
    times.add_column("rule", no_wrap=True)
    for heading in ["K", OWN, *([PEER, "ratio"] if compared else []), f"error, {OWN}"]:
        times.add_column(heading, justify="right", no_wrap=True)
    if compared:
        times.add_column(f"error, {PEER}", justify="right", no_wrap=True)
    for rule in _rules(cells):
        own_cells = [cell for cell in cells if cell.rule == rule]
        for place, cell in enumerate(own_cells):
            row = [cell.title if place == 0 else "", str(cell.count), duration(cell.own.median)]
            peer = cell.peer
            if compared:
                row += ["-", "-"] if peer is None else [duration(peer.median), _ratio(cell.ratio)]
            row.append(error_text(cell.own.error))
            if compared:
                row.append("-" if peer is None else error_text(peer.error))
            times.add_row(*row, end_section=place == len(own_cells) - 1)
    console.print(times)
    console.print("Errors, the worst of the first answers of each side:", highlight=False)
    meanings: dict[str, list[str]] = {}
    for title, meaning in {cell.title: cell.meaning for cell in cells}.items():
        meanings.setdefault(meaning, []).append(title)
    for meaning, titles in meanings.items():
        console.print(f"  {', '.join(titles)}: {meaning}", highlight=False)
    if compared:
        console.print()
        console.print(_ratio_table(cells))
        console.print(
            f"{PEER} {settings['versions']['torchjd']} over {OWN} {settings['versions']['mtopt']}: medians of "
            f"interleaved rounds, above 1 {OWN} is faster. NashMTL and ConFIG of {PEER} take gradients and get the "
            f"fewest coordinates there are, K. Where the solver of {PEER}'s NashMTL fails it keeps earlier weights.",
            highlight=False,
        )


def write_markdown(path: Path, cells: Sequence[Cell]) -> None:
    """The ratios as a Markdown table, mtopt's times in brackets; only the times where TorchJD was not timed."""
    counts = sorted({cell.count for cell in cells})
    compared = any(cell.peer is not None for cell in cells)
    lines = [
        f"| rule | {' | '.join(f'K = {count}' for count in counts)} |{' geometric mean |' if compared else ''}",
        f"|---|{'--:|' * (len(counts) + compared)}",
    ]
    for rule in _rules(cells):
        row = [cell for cell in cells if cell.rule == rule]
        by_count = {cell.count: _markdown_entry(cell) for cell in row}
        entries = [by_count.get(count, "") for count in counts]
        entries += [_ratio(geometric_mean(row))] if compared else []
        lines.append(f"| {row[0].title} | {' | '.join(entries)} |")
    if compared:
        means = [_ratio(geometric_mean(cell for cell in cells if cell.count == count)) for count in counts]
        lines.append(f"| **geometric mean** | {' | '.join(means)} | **{_ratio(geometric_mean(cells))}** |")
    write_text(path, "\n".join(lines) + "\n")


def _markdown_entry(cell: Cell) -> str:
    own = duration(cell.own.median)
    return own if cell.ratio is None else f"{_ratio(cell.ratio)} ({own})"


def _ratio_table(cells: Sequence[Cell]) -> Any:
    from rich.table import Table

    counts = sorted({cell.count for cell in cells})
    table = Table(title=f"Times as long as {OWN} that {PEER} takes", title_justify="left")
    table.add_column("rule", no_wrap=True)
    for count in counts:
        table.add_column(f"K = {count}", justify="right", no_wrap=True)
    table.add_column("geometric mean", justify="right")
    for rule in _rules(cells):
        row = [cell for cell in cells if cell.rule == rule]
        by_count = {cell.count: cell.ratio for cell in row}
        table.add_row(row[0].title, *(_ratio(by_count.get(count)) for count in counts), _ratio(geometric_mean(row)))
    table.add_section()
    means = [_ratio(geometric_mean(cell for cell in cells if cell.count == count)) for count in counts]
    table.add_row("geometric mean", *means, _ratio(geometric_mean(cells)))
    return table


def duration(seconds: float) -> str:
    """``12 µs``, ``3.4 ms``, ``2.1 s``: two digits or three."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 0.9995 or unit == "µs":
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    raise AssertionError("the last unit takes everything")


def error_text(error: float | None) -> str:
    """``3e-14``, ``0.02`` or ``17``; below 1e-15 there is only rounding."""
    if error is None:
        return "-"
    if abs(error) < 1e-15:
        return "<1e-15"
    return f"{error:.0e}" if abs(error) < 0.01 else f"{error:.2g}" if abs(error) < 10.0 else f"{error:.0f}"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    if 0.945 <= ratio < 1.055:  # two digits where they decide which side is faster
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"


def _rules(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.rule for cell in cells))


# -- the figure ---------------------------------------------------------------------------------------------------


def draw(cells: Sequence[Cell]) -> Any:
    """One panel per rule: time over K for both sides, with the ratio at every K and the worst errors; the Figure."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullLocator

    rules = _rules(cells)
    counts = sorted({cell.count for cell in cells})
    looks = mtopt.plotting.series_styles([OWN, PEER])
    columns = min(len(rules), 4)
    rows = math.ceil(len(rules) / columns)
    medians = [side.median for cell in cells for side in (cell.own, cell.peer) if side is not None]
    with mtopt.plotting.style():
        figure, panels = plt.subplots(
            rows,
            columns,
            figsize=(0.6 + 2.6 * columns, 0.4 + 2.2 * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for place, rule in enumerate(rules):
            ax = panels.flat[place]
            _draw_rule(ax, [cell for cell in cells if cell.rule == rule], looks)
            if place + columns >= len(rules):  # the lowest of its column
                ax.set_xlabel("K, number of losses")
                ax.tick_params(labelbottom=True)
        ax = panels.flat[0]
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlim(min(counts) / 1.6, max(counts) * 1.6)
        ax.set_ylim(min(medians) / 2.0, max(medians) * 5.0)  # room for the ratios
        ax.xaxis.set_major_locator(FixedLocator(counts))
        ax.xaxis.set_major_formatter("{x:.0f}")
        ax.yaxis.set_major_locator(LogLocator(numticks=12))
        ax.yaxis.set_major_formatter(EngFormatter(unit="s"))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        for row in panels:
            row[0].set_ylabel("CPU time of a call")
        _add_legend(list(panels.flat[: len(rules)]), list(panels.flat[len(rules) :]), cells)
    return figure


def _add_legend(panels: Sequence[Any], spare: Sequence[Any], cells: Sequence[Cell]) -> None:
    """In the first panel that is left over, or else beside the figure."""
    title = f"×N: {PEER}'s time over {OWN}'s\nerror: the worst over K" if any(cell.peer for cell in cells) else None
    for ax in spare:
        ax.set_axis_off()
    if spare:
        full = next((ax for ax in panels if len(ax.lines) > 1), panels[0])
        handles, labels = full.get_legend_handles_labels()
        spare[0].legend(handles, labels, loc="upper left", title=title, alignment="left")
    else:
        mtopt.plotting.shared_legend(panels, title=title)


def _draw_rule(ax: Any, row: Sequence[Cell], looks: Any) -> None:
    from matplotlib.patheffects import withStroke

    for label, sides in ((OWN, [cell.own for cell in row]), (PEER, [cell.peer for cell in row])):
        known = [(cell.count, side.median) for cell, side in zip(row, sides, strict=True) if side is not None]
        if known:
            look = looks[label]
            line = {"color": look.color, "linestyle": look.linestyle, "marker": look.marker, "markersize": 4.5}
            ax.plot(*zip(*known, strict=True), label=label, **line)
    for cell in row:
        if cell.peer is not None:
            ax.annotate(
                f"×{_ratio(cell.ratio)}",
                (cell.count, max(cell.own.median, cell.peer.median)),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=6.5,
                path_effects=[withStroke(linewidth=2.0, foreground="white")],  # the line to the next point passes
            )
    ax.set_title(row[0].title, pad=14)
    note = "random order: no error to give"
    if row[0].own.errors:
        worst = {OWN: _worst(cell.own for cell in row), PEER: _worst(cell.peer for cell in row if cell.peer)}
        note = "error: " + ", ".join(f"{name} {error_text(e)}" for name, e in worst.items() if e is not None)
    ax.text(0.0, 1.03, note, transform=ax.transAxes, fontsize=7, color="#555555")


def _worst(sides: Iterable[Measured]) -> float | None:
    return Measured([], [error for side in sides for error in side.errors]).error
