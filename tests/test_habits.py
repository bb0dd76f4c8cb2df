"""The files that a contributor, a citer and a packager look for agree with the package."""

import re
from pathlib import Path

import pytest
import torch

import mtopt

ROOT = Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version_and_licence():
    citation = read("CITATION.cff")
    assert f"\nversion: {mtopt.__version__}\n" in citation
    assert "\nlicense: MIT\n" in citation
    assert "cff-version: 1.2.0" in citation


def test_the_guide_names_every_package_and_its_commands_are_those_of_the_readme():
    guide = read("CONTRIBUTING.md")
    packages = [path.parent.name for path in (ROOT / "mtopt").glob("*/__init__.py")]
    assert [name for name in packages if f"`mtopt/{name}`" not in guide] == []
    install = re.search(r"^python3 -m venv.*\[dev\]'", read("README.md"), flags=re.MULTILINE)[0]
    assert install in guide


def test_its_rule_is_checked_as_it_says(run_page):
    run_page("CONTRIBUTING.md")
    mtopt.testing.check_combiner("inverse_norm")
    jacobian = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert mtopt.create_combiner("inverse_norm")(jacobian).tolist() == pytest.approx([0.6, 1.8])


@pytest.mark.parametrize("name", ["CHANGELOG.md", "SECURITY.md"])
def test_names_in_the_other_files_exist(name):
    for path in set(re.findall(r"`mtopt\.([\w.]+)`", read(name))):
        found = mtopt
        for part in path.split("."):
            if path != "combiners":
                found = getattr(found, part)
