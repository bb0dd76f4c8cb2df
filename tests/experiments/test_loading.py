"""Suites by import path."""

import sys

import pytest

from mtopt._errors import TaskError
from mtopt.experiments import Suite, compare, load_suite
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
        ("benchmarks.nothing", "run from a clone of mtopt's sources"),
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
