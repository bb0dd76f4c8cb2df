"""A comparison whose names are of every kind: each figure in its place, each name as text."""

import re
import sqlite3
from io import StringIO

import pytest

import mtopt
from mtopt.experiments import Budget, Comparison, Contestant, Suite, compare
from mtopt.experiments._store import FILE_NAME
from mtopt.experiments.presentation._figures import all_figures
from mtopt.experiments.presentation._report import page
from mtopt.locks import LOCK_NAME
from tests.experiments import tiny

TASKS = ("quad", "quad-2", "a/b-c", "a-b/c", "../../out")
RULES = ("x[/y]", "mgda[gen]", "$\\foo$ $", "_mine\x1b[31m")


class Named(tiny.ParabolasTask):
    quick_budget = Budget(steps=2, points=2, trials=1, seeds=1)
    objectives = (mtopt.Objective("cost $"), mtopt.Objective("$x$ gain"))

    def __init__(self, name):
        super().__init__(name)
        self.title = f"title of {name}: $5 and $6 <i>"

    def values(self, trainer, split, *, seed):
        values = super().values(trainer, split, seed=seed)
        return {"cost $": values["near"], "$x$ gain": values["far"], "extra[/b]": 1.5}


SUITE = Suite(
    "s[/u]",
    tuple(map(Named, TASKS)),
    combiners=RULES,
    contestants=tuple(
        Contestant(name, rule) for name, rule in zip(RULES, ("mgda", "pcgrad", "upgrad", "mgda"), strict=True)
    ),
)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named") / "results"
    return compare(SUITE, out=folder, quick=True, jobs=1, progress=False)


@pytest.fixture(scope="module")
def drawn(named):
    """The page, its figures written to a folder."""
    return page(named, named.directory / "figures")


def test_every_task_has_its_own_figures_and_they_stand_under_its_heading(named, drawn):
    files = sorted(path.name for path in (named.directory / "figures").iterdir())
    # front and curves of each task, and four figures over all tasks, as PNG and SVG
    assert len(files) == (2 * len(TASKS) + 4) * 2
    sections = re.split("<h3>", re.split("<h2>Cost", drawn)[0])[1:]
    assert len(sections) == len(TASKS)
    for task, section in zip(TASKS, sections, strict=True):
        # once, above what is its own
        assert re.findall("title of ([^ ]*): [$]5 and [$]6 &lt;i&gt;", drawn).count(task) == 1
        assert section.startswith(f"title of {task}: $5")
        assert section.count("<figure") == 2


def test_nothing_is_written_outside_the_folder(named, drawn):
    results = named.store.directory
    assert [path.name for path in results.parent.iterdir()] == ["results"]
    assert {path.name for path in results.iterdir()} == {FILE_NAME, LOCK_NAME, named.name}


def test_a_stores_names_do_not_lead_out_of_the_folder(named, tmp_path):
    victim = tmp_path / "victim"
    folder = tmp_path / "results"
    folder.mkdir()
    with sqlite3.connect(named.store.path) as source, sqlite3.connect(folder / FILE_NAME) as copy:
        source.backup(copy)
        (request,) = copy.execute("SELECT request FROM comparisons").fetchone()
        copy.execute("UPDATE comparisons SET request = ?", (request.replace('"../../out"', f'"{victim}/logo"'),))
    for figure in all_figures(Comparison(folder)):
        assert "/" not in figure.file_name


def test_names_are_text_on_the_page_and_in_its_figures(drawn):
    for rule in ("x[/y]", "mgda[gen]", r"$\foo$ $", r"_mine\x1b[31m"):
        assert f"<td>{rule}</td>" in drawn
        assert re.search(f">\N{ZERO WIDTH SPACE}?{re.escape(rule)}</text>", drawn)
    for name in ("cost $", "$x$ gain"):
        assert f"← {name}, lower is better</text>" in drawn
    assert "\x1b" not in drawn


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_text_on_the_terminal(named, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    text = StringIO()
    named.print(text)
    shown = re.sub("\x1b\\[[0-9;]*m", "", text.getvalue()) if terminal else text.getvalue()
    for name in ("s[/u]: hypervolume", "x[/y]", "mgda[gen]", r"$\foo$ $"):
        assert name in shown
    assert "\x1b[31m" not in text.getvalue()
    assert r"_mine\x1b[31m" in shown


def test_heads_of_columns_are_parted_between_words(tmp_path):
    names = [f"forgotten_digits/{kind}" for kind in ("classes", "confusion", "everything", "nothing", "rotations")]
    suite = Suite("long", [tiny.ParabolasTask(name) for name in names])
    made = compare(suite, combiners=["mgda"], quick=True, out=tmp_path, jobs=1, progress=False)
    text = StringIO()
    made.print(text)
    parts = {part for line in text.getvalue().splitlines() if line.startswith("┃") for part in line.strip("┃").split()}
    assert {"forgotten_", "digits/", "confusion", "everything", "rank"} <= parts


def test_what_a_notebook_shows_is_the_escaped_table(named):
    shown = named._repr_html_()
    assert "x[/y]" in shown
    assert "\x1b" not in shown
    assert shown.count("<tr>") == 1 + len(RULES) + 1  # the baseline is in every comparison
    assert all(f"s[/u]: {task}" in shown for task in TASKS)
    assert repr(named) == f"<Comparison of 5 rules on 5 tasks in {str(named.store.directory)!r}>"


def test_a_data_frame_has_a_row_a_rule_and_task(named):
    pytest.importorskip("pandas")
    assert len(named.to_frame()) == (len(RULES) + 1) * len(TASKS)
