"""Content that is almost right, as files come to be: plain values with a change somewhere, bytes that are damaged."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import pytest
from hypothesis import strategies as st

from mtopt.cli import main

FEW_OR_MANY = pytest.mark.parametrize("draws", [25, pytest.param(3000, marks=pytest.mark.long)])
"""How many examples hypothesis draws: some in every run, many by name with ``-m long``."""

_NUMBERS = st.integers(-2, 3) | st.sampled_from([2**31, -(2**63), 10**30]) | st.floats()
_TEXTS = st.text(max_size=6) | st.sampled_from(["", " ", "nan", "../x", "<b>", "\ud800", "\x1b[31m", "\0", "a\nb"])
_ATOMS = st.none() | st.booleans() | _NUMBERS | _TEXTS

junk: st.SearchStrategy[Any] = st.recursive(
    _ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=4
)
"""Any plain value, such as JSON holds; more often than not one of those that break things."""


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The plain value with one change at some depth: another value, one left out, one twice, one under another name."""
    if not isinstance(value, dict | list) or not value or not draw(st.integers(0, 7)):
        return draw(junk)
    place = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    kind = draw(st.sampled_from([*["deeper"] * 6, "without", "more"]))
    if isinstance(value, dict):
        rest = {name: each for name, each in value.items() if name != place}
        if kind == "without":
            return rest
        if kind == "more":
            return {**rest, draw(_TEXTS): value[place]}
        return {**value, place: draw(changed(value[place]))}
    before, after = value[:place], value[place + 1 :]
    middle = {"without": [], "more": [value[place]] * 2}.get(kind)
    return [*before, *([draw(changed(value[place]))] if middle is None else middle), *after]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes cut short, or with some of them overwritten, left out or put in."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["cut", "over", "out", "in"]))
        new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 64, b"[" * 2000, b"9" * 5000, b"\xff"]))
        if kind == "cut":
            content = content[:place]
        else:
            left_out = {"over": len(new), "out": len(new), "in": 0}[kind]
            content = content[:place] + (b"" if kind == "out" else new) + content[place + left_out :]
    return content


def run_command(*arguments: object) -> tuple[int, str, str]:
    """What ``mtopt`` with these arguments ends with and writes; an exception of any kind is the caller's."""
    out, told = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(told):
        try:
            status: Any = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse's
            status = ended.code
    return status, out.getvalue(), told.getvalue()


@contextmanager
def right_or_named(place: object, *errors: type[Exception]) -> Iterator[None]:
    """Within the block something is read: these errors may come of it, if they name the place; others are faults."""
    try:
        yield
    except errors as error:
        if str(place) not in str(error):
            raise AssertionError(f"{place} is not named") from error
