"""The pages under docs/ keep up with the code."""

import re
from pathlib import Path

import pytest

import mtopt
from mtopt.combiners import combiner_class

DOCS = Path(__file__).parents[1] / "docs"


def test_every_rule_of_the_package_has_its_line():
    page = (DOCS / "rules.md").read_text()
    own = [name for name in mtopt.list_combiners() if combiner_class(name).__module__.startswith("mtopt.")]
    assert [name for name in own if f"| `{name}` |" not in page] == []


def test_the_readme_counts_the_rules():
    own = [name for name in mtopt.list_combiners() if combiner_class(name).__module__.startswith("mtopt.")]
    assert f"({len(own)} of them:" in (DOCS.parent / "README.md").read_text()


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
HEADING = "## Where the suites are"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_that_use_a_suite_say_where_the_suites_are(page):
    text = page.read_text()
    if "benchmarks." in text:
        assert "comparing.md#where-the-suites-are)" in text or HEADING in text
    # what stands in one block is run by one person: from an index come the package and its extras, and no suites
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        installs = [line for line in block.splitlines() if "pip install" in line]
        assert "python -m benchmarks" not in block or all("-e" in line.split() for line in installs)


def test_the_wheel_has_no_suites():
    # the day it does, the pages say so
    setup = (DOCS.parent / "setup.cfg").read_text()
    assert re.search(r"\[options.packages.find\]\ninclude =\n((?:    .+\n)+)", setup)[1].split() == ["mtopt", "mtopt.*"]
    assert HEADING in (DOCS / "comparing.md").read_text()
