"""Suites by import path."""

import sys

import pytest

from mtopt._errors import TaskError
from mtopt.experiments import Suite, compare, list_suites, load_suite
from tests.experiments import tiny


def test_module_object_and_instances():
    assert load_suite("tests.experiments.tiny") is tiny.suite
    assert load_suite("tests.experiments.tiny:suite") is tiny.suite
    assert load_suite(tiny.suite) is tiny.suite
    alone = load_suite("tests.experiments.tiny:task")
    assert (alone.name, alone.tasks) == ("parabolas", (tiny.task,))


def test_a_suite_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_suite.py").write_text("from tests.experiments.tiny import suite\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_suite("my_own_suite") is tiny.suite


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module", "no module 'no_such_module' here"),
        ("tests.experiments.nothing", "no module"),
        ("my_suite.py", "type the name of its module: my_suite$"),
        ("mine/my_suite.py:task", "type the name of its module: mine.my_suite:task$"),
        ("../my_suite.py", r"type the name of its module, in the folder \.\.: my_suite$"),
        ("tests.experiments.tiny:nothing", "has no 'nothing'"),
        ("tests.experiments.tiny:no_suite", "is a int"),
    ],
)
def test_what_is_not_there_is_named(path, message):
    with pytest.raises(ValueError, match=message):
        load_suite(path)


def test_a_missing_package_of_a_suite_is_named(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import a_package_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ValueError, match="needs the package 'a_package_nobody_has'"):
        load_suite("needy")


def installed(folder, monkeypatch, entries, package="fair-package"):
    """A package as pip leaves it: a module ``fair`` with a suite, and metadata with these entry points."""
    (folder / "fair.py").write_text("from tests.experiments.tiny import suite\n")
    metadata = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mtopt.suites]\n" + entries)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "fair", raising=False)


def test_a_suite_of_another_package_by_its_short_name(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, "fairness = fair:suite\nbare = fair\nother = fair:nothing\n")
    assert load_suite("fairness") is tiny.suite
    assert load_suite("bare") is tiny.suite
    assert {"fairness", "bare"} <= set(list_suites())
    with pytest.raises(ValueError, match=r"no module 'fairnes' here\. Did you mean 'fairness'"):
        load_suite("fairnes")
    with pytest.raises(ValueError, match=r"no module 'benchmarks\.fairness' here\. Did you mean 'fairness'"):
        load_suite("benchmarks.fairness")
    with pytest.raises(ValueError, match="has no 'nothing'"):
        load_suite("other")


def test_a_missing_package_of_a_short_name_is_named_with_its_extra(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, "fairness = fair:suite [data,models]\n")
    (tmp_path / "fair.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(ValueError, match=r"'a_package_nobody_has': pip install 'fair-package\[data,models\]'"):
        load_suite("fairness")


def test_two_suites_of_one_short_name_are_told_apart(tmp_path, monkeypatch):
    for package in ("one", "two"):
        (tmp_path / package).mkdir()
        installed(tmp_path / package, monkeypatch, f"fairness = {package}:suite\n", package)
    with pytest.raises(ValueError, match=r"registered by several packages; name one of them: (one|two):suite, "):
        load_suite("fairness")


def test_a_module_here_is_not_taken_for_a_suite_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    installed(tmp_path / "away", monkeypatch, "mine = fair:suite\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()  # a folder of results, say
    assert load_suite("mine") is tiny.suite
    (tmp_path / "mine.py").write_text("from tests.experiments.tiny import task as suite\n")
    with pytest.raises(ValueError, match=r"is fair:suite and also a module in this folder .* type mine:suite"):
        load_suite("mine")
    assert load_suite("mine:suite").tasks == (tiny.task,)


@pytest.mark.parametrize("error", ["TypeError", "FileNotFoundError", "ValueError", "KeyError"])
def test_an_exception_of_the_module_itself_is_not_wrong_use(error, tmp_path, monkeypatch):
    (tmp_path / "failing_module.py").write_text(f"raise {error}('in the module')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(TaskError, match=f"suite 'failing_module' cannot be imported: {error}: .*in the module"):
        load_suite("failing_module")
    with pytest.raises(TaskError, match=f"rule 'failing_module:Rule' cannot be imported: {error}"):
        compare(tiny.task, combiners=["failing_module:Rule"], out=tmp_path / "out")


@pytest.mark.parametrize("name", ["", ".relative", ":suite"])
def test_what_is_no_name_of_a_module_is_wrong_use(name):
    with pytest.raises(ValueError, match="no module"):
        load_suite(name)


def test_wrong_types_and_repeated_names():
    with pytest.raises(TypeError, match="found int"):
        load_suite(3)
    with pytest.raises(ValueError, match="distinct names"):
        Suite("twice", (tiny.task, tiny.task))
