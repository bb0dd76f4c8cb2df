"""The pages under docs/ keep up with the code."""

from pathlib import Path

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
