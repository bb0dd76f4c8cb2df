"""What the wheel holds: the suites under a name of their own, their short names, and extras for what is shipped."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SUITES = ROOT / "benchmarks"
SOURCES = sorted(SUITES.rglob("*.py"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages and the metadata as a wheel has them."""
    folder = tmp_path_factory.mktemp("built")
    command = ["setup.py", "-q", "egg_info", "-e", folder, "build", "-b", folder / "build", "build_py", "-d", folder]
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def metadata(built: Path) -> Distribution:
    return PathDistribution(built / "mtopt.egg-info")


def test_every_link_of_the_packages_page_leads_somewhere(metadata: Distribution) -> None:
    page = metadata.metadata.get_payload() or metadata.metadata["Description"]
    assert "# mtopt" in page
    assert "docs/start.md" in page  # what a link said stays
    assert [to for to in re.findall(r"\]\(([^)]+)\)", page) if not to.startswith(("https://", "#"))] == []


def test_with_an_address_links_lead_there() -> None:
    source = (ROOT / "setup.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"re": re}
    (function,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    exec(compile(ast.Module([function], []), "setup.py", "exec"), names)
    page = "[start](docs/start.md#one), [rules](https://example.org), ![a picture](docs/images/a.png), [here](#there)"
    assert names["package_page"](page, "https://example.org/blob/") == (
        "[start](https://example.org/blob/docs/start.md#one), [rules](https://example.org), "
        "![a picture](https://example.org/blob/docs/images/a.png), [here](#there)"
    )


def run(built: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(built), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_wheel_has_every_file_of_the_suites_and_no_package_benchmarks(built: Path) -> None:
    shipped = {path.relative_to(built / "mtopt_suites") for path in (built / "mtopt_suites").rglob("*.py")}
    assert shipped == {path.relative_to(SUITES) for path in SOURCES}
    assert {path.name for path in built.iterdir() if path.is_dir()} == {"mtopt", "mtopt_suites", "mtopt.egg-info"}
    assert (built / "mtopt" / "py.typed").exists()


def test_short_names_work_from_any_folder(built: Path, tmp_path: Path) -> None:
    program = (
        "import sys, mtopt_suites.unlearning.contestants as c\n"
        "from mtopt.experiments import load_suite\n"
        "from mtopt.experiments._contestant import rule_class\n"
        "for name in ('toy', 'multitask', 'unlearning', 'digits'):\n"
        "    print(name, load_suite(name).name, type(load_suite(name).tasks[0]).__module__)\n"
        "print(rule_class(c.PRIMAL_DUAL).__module__, 'benchmarks' in sys.modules)\n"
    )
    done = run(built, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "toy toy mtopt_suites.toy.problem_task",
        "multitask multitask mtopt_suites.multitask.multidigits",
        "unlearning unlearning mtopt_suites.unlearning.tofu_task",
        "digits digits-unlearning mtopt_suites.unlearning.digits.task",
        "mtopt_suites.unlearning.primal_dual False",
    ]


def test_the_command_is_a_module_too(built: Path, tmp_path: Path) -> None:
    done = run(built, tmp_path, "-m", "mtopt", "compare", "tyo", "--out", "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'toy'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unlearning_ones_own_data_tells_of_a_fault_in_a_line(built: Path, tmp_path: Path) -> None:
    (tmp_path / "forget.jsonl").write_text(
        '{"question": "Who?", "answer": "Bo."}\n{"question": "Why?", "answer": ""}\n'
    )
    files = ["--forget", "forget.jsonl", "--retain", "forget.jsonl"]
    done = run(built, tmp_path, "-m", "mtopt", "unlearn", "--model", "nowhere", *files, "--out", "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mtopt: forget.jsonl, line 2: 'answer' is empty")
    assert done.stderr.count("\n") == 1
    done = run(
        built, tmp_path, "-m", "mtopt", "unlearn", "--model", "nowhere", *files, "--out", "out", "--rule", "pcgard"
    )
    assert done.returncode == 2
    assert "did you mean 'pcgrad'" in done.stderr


@pytest.mark.parametrize("name", ["unlearning.run", "precision"])
def test_commands_of_the_suites_say_how_they_are_called(name: str, built: Path, tmp_path: Path) -> None:
    done = run(built, tmp_path, "-m", f"mtopt_suites.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"mtopt_suites.{name}" in done.stdout
    assert "benchmarks" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def suites_of_the_folder() -> dict[str, str]:
    """``{"toy": "toy"}``: each module that defines ``suite``, and the name in its entry point."""
    found = {}
    for path in SUITES.rglob("*.py"):
        names = {
            target.id
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if "suite" in names:
            module = path.parent if path.name == "__init__.py" else path.with_suffix("")
            found[".".join(module.relative_to(SUITES).parts)] = module.name
    return found


def test_every_suite_has_a_short_name_and_an_extra_that_is_there(metadata: Distribution) -> None:
    entries = metadata.entry_points.select(group="mtopt.suites")
    expected = {f"mtopt_suites.{package}:suite" for package in suites_of_the_folder()}
    assert {f"{entry.module}:{entry.attr}" for entry in entries} == expected
    extras = set(metadata.metadata.get_all("Provides-Extra"))
    assert {extra for entry in entries for extra in entry.extras} <= extras


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_suites_import_each_other_by_no_name_that_installing_changes(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        wrong = [name for name in names if name.split(".")[0] in ("benchmarks", "mtopt_suites")]
        assert not wrong, f"{path}: import {wrong} relatively"
        private = [n for n in names if n.split(".")[0] == "mtopt" and any(p.startswith("_") for p in n.split("."))]
        assert [n for n in private if n != "mtopt.__version__"] == []


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_type_is_there_once_installed(page: Path, metadata: Distribution) -> None:
    text = page.read_text(encoding="utf-8")
    known = {*metadata.entry_points.select(group="mtopt.suites").names, "my_suite", "benchmarks.toy"}
    for line in re.findall(r"mtopt compare ((?:[\w.]+ ?)+)", text):
        assert set(line.split()) <= known, line
    for name in re.findall(r"(?:python -m |from |`)(mtopt_suites(?:\.\w+)*)", text):
        place = SUITES.joinpath(*name.split(".")[1:])
        assert place.with_suffix(".py").exists() or place.is_dir(), name
    for extras in re.findall(r'"mtopt\[([\w,]+)\]"', text):
        assert set(extras.split(",")) <= set(metadata.metadata.get_all("Provides-Extra"))
    assert "python -m benchmarks" not in text
    # a page that names a suite says where suites are
    if "mtopt_suites" in text:
        assert "comparing.md#where-the-suites-are)" in text or "## Where the suites are" in text
