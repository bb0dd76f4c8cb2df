"""What was measured of the steps, as Markdown, as a figure and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mtopt.plotting
from mtopt.files import write_text

from . import _cost_model
from ._lines import Line
from ._memory import MIB, Memory
from ._targets import MEMORY_LIMIT, memory_verdicts, time_verdicts
from .models import build
from .step import Cell, Spread

Weighed = Mapping[tuple[str, int], Mapping[str, Memory]]

_WAYS = {"resident": "resident", "returning": "resident, freed memory returned", "tensors": "tensors"}


def markdown(cells: Sequence[Cell], weighed: Weighed, chosen: Sequence[Line]) -> str:
    """All tables, each with a heading."""
    parts = ["## Targets\n", *_targets(cells, weighed)]
    for threads in sorted({cell.threads for cell in cells}):
        some = [cell for cell in cells if cell.threads == threads]
        parts += [f"\n## Time of a step over a plain one, {clock(threads)}\n", *_times(some, chosen)]
    if weighed:
        parts += ["\n## Peak memory of a step, MiB\n", *_memories(weighed, chosen)]
    one = [cell for cell in cells if cell.threads == min(cell.threads for cell in cells)]
    if any(line.kind == "part" for line in chosen):
        parts += ["\n## Cost model: measured over predicted\n", *_predictions(one, weighed, chosen)]
    failed = {f"{name}: {words}" for cell in cells for name, words in cell.failed.items()}
    parts += [f"\nNot run: {words}" for words in sorted(failed)]
    return "\n".join(parts) + "\n"


def clock(threads: int) -> str:
    return "one thread, CPU time" if threads == 1 else f"{threads} threads, wall time"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'--:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _spread(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def _places(cells: Sequence[Cell]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((cell.model, cell.tasks) for cell in cells))


def _targets(cells: Sequence[Cell], weighed: Weighed) -> Iterator[str]:
    rows = []
    for found in time_verdicts(cells):
        place = [found.model, str(found.tasks), str(found.threads)]
        verdict = "met" if found.met else "not met"
        rows.append([f"{found.what}: {found.line}", *place, f"{found.limit}", _spread(found.found), verdict])
    sizes = {cell.model: cell.size for cell in cells}
    for model, tasks, jacobians in memory_verdicts(weighed, sizes):
        for way, count in jacobians.items():
            place = [model, str(tasks), "1"]
            verdict = "met" if count <= MEMORY_LIMIT else "not met"
            what = f"Jacobians beyond the plain step: mgda, {_WAYS[way]}"
            rows.append([what, *place, f"{MEMORY_LIMIT}", f"{count:.2f}", verdict])
    yield from _table(["target", "model", "K", "threads", "at most", "found (quartiles)", ""], rows)


def _times(cells: Sequence[Cell], chosen: Sequence[Line]) -> Iterator[str]:
    rows = []
    for line in chosen:
        ratios = [cell.ratio(line.name, "plain sum") for cell in cells]
        if any(ratio is not None for ratio in ratios) and line.kind != "part":
            rows.append([line.name, *("" if ratio is None else _spread(ratio) for ratio in ratios)])
    yield from _table(["step", *(f"{cell.model}, K = {cell.tasks}" for cell in cells)], rows)
    plain = ", ".join(f"{cell.model} K = {cell.tasks}: {1e3 * cell.median('plain sum'):.1f} ms" for cell in cells)
    yield f"\nPlain step: {plain}. Median (quartiles) over {len(next(iter(cells[0].wall.values())))} rounds or fewer."


def _memories(weighed: Weighed, chosen: Sequence[Line]) -> Iterator[str]:
    rows = []
    for line in chosen:
        found = [by_line.get(line.name) for by_line in weighed.values()]
        if any(found):
            rows.append([line.name, *("" if memory is None else _weight(memory) for memory in found)])
    yield from _table(["step", *(f"{model}, K = {tasks}" for model, tasks in weighed)], rows)
    yield "\nResident / resident where glibc returns freed memory at once / allocated for tensors."


def _weight(memory: Memory) -> str:
    parts = (memory.resident, memory.returning, memory.tensors)
    return " / ".join(f"{part:.0f}" for part in parts if part is not None)


def _predictions(cells: Sequence[Cell], weighed: Weighed, chosen: Sequence[Line]) -> Iterator[str]:
    rows = []
    for line in chosen:
        row = []
        for cell in cells:
            expected = _cost_model.seconds(line.name, cell) if line.name in cell.seconds else None
            row.append("" if expected is None else f"{cell.median(line.name) / expected:.2f}")
        if any(row):
            rows.append([f"{line.name}, time", *row])
    for line in chosen:
        row = []
        for cell in cells:
            found = weighed.get((cell.model, cell.tasks), {})
            if line.name not in found or "plain sum" not in found or cell.model == "small":
                row.append("")
                continue
            sizes = [4 * param.numel() / MIB for param in build(cell.model, cell.tasks).trunk.parameters()]
            plain = found["plain sum"].tensors
            expected = _cost_model.mebibytes(line.name, cell.tasks, plain, sum(sizes), max(sizes))
            row.append("" if expected is None else f"{found[line.name].tensors / expected:.2f}")
        if any(row):
            rows.append([f"{line.name}, tensors", *row])
    yield from _table(["step", *(f"{cell.model}, K = {cell.tasks}" for cell in cells)], rows)


def write_json(path: Path, cells: Sequence[Cell], weighed: Weighed, settings: Mapping[str, Any]) -> None:
    """Every round's seconds, every memory."""
    memory = [
        {"model": model, "tasks": tasks, "line": name, **asdict(found)}
        for (model, tasks), by_line in weighed.items()
        for name, found in by_line.items()
    ]
    write_text(path, json.dumps({"settings": settings, "times": [asdict(c) for c in cells], "memory": memory}) + "\n")


# -- the figure ---------------------------------------------------------------------------------------------------

_KINDS = {"plain": "by hand", "floor": "by hand", "own": "mtopt", "TorchJD": "TorchJD", "LibMTL": "LibMTL"}

_DRAWN = {
    "plain sum": "plain step, losses added up",
    "linear": "a rule on losses (linear)",
    "Every(mgda, 10)": "weights kept for ten steps",
    "mgda, matrix-free displacement": "matrix-free, displacement",
    "mgda, matrix-free exact": "matrix-free, exact",
    "mgda": "MGDA by default",
    "mgda, rows": "MGDA, rows kept",
    "hand-written, mgda": "MGDA written by hand",
    "mtl_backward, MGDA": "MGDA of TorchJD",
    "LibMTL MGDA": "MGDA of LibMTL",
}
"""The steps in the figure, cheapest first, and what they are called there: one rule by every way that there is."""


def draw(cells: Sequence[Cell], weighed: Weighed, chosen: Sequence[Line]) -> Any:
    """A row of panels for each model: time over a plain step and tensors at once, with a mark for each K; the Figure.

    Of several models only those that were weighed are drawn, if any was.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    heavy = list(dict.fromkeys(model for model, _ in weighed))
    models = heavy or list(dict.fromkeys(cell.model for cell in cells))
    by_name = {line.name: line for line in chosen if line.name in cells[0].seconds}
    shown = [by_name[name] for name in _DRAWN if name in by_name]
    counts = sorted({cell.tasks for cell in cells} | {tasks for _, tasks in weighed})
    looks = mtopt.plotting.series_styles(["by hand", "mtopt", "TorchJD", "LibMTL"])
    with mtopt.plotting.style():
        figure, panels = plt.subplots(
            len(models),
            1 + bool(heavy),
            figsize=(4.6 + 2.8 * bool(heavy), (0.9 + 0.2 * len(shown)) * len(models) + 0.4),
            squeeze=False,
            sharex="col",
            layout="constrained",
        )
        for place, model in enumerate(models):
            some = [cell for cell in cells if cell.model == model]
            times = {
                (line.name, cell.tasks): ratio.median
                for cell in some
                for line in shown
                if (ratio := cell.ratio(line.name, "plain sum")) is not None
            }
            _dots(panels[place, 0], times, shown, looks, counts=counts, labelled=True)
            panels[place, 0].set_title(f"{model}, {some[0].size / 1e6:.2f} M parameters")
            if heavy:
                found = {
                    (name, tasks): memory.tensors
                    for (mine, tasks), by_line in weighed.items()
                    if mine == model
                    for name, memory in by_line.items()
                }
                _dots(panels[place, 1], found, shown, looks, counts=counts, labelled=False)
        panels[-1, 0].set_xlabel(f"time over a plain step ({clock(cells[0].threads)})")
        if heavy:
            panels[-1, 1].set_xlabel("tensors allocated at once (MiB)")
        handles = [
            Line2D([], [], linestyle="", marker=_MARKS[index], color="#444444", label=f"K = {tasks}")
            for index, tasks in enumerate(counts[: len(_MARKS)])
        ]
        named = dict.fromkeys(_KINDS[line.kind] for line in shown)
        handles += [Line2D([], [], linestyle="", marker="o", color=looks[n].color, label=n) for n in named]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


_MARKS = ("o", "s", "D", "^", "v")


def _dots(
    ax: Any,
    values: Mapping[tuple[str, int], float],
    shown: Sequence[Line],
    looks: Any,
    *,
    counts: Sequence[int],
    labelled: bool,
) -> None:
    heights = {line.name: -height for height, line in enumerate(shown)}
    for line in shown:
        color = looks[_KINDS[line.kind]].color
        known = [values[line.name, tasks] for tasks in counts if (line.name, tasks) in values]
        if known:
            ax.plot([min(known), max(known)], [heights[line.name]] * 2, color=color, linewidth=0.8, alpha=0.5)
        for index, tasks in enumerate(counts):
            if (line.name, tasks) in values:
                mark = {"marker": _MARKS[index % len(_MARKS)], "color": color, "markersize": 4.0, "linestyle": ""}
                ax.plot([values[line.name, tasks]], [heights[line.name]], **mark)
    ax.set_xscale("log")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(list(heights.values()), [_DRAWN[name] for name in heights] if labelled else [""] * len(heights))
    ax.grid(axis="y", visible=False)
