"""The page in a browser, wide and narrow: read from what headless Chromium makes of it."""

import html
import json
import re
import shutil
import subprocess
from itertools import pairwise

import pytest

import mtopt
from mtopt.experiments import Budget, Contestant, Suite, compare
from tests.experiments.tiny import ParabolasTask

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
WIDTHS = (1200, 400)

LONG = Contestant("long", "nash_mtl", hyperparameters={"max_norm": 1.0}, options={"note": "n" * 60})


class ManyNumbers(ParabolasTask):
    """With metrics that make its table wide."""

    title = "The title of the task"
    quick_budget = Budget(steps=4, points=3, trials=1, seeds=2)

    def trainer(self, combiner, *, note="", **settings):
        return super().trainer(combiner, **settings)

    def values(self, trainer, split, *, seed):
        return {**super().values(trainer, split, seed=seed), "accuracy": 0.123, "calibration": 0.4, "other": 12.0}

    def front_hypervolume(self):
        return 75.0


MEASURE = """
const text = (element) => element.textContent.trim();
const box = (element) => {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  return { left, right, top, bottom };
};
const page = frame.contentDocument, root = page.documentElement;
const heading = page.querySelector("h1"), verdict = page.querySelector(".verdict");
const configurations = [...page.querySelectorAll("td.config")].filter((cell) => text(cell));
const panels = [...page.querySelectorAll("figure > .panels")].map((each) => [...each.children].map(box));
const before = [...page.querySelectorAll("table, svg")].every((each) => box(each).top > box(verdict).bottom);
const table = page.querySelector(".sortable tbody").closest("table");
const column = (n) => [...table.tBodies[0].rows].map((row) => text(row.cells[n]));
const sorted = {};
for (const n of [0, 2]) {
  const button = table.tHead.rows[0].cells[n].querySelector("button");
  sorted[n] = [column(n)];
  for (const _ of [1, 2]) { button.click(); sorted[n].push(column(n)); }
  sorted[n].push(table.tHead.rows[0].cells[n].getAttribute("aria-sort"));
}
({
  width: frame.contentWindow.innerWidth,
  wanted: root.scrollWidth,
  first: heading.nextElementSibling === verdict && before,
  configurations: configurations.map((cell) => ({
    ...box(cell), text: text(cell), cut: cell.scrollWidth > cell.clientWidth,
  })),
  panels,
  sorted,
  order: [...page.querySelectorAll("h2")].map(text),
});
"""


def measured(page, width):
    """What :data:`MEASURE` finds on the page in a frame of that width: a window is not made as narrow as that."""
    wrapper = page.with_name(f"wrapper-{width}.html")
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><iframe id="frame" style="border: 0; width: {width}px; height: 900px" '
        f'srcdoc="{html.escape(page.read_text())}"></iframe><pre id="found"></pre><script>const frame = '
        f"document.getElementById('frame'); frame.onload = () => {{ document.getElementById('found').textContent = "
        f"JSON.stringify(eval({json.dumps(MEASURE)})); }};</script>"
    )
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]
    command += ["--window-size=1300,1000", f"--user-data-dir={page.parent / 'profile'}", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search('<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the browser measured nothing: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    suite = Suite("suite", (ManyNumbers("task"),), combiners=("mgda", "long"), contestants=(LONG,), about="About it.")
    return compare(suite, quick=True, out=tmp_path_factory.mktemp("page"), jobs=1, progress=False)


@pytest.fixture(scope="module")
def page(comparison):
    return comparison.report()


@pytest.fixture(scope="module", params=WIDTHS)
def seen(page, request):
    if BROWSER is None:
        pytest.skip("there is no Chromium")
    return measured(page, request.param)


def test_nothing_sticks_out(seen):
    assert seen["width"] in WIDTHS
    assert seen["wanted"] <= seen["width"]


def test_the_verdict_is_first(seen):
    assert seen["first"]
    assert seen["order"] == ["All tasks", "suite", "Cost against quality", "How this was measured"]


def test_configurations_are_read_whole(seen):
    assert len(seen["configurations"]) == 3
    for cell in seen["configurations"]:
        assert 0 <= cell["left"] < cell["right"] <= seen["width"]
        assert not cell["cut"]
    assert any(
        LONG.options["note"] in cell["text"] and "max_norm 1.0" in cell["text"] for cell in seen["configurations"]
    )


def test_panels_stand_side_by_side_or_stack(seen):
    # profiles, the front and the cost with their legends, and two losses with theirs
    assert sorted(map(len, seen["panels"])) == [2, 2, 2, 3]
    for panels in seen["panels"]:
        assert max(panel["right"] for panel in panels) <= seen["width"]
        assert panels[0]["right"] - panels[0]["left"] > 200  # and is not made small instead
        before, after = ("bottom", "top") if seen["width"] == 400 else ("right", "left")
        assert all(one[before] <= next_one[after] for one, next_one in pairwise(panels))


def test_tables_are_sorted_by_their_heads(seen):
    for column, key in (("0", str.casefold), ("2", lambda text: float(re.match(r"[+-][\d.]+", text)[0]))):
        _, once, twice, state = seen["sorted"][column]
        ascending, descending = (once, twice) if column == "0" else (twice, once)
        assert [key(text) for text in ascending] == sorted(map(key, ascending))
        assert descending == ascending[::-1]
        assert state == ("descending" if column == "0" else "ascending")


def test_what_the_page_says_is_there_without_a_script(comparison, page):
    text = re.sub("<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    for row in comparison.verdict().table():
        assert all(html.escape(cell) in text for cell in row)
    assert comparison.verdict().headline in text
    assert text.count("The title of the task") == 1


def test_shares_stay_below_all_of_it(comparison, page):
    (cell,) = (cell for cell in comparison.cells if cell.combiner == "mgda")
    assert cell.score().low >= 0.0
    assert cell.score().high <= max(1.0, cell.score().value)
    assert all(float(end) <= 100.0 for end in re.findall(r"<td>[\d.]+ \([\d.]+ to ([\d.]+)\)</td>", page.read_text()))


def test_a_rule_that_was_never_run_has_a_row(tmp_path):
    @mtopt.register_combiner("page_refuses")
    class Refuses(mtopt.GramianCombiner):
        """Refuses."""

        def weights(self, gramian, losses=None):
            raise ValueError("no")

    made = compare(ManyNumbers("t"), combiners=["page_refuses"], quick=True, out=tmp_path, jobs=1, progress=False)
    assert "<td>page_refuses</td>" in made.report().read_text()
    assert made.verdict().rows()[0]["difference"] == -1.0
