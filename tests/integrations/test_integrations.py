"""Integrations are imported when they are named, and say what to install; the loop of one's own runs as printed."""

from __future__ import annotations

import importlib
import re
import runpy
import sys

import pytest

import mtopt.integrations
from tests.integrations.support import EXAMPLES


def test_modules_are_there_by_name(monkeypatch):
    monkeypatch.delattr(mtopt.integrations, "accelerate", raising=False)
    assert callable(mtopt.integrations.accelerate.backward)
    with pytest.raises(AttributeError, match="has no attribute 'keras'"):
        _ = mtopt.integrations.keras


@pytest.mark.parametrize("name", ["transformers", "lightning", "accelerate"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, name):
    for package in {"lightning": ("lightning", "pytorch_lightning", "lightning_fabric")}.get(name, (name,)):
        monkeypatch.setitem(sys.modules, package, None)
    for module in ("transformers", "lightning", "accelerate"):
        monkeypatch.delitem(sys.modules, f"mtopt.integrations.{module}", raising=False)
        monkeypatch.delattr(mtopt.integrations, module, raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {name}, .* pip install 'mtopt\[{name}\]'"):
        importlib.import_module(f"mtopt.integrations.{name}")


def test_some_page_has_every_example():
    pages = "".join(path.read_text() for path in EXAMPLES.parent.glob("*.md"))
    named = {*re.findall(r"\]\(examples/(\w+\.py)\)", pages)}
    assert named == {path.name for path in EXAMPLES.glob("*.py")}


def test_the_loop_of_ones_own_runs(capsys):
    runpy.run_path(str(EXAMPLES / "raw_loop.py"), run_name="__main__")
    *lines, last = capsys.readouterr().out.splitlines()
    (_, first_forget), (_, last_forget) = ([float(w) for w in line.split()[3:6:2]] for line in (lines[0], lines[-1]))
    assert last_forget > first_forget + 1
    assert last.startswith("from four micro-batches: {'retain': ")
