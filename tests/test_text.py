"""Text from users is text, in every medium."""

import csv
import io
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from mtopt import plotting
from mtopt._text import (
    console,
    csv_text,
    figure_label,
    figure_text,
    file_names,
    html_text,
    joined,
    terminal_text,
    visible,
)
from mtopt.plotting import to_svg

HARMLESS = ["mgda", "GDiff(0.9)", "NGDiff+GeN", "Käthe", "a b", "module:Class", "損失"]
HOSTILE = [
    "x[/y]",
    "mgda[gen]",
    "[red]a",
    "\\[b]",
    "$5 to $6",
    "$\\foo$",
    "a$b",
    "a\\$b$c$",
    "_mine",
    "__mine",
    "<b>&\"'",
    "\x1b[31mred\x07",
    "a\nb\tc\r",
    "\u202egnp.exe",
    "half \ud83d",
    "=1+1",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays_as_it_is(text):
    assert visible(text) == figure_text(text) == html_text(text) == csv_text(text) == terminal_text(text).plain == text


def test_what_is_not_seen_is_written_out():
    assert visible("\x1b[31m a\nb\x9b \u202e \ud83d é") == "\\x1b[31m a\\nb\\x9b \\u202e \\ud83d é"
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("text", HARMLESS + HOSTILE)
def test_a_terminal_shows_the_text_and_obeys_nothing(text):
    file = io.StringIO()
    screen = console(file, force_terminal=True, color_system="truecolor", width=200)
    screen.print(terminal_text(text, keep=""))
    assert file.getvalue() == visible(text) + "\n"


def texts_of(svg):
    """What an SVG's text elements say, as a reader sees it: a formula is broken up into paths and pieces."""
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("text", HARMLESS + HOSTILE)
@pytest.mark.filterwarnings("ignore:Glyph")  # a font that lacks a letter
def test_a_figure_shows_the_text(text):
    points = [[0.0, 1.0], [1.0, 0.0]]
    ax = plotting.plot_front({text: points}, title=figure_text(text))
    shown = ["".join(words.split("\N{ZERO WIDTH SPACE}")) for words in texts_of(to_svg(ax.figure))]
    plt.close(ax.figure)
    # the title and the legend; an SVG has a text element a line
    for line in visible(text, keep="\n").split("\n"):
        assert shown.count(line) >= 2 or not line.strip()


FIGURES = {
    "attainment": lambda name: plotting.plot_attainment({name: [[[0, 1], [1, 0]]] * 2}),
    "conflicts": lambda name: plotting.plot_conflicts({(name, "b"): [0.1, -0.2]}),
    "curves": lambda name: plotting.plot_curves({name: [([1, 2], [3.0, 4.0])]}),
    "front": lambda name: plotting.plot_front({name: [[0, 1], [1, 0]]}, reference=(2, 2), shade=True),
    "front in space": lambda name: plotting.plot_front({name: [[0, 1, 1], [1, 0, 2]]}),
    "parallel": lambda name: plotting.plot_parallel({name: [[0, 1, 1, 3], [1, 0, 2, 1]]}),
    "ranking": lambda name: plotting.plot_ranking({name: 1.0, "b": 2.0}, baseline=name),
    "step": lambda name: plotting.plot_step_geometry(
        {name: [1.0, 0.0, 1.0], "b": [0.0, 1.0, 1.0]}, {name: [1.0, 1.0, 0.0]}
    ),
    "step in space": lambda name: plotting.plot_step_geometry(
        {name: [1.0, 0.0, 0.0], "b": [0.0, 1.0, 0.0], "c": [0.0, 0.0, 1.0]}, {name: [1.0, 1.0, 0.0]}, dimensions=3
    ),
    "trajectories": lambda name: plotting.plot_trajectories({name: [[0, 1], [1, 0]]}, targets={name: (1, 1)}),
    "weights": lambda name: plotting.plot_weights({name: [0.5, 0.5], "b": [0.5, 0.5]}),
    "weights stacked": lambda name: plotting.plot_weights({name: [0.5, 0.5], "b": [0.5, 0.5]}, stacked=True),
}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("name", ["_a $b$ <c>", "$\\foo$"])
def test_every_figure_takes_names_for_text(figure, name):
    ax = FIGURES[figure](name)
    svg = to_svg(ax.figure)
    plt.close(ax.figure)
    assert any(name in text for text in texts_of(svg))


def test_axis_labels_may_hold_formulas_and_are_text_where_they_cannot_be_read():
    assert figure_label("$f_1$ in s") == "$f_1$ in s"
    assert figure_label("$\\foo$") == figure_text("$\\foo$")
    assert figure_label("cost in $") == figure_text("cost in $")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.said, self.attributes = [], "", {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.update(attributes)

    def handle_data(self, data):
        self.said += data


@pytest.mark.parametrize("text", HARMLESS + HOSTILE)
def test_a_page_shows_the_text(text):
    found = Page(f'<p title="{html_text(text)}">{html_text(text)}</p>')
    found_text = visible(text, keep="\n")
    assert (found.tags, found.said, found.attributes) == (["p"], found_text, {"title": found_text})
    html_text(text).encode("utf-8")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "'=1+1"])
def test_a_cell_is_no_formula(text):
    assert csv_text(text) == f"'{text}"


def test_different_texts_stay_different_in_a_table():
    texts = [*HARMLESS, *HOSTILE, "'=1+1", "''=1+1", "'a"]
    cells = [csv_text(text) for text in texts]
    assert len(set(cells)) == len(cells)
    file = io.StringIO()
    csv.writer(file).writerow(cells)
    assert next(csv.reader(io.StringIO(file.getvalue()))) == cells


def test_names_put_together_stay_different():
    pairs = [("a", "b"), ("a,b", "c"), ("a", "b,c"), ("a, b", "c"), ("a", "b, c"), ("'a'", "b"), ("", "a"), ("a", "")]
    assert joined(("a", "b")) == "a, b"
    for separator in (", ", ","):
        assert len({joined(pair, separator) for pair in pairs}) == len(pairs)


TASKS = [
    ("s", "quad"),
    ("s", "quad-2"),
    ("s", "a/b-c"),
    ("s", "a-b/c"),
    ("s-a", "b-c"),
    ("s", "Quad"),
    ("s", "é"),
    ("s", unicodedata.normalize("NFD", "é")),
    ("s", "../../x"),
    ("/home/victim", "logo"),
    ("..", ".."),
    ("", ""),
    ("s", "long " * 100),
    ("s", "long " * 101),
    ("s", "損" * 200),
    ("s", "a\x00b\n\ud83d"),
]


def test_files_of_different_tasks_have_different_names_in_one_folder():
    names = file_names({task: task for task in TASKS})
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in names.values()}
    assert len(folded) == len(TASKS)
    for name in names.values():
        assert name.isprintable()
        assert not set(name) & set("/\\:\0")
        assert not name.startswith(".")
        assert len(f"{name}-trajectories.svg".encode()) <= 255
    assert names["s", "quad"] != names["s", "Quad"]
    assert file_names({1: ("toy", "vlmop2"), 2: ("toy", "zdt1")}) == {1: "toy-vlmop2", 2: "toy-zdt1"}
