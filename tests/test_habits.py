"""The files that a contributor, a citer and a packager look for agree with the package."""

import ast
import re
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

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


def test_the_sessions_of_nox_are_the_commands_of_ci():
    """``.ci/run`` needs no nox, so the two are written apart."""
    strings = [node.value for node in ast.walk(ast.parse(read("noxfile.py"))) if isinstance(node, ast.Constant)]
    words = {word for text in strings if isinstance(text, str) for word in text.split()}
    commands = re.findall(r"^(?:\w+=\w+ )*\.venv/bin/(.+)$", read(".ci/run"), flags=re.MULTILINE)
    assert len(commands) == 5
    readme = re.search(r"\.venv/bin/(python -m pytest .+)$", read("README.md"), flags=re.MULTILINE)[1]
    assert [word for command in [*commands, readme] for word in command.split() if word not in words] == []


def test_the_lowest_versions_are_those_of_setup_cfg():
    names = {"re": re, "ConfigParser": ConfigParser}
    (function,) = (
        node
        for node in ast.parse(read("noxfile.py")).body
        if isinstance(node, ast.FunctionDef) and node.name == "lowest_versions"
    )
    exec(compile(ast.Module([function], []), "noxfile.py", "exec"), names)
    found = names["lowest_versions"]()
    required = [Requirement(line) for line in metadata.requires("mtopt") if "extra ==" not in line]
    assert {Requirement(each).name for each in found} == {each.name for each in required} | {"cvxpy"}
    for each in required:
        (lowest,) = (Requirement(one) for one in found if Requirement(one).name == each.name)
        (bound,), (pinned,) = each.specifier, lowest.specifier
        assert (bound.operator, f"{bound.version}.*") == (">=", pinned.version)


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
