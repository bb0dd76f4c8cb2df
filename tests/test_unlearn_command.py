"""``mtopt unlearn``: its options are what the suite takes, and a missing package is told with what to install."""

import argparse
import importlib.util
from dataclasses import MISSING, fields
from types import SimpleNamespace

import pytest

from benchmarks.unlearning.own import Request
from mtopt import _unlearn, cli
from mtopt._command_line import Parser

NEEDED = ["--model", "m", "--forget", "f", "--retain", "r", "--out", "o"]


def parser_of_options():
    parser = Parser()
    _unlearn.add_options(parser)
    return parser


def test_every_option_is_a_field_of_the_request():
    names = {action.dest for action in parser_of_options().given} - {"help"}
    known = {field.name for field in fields(Request)}
    assert names <= known
    assert known - names == {"weight_decay", "warmup_epochs"}
    required = {field.name for field in fields(Request) if field.default is field.default_factory is MISSING}
    assert {action.dest for action in parser_of_options().given if action.required} == required


def test_what_is_not_given_is_left_to_the_request():
    assert vars(parser_of_options().parse_args(NEEDED)) == {"model": "m", "forget": "f", "retain": "r", "out": "o"}


def test_the_command_asks_the_suite_and_says_where_the_page_is(monkeypatch, tmp_path, capsys):
    asked = []

    def unlearn(request):
        asked.append(request)
        return tmp_path / "report.html"

    monkeypatch.setattr(_unlearn, "_load", lambda: SimpleNamespace(Request=Request, unlearn=unlearn))
    options = ["--method", "NPO+KL", "--lora", "8", "--evaluate", "a=x.jsonl", "b=y=z.jsonl", "--merge"]
    assert cli.main(["unlearn", *NEEDED, *options]) == 0
    files = {"a": "x.jsonl", "b": "y=z.jsonl"}
    assert asked == [Request("m", "f", "r", "o", method="NPO+KL", lora=8, merge=True, evaluate=files)]
    told = capsys.readouterr().out
    assert f"report: {tmp_path / 'report.html'}" in told
    assert f"model:  {tmp_path / 'model'}" in told


def test_a_missing_package_is_told_with_the_extra(monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else there(name))
    assert cli.main(["unlearn", *NEEDED]) == 2
    assert capsys.readouterr().err == "mtopt: unlearn needs transformers: pip install 'mtopt[unlearning]'\n"


@pytest.mark.parametrize("text", ["a", "=b", "a="])
def test_a_set_without_a_name_or_a_file_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=FILE"):
        _unlearn._named_file(text)
