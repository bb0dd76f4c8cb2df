"""The page and the figure of a run on one's own data, made from what the run has left in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mtopt.files import read_json, write_text
from mtopt.plotting import plot_trajectories, save, series_styles, style, to_svg

from .._recording import read_summary
from ..metrics import Evaluation
from .measure import FIGURES

EXAMPLES = 5
"""Rows of each set that the page shows, before and after."""

KEPT = 0.95
"""The share of the retained probability below which the page says that the training went too far."""

NAMES = {
    "nll": "NLL, nats a token",
    "probability": "probability of the answer",
    "rouge_l_recall": "ROUGE-L recall of what it says",
    "exact_memorisation": "exact memorisation",
    "extraction_strength": "extraction strength",
    "exact_match": "exact match",
    "truth_ratio": "truth ratio",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e5e5e5; vertical-align: top }
th:first-child, td:first-child, table.texts * { text-align: left } thead th { border-bottom: 2px solid #999 }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto } figcaption, .note { color: #555 }
code { font-size: .88em; background: #f5f5f5; padding: 0 .2em }
"""

Line = Mapping[str, Any]


def write_report(out: Path) -> Path:
    """Writes ``report.html`` and ``figures/tradeoff`` from the summaries, evaluations and settings in ``out``."""
    import matplotlib.pyplot as plt

    lines = read_summary(out / "summary.jsonl")
    first, last = (
        Evaluation.load(out / "evaluations" / f"step_{line['step']:06d}.json") for line in (lines[0], lines[-1])
    )
    settings = read_json(out / "settings.json", kind=dict)
    figure = draw_tradeoff(lines)
    svg = to_svg(save(figure, out / "figures" / "tradeoff")[-1], title="forgetting against retaining")
    plt.close(figure)
    parts = [
        f"<h1>Unlearning with {escape(_method(settings['arguments']))}</h1>",
        f"<p>{escape(tell(lines))}</p>",
        f"<figure>{svg}<figcaption>Left: the way from the model before, to the left being forgetting, up being "
        "retaining; a dot for each evaluation. Right: greedy answers while training.</figcaption></figure>",
        "<h2>Figures</h2>",
        _figures_table(lines[0], lines[-1], list(last.items)),
        _membership(lines[0], lines[-1]),
        "<h2>What the model says</h2>",
        *(_examples(name, first.items[name], last.items[name]) for name in ("forget", "retain")),
        "<h2>What was done</h2>",
        _table(
            ("", ""),
            [
                (name, _plain(value))
                for name, value in settings["arguments"].items()
                if value is not None and value is not False and value != {}
            ],
        ),
        f'<p class="note">{settings["weights"]["trained"]:,} of {settings["weights"]["all"]:,} weights trained; '
        f"{escape(', '.join(f'{name} {number}' for name, number in settings['versions'].items()))}.</p>",
    ]
    return write_text(
        out / "report.html",
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>mtopt: unlearning</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n",
    )


def draw_tradeoff(lines: Sequence[Line]) -> Any:
    """The path of the two probabilities, and ROUGE-L of both sets while training."""
    import matplotlib.pyplot as plt

    steps = np.array([line["step"] for line in lines], dtype=float)
    path = np.array([[line["forget_probability"], line["retain_probability"]] for line in lines])
    targets = {}
    if "holdout_probability" in lines[0]:
        # what a model gives to rows that it never saw is where forgetting is to end, and no further
        aim = [lines[0]["holdout_probability"], lines[0]["retain_probability"]]
        targets["held-out rows, before"] = np.array(aim)
    with style():
        figure = plt.figure(figsize=(9.2, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        plot_trajectories(
            {"this run": path},
            targets=targets,
            limits=((-0.03, 1.03), (-0.03, 1.03)),
            labels=("forget: probability of the answer", "retain: probability of the answer"),
            senses=("min", "max"),
            legend="inside",
            ax=left,
        )
        left.plot(path[1:, 0], path[1:, 1], linestyle="none", marker=".", color="#1A1A1A", zorder=6)
        looks = series_styles(("forget", "retain"))
        for name, look in looks.items():
            values = np.array([line[f"{name}_rouge_l_recall"] for line in lines], dtype=float)  # None: NaN
            right.plot(steps, values, color=look.color, linestyle=look.linestyle, marker=look.marker, label=name)
        right.set(xlabel="step", ylabel="ROUGE-L recall of greedy answers", ylim=(-0.03, 1.03))
        right.legend(loc="best")
    return figure


def tell(lines: Sequence[Line]) -> str:
    """The result in words."""
    before, after = lines[0], lines[-1]
    parts = [
        f"In {after['step']} steps the probability of what was to be forgotten went from "
        f"{before['forget_probability']:.3g} to {after['forget_probability']:.3g} (a geometric mean over an answer's "
        f"tokens), that of what was to be retained from {before['retain_probability']:.3g} to "
        f"{after['retain_probability']:.3g}."
    ]
    if "holdout_probability" in before:
        parts.append(
            f"Rows that it never saw had {before['holdout_probability']:.3g} before: far below that is no better "
            "forgotten, it stands out."
        )
    if after["retain_probability"] < KEPT * before["retain_probability"]:
        kept = [line for line in lines if line["retain_probability"] >= KEPT * before["retain_probability"]]
        least = min(kept, key=lambda line: float(line["forget_probability"]))
        met = (
            f"While {KEPT:.0%} of the retained probability was kept, the other came down to "
            f"{least['forget_probability']:.3g}, at step {least['step']}: "
            if least is not before
            else f"At no evaluation on the way was {KEPT:.0%} of the retained probability kept: "
        )
        parts.append(f"{met}try a lower --learning-rate, fewer --epochs, or a smaller --evaluate-every to see more.")
    return " ".join(parts)


def _method(arguments: Mapping[str, Any]) -> str:
    changed = [f"{name} {arguments[name]}" for name in ("forget_loss", "retain_loss", "rule") if arguments[name]]
    return f"{arguments['method']}{' and ' if changed else ''}{', '.join(changed)}"


def _figures_table(before: Line, after: Line, names: Sequence[str]) -> str:
    header = ["", *(f"{name}, {when}" for name in names for when in ("before", "after"))]
    rows = []
    for figure in (*FIGURES, "truth_ratio"):
        cells = [_number(line.get(f"{name}_{figure}")) for name in names for line in (before, after)]
        if any(cells):
            rows.append([NAMES[figure], *cells])
    return _table(header, rows)


def _membership(before: Line, after: Line) -> str:
    attacks = [name for name in after if name.startswith("auc_") and after[name] is not None]
    if not attacks:
        return '<p class="note">No membership inference: it needs rows that the model never saw (--holdout).</p>'
    rows = [(name.removeprefix("auc_"), _number(before[name]), _number(after[name])) for name in attacks]
    return (
        _table(("membership inference, AUC", "before", "after"), rows)
        + '<p class="note">1: rows to forget are told from held-out ones; 0.5: they are not; below: they stand out '
        f"as forgotten. PrivLeak (0: none): {_number(before['privleak'])} before, {_number(after['privleak'])} after."
        "</p>"
    )


def _examples(name: str, before: Sequence[Line], after: Sequence[Line]) -> str:
    rows = []
    for old, new in list(zip(before, after, strict=True))[:EXAMPLES]:
        asked = old.get("prompt", old.get("question"))
        asked = asked if isinstance(asked, str) else asked[-1]["content"]
        rows.append((asked, old.get("continuation", old.get("answer")), old["generation"], new["generation"]))
    return f"<h3>{escape(name)}</h3>" + _table(
        ("asked", "in the file", "before", "after"), [[_short(text) for text in row] for row in rows], kind="texts"
    )


def _short(text: str, most: int = 240) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "figures") -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
