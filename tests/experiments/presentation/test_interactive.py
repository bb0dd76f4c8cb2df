"""The interactive front: every run is there, as text, and nothing comes from elsewhere."""

import html
import re
from html.parser import HTMLParser

import matplotlib as mpl
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from mtopt.experiments._results import Cell
from mtopt.experiments.presentation._figures import _front, report_styles
from mtopt.experiments.presentation._interactive import SCRIPT, STYLE, interactive, spots_of

RULE = "<b>\"a\" & 'b'</b>\\1"
STATIC = "linear, weights 0.1 to 0.9"


def run(seed, points, **hyperparameters):
    return {
        "seed": seed,
        "learning_rate": 0.0123456,
        "hyperparameters": hyperparameters,
        "result": {"points": {"test": points}, "score": {"test": 0.5}},
    }


def cell(combiner, runs, *, objectives=("loss", "accuracy"), front=(), whole=None):
    task = {
        "name": "task",
        "title": "a task",
        "labels": list(objectives),
        "objectives": [{"name": name, "sense": "max" if name == "accuracy" else "min"} for name in objectives],
        "front": None,
        "front_hypervolume": whole,
    }
    return Cell("suite", task, combiner, tuple(runs), tuple(front), None, 1, (), {})


CELLS = [
    cell(RULE, [run(0, [[0.2, -0.9], [0.4, -0.5]], note="</title><script>"), run(1, [[0.1, -0.7], [99.0, -0.1]])]),
    cell("linear", [run(0, [[0.3, -0.3], [float("nan"), 0.0]])], front=[run(0, [[0.5, -0.95]], weights=[0.1, 0.9])]),
]


def page(cells):
    styles = report_styles([c.combiner for c in cells])
    figure = _front(cells, styles)
    try:
        return interactive(figure, cells, 'A "caption" & more.')
    finally:
        plt.close(figure)


class Spots(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.spots, self.tags, self.links, self.inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if found.get("class") == "spot":
            self.spots.append({**found, "text": ""})
        self.inside = tag == "title"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.spots[-1]["text"] += data


@pytest.fixture(scope="module")
def front():
    return page(CELLS)


def test_every_run_is_there_and_escaped(front):
    found = Spots(front)
    texts = [spot["text"] for spot in found.spots]
    assert len(texts) == 6  # the point with NaN has no place
    assert sum(text.startswith(RULE + "\n") for text in texts) == 4
    assert f"{RULE}\nseed 0, training 1 of 2\nloss 0.2, accuracy 0.9\nhypervolume of the run 0.5\n" in texts[0]
    assert 'learning rate 0.01235, note "</title><script>"' in texts[0]
    assert texts[-1].startswith(f"{STATIC}\nseed 0\nloss 0.5, accuracy 0.95")
    assert "weights [0.1, 0.9]" in texts[-1]
    assert "script" not in found.tags
    assert "b" not in found.tags


def test_the_points_of_one_run_belong_together(front):
    runs = [spot["data-run"] for spot in Spots(front).spots]
    assert runs == [f"0 {RULE}"] * 2 + [f"1 {RULE}"] * 2 + ["0 linear", "static 0"]


def test_one_point_is_in_the_tab_order_and_each_has_a_mark_of_its_own(front):
    found = Spots(front)
    assert [spot["tabindex"] for spot in found.spots] == ["0", *["-1"] * 5]
    assert {spot["role"] for spot in found.spots} == {"img"}
    for spot in found.spots:
        group = front[front.index(f'id="{spot["id"]}"') :]
        assert "<use" in group[: group.index("</g>")]


def test_nothing_is_loaded(front):
    assert all(link.startswith("#") for link in Spots(front).links)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", front + STYLE + SCRIPT)
    assert "innerHTML" not in SCRIPT


def test_the_caption_is_told_and_a_known_front_gives_shares():
    text = page([cell("linear", [run(3, [[0.3, 0.3]])], objectives=("a", "b"), whole=0.8)])
    assert f'role="group" aria-label="{html.escape("A " + chr(34) + "caption" + chr(34) + " & more.")}"' in text
    assert "hypervolume of the run 62.5 % of the whole front" in text


def test_three_objectives_are_marked_and_more_stay_plain():
    points = [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]
    assert len(Spots(page([cell("linear", [run(0, points)], objectives="abc")])).spots) == 2
    assert page([cell("linear", [run(0, [[0.1, 0.2, 0.3, 0.4]] * 2)], objectives="abcd")]) is None


@pytest.mark.parametrize("cells", [CELLS, CELLS[:1]])
def test_spots_go_rule_by_rule_and_by_the_first_objective(cells):
    by_run = {}
    for spot in spots_of(cells):
        by_run.setdefault(spot.run, []).append(spot.at[0])
    assert all(values == sorted(values) for values in by_run.values() if values[-1] == values[-1])
