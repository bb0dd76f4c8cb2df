"""Rows of any file of questions, prompts, conversations or texts, in the one form that the suite works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..chat import Turns
from ..corpus import Row
from ..files import SUFFIXES, check_characters, read_records

PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
)
"""The columns that hold a question and its answer, the first that a file has."""

KEPT = ("perturbed_answer", "paraphrased_answer")
"""TOFU's further columns: where they are, truth ratios are measured."""


def read_rows(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of a file: JSON Lines or one JSON array (``.jsonl``, ``.json``), or one text (``.txt``).

    Args:
        path: The file.
        columns: The names of the question's and the answer's column, or the one of the texts'. Default: what the first
            row has of ``messages``, :data:`PAIRS` and ``text``, in this order. In ``messages`` the last turn, the
            assistant's, is the answer. An ``input`` beside an ``instruction`` stands under it.

    Returns:
        Rows with ``question`` (text, or the turns before the answer), ``answer`` and :data:`KEPT`, or with ``text``.

    Raises:
        ValueError: A fault of the file, named with its line: no such column, an empty text, half of a character.
        OSError: As of any file.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must be one of {', '.join(SUFFIXES)}; give JSON Lines, an object on each line")
    rows: list[Row] = []
    read: Callable[[Mapping[str, Any], str], Row] | None = None
    for record, place in read_records(path):
        found = {"text": record} if isinstance(record, str) else record
        if not isinstance(found, dict):
            raise ValueError(f"{place}: an object was expected, found {type(found).__name__}")
        check_characters(found, place)
        read = read or _reader(found, columns, place)
        rows.append(read(found, place))
    if not rows:
        raise ValueError(f"{path} is empty: at least one row was expected")
    return rows


def has_prompts(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> bool:
    """Whether what a file asks are prompts, which are continued as they are, and no questions."""
    if columns is not None:
        return columns[0] == "prompt"
    record, _ = next(read_records(Path(path)), ({}, ""))
    return isinstance(record, dict) and "prompt" in record and not {"messages", "question"} & set(record)


def overlap(rows: Sequence[Row], others: Sequence[Row]) -> int:
    """How many of ``rows`` are among the others, too, white space around texts aside."""
    known = {_content(row) for row in others}
    return sum(_content(row) in known for row in rows)


def _content(row: Row) -> str:
    texts = [row.get(name) for name in ("question", "answer", "text")]
    return repr([text.strip() if isinstance(text, str) else text for text in texts])


def _reader(first: Row, columns: Sequence[str] | None, place: str) -> Callable[[Mapping[str, Any], str], Row]:
    """How every row of the file is read, from the columns of its first one."""
    if columns is not None:
        names = tuple(columns)
        if len(names) not in (1, 2):
            raise ValueError(f"columns must be a question's and an answer's, or a text's, got {', '.join(names)}")
        return (
            (lambda row, at: _text(row, names[0], at)) if len(names) == 1 else (lambda row, at: _pair(row, names, at))
        )
    if "messages" in first:
        return _conversation
    for pair in PAIRS:
        if set(pair) <= set(first):
            return lambda row, at: _pair(row, pair, at)
    if "text" in first:
        return lambda row, at: _text(row, "text", at)
    known = ", ".join(" and ".join(pair) for pair in PAIRS)
    raise ValueError(
        f"{place}: it has {', '.join(map(str, first)) or 'no column'}; messages, {known} or text were expected: name "
        "yours (--columns)"
    )


def _text(row: Mapping[str, Any], column: str, place: str) -> Row:
    return {"text": _filled(row, column, place)}


def _pair(row: Mapping[str, Any], columns: Sequence[str], place: str) -> Row:
    asked, answered = columns
    if isinstance(row.get(asked), list):
        turns = [*_turns(row, asked, place), *_turns(row, answered, place)]
        return _last_answered(turns, answered, place)
    question = _filled(row, asked, place)
    if asked == "instruction" and row.get("input"):
        question += f"\n{_filled(row, 'input', place)}"
    kept = {name: row[name] for name in KEPT if name in row}
    for name, value in kept.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(text, str) and text.strip() for text in values):
            raise ValueError(f"{place}: {name!r} must hold texts that are not empty, found {value!r:.60}")
    if isinstance(kept.get("perturbed_answer"), str):
        kept["perturbed_answer"] = [kept["perturbed_answer"]]
    return {"question": question, "answer": _filled(row, answered, place), **kept}


def _conversation(row: Mapping[str, Any], place: str) -> Row:
    return _last_answered(_turns(row, "messages", place), "messages", place)


def _last_answered(turns: Turns, column: str, place: str) -> Row:
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        roles = ", ".join(turn["role"] for turn in turns) or "none"
        raise ValueError(f"{place}: {column!r} must end with the assistant's answer to a turn before it, found {roles}")
    return {"question": list(turns[:-1]), "answer": _filled(turns[-1], "content", f"{place}: the last turn")}


def _turns(row: Mapping[str, Any], column: str, place: str) -> list[Mapping[str, str]]:
    turns = _value(row, column, place)
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in turns
    ):
        raise ValueError(f"{place}: {column!r} must be a list of turns with a role and a content, both texts")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _filled(row: Mapping[str, Any], column: str, place: str) -> str:
    value = _value(row, column, place)
    if not isinstance(value, str):
        raise ValueError(f"{place}: {column!r} must be a string, found {value!r:.60}")
    if not value.strip():
        raise ValueError(f"{place}: {column!r} is empty, and holds nothing to learn or to forget; leave the row out")
    return value


def _value(row: Mapping[str, Any], column: str, place: str) -> Any:
    if column not in row:
        raise ValueError(f"{place}: no {column!r}; it has {', '.join(map(str, row)) or 'no column at all'}")
    return row[column]
