"""The real TOFU and MUSE files, and others in their schema: from a local folder, or from the Hugging Face hub."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtopt.files import read_json, read_json_lines, write_text

from .corpus import Corpus, Row

MUSE_COLUMNS = {
    "raw": ("text",),
    "verbmem": ("prompt", "gt"),
    "knowmem": ("question", "answer"),
    "privleak": ("text",),
    "scal": ("text",),
    "sust": ("text",),
    "train": ("text",),
}
"""The columns of each configuration of MUSE; all are strings."""

HUB = {"tofu": "locuslab/TOFU", "muse-news": "muse-bench/MUSE-News", "muse-books": "muse-bench/MUSE-Books"}
"""Where the published sets are on the Hugging Face hub."""

SCORED = ("answer", "paraphrased_answer", "perturbed_answer", "text", "prompt", "gt")
"""The columns in which a text must not be empty."""

_HALVES = re.compile("[\ud800-\udfff]")

SUFFIXES = (".json", ".jsonl", ".txt")


def tofu_columns(config: str) -> tuple[str, ...]:
    """The columns that TOFU's configuration of that name must have. ``perturbed_answer`` is a list of strings, the
    others are strings."""
    columns: tuple[str, ...] = ("question", "answer")
    if config.endswith("_perturbed"):
        columns += ("perturbed_answer",)
        if not config.startswith(("real_authors", "world_facts")):
            columns += ("paraphrased_answer", "paraphrased_question")
    elif config in ("real_authors", "world_facts"):
        columns += ("option1", "option2", "option3", "option4")
    return columns


def read_tofu(folder: str | os.PathLike[str], config: str) -> list[Row]:
    """The rows of ``folder/config.json`` (or ``.jsonl``): JSON Lines, or one JSON array. Further columns are kept.

    Raises:
        FileNotFoundError: No such file; the message lists the sets the folder has.
        ValueError: A line that is not JSON, or a row without a column of :func:`tofu_columns` or with one of the wrong
            type, an empty one of :data:`SCORED` or half of a character; the message names the file and the line.
    """
    return _checked(_find(Path(folder), config), tofu_columns(config))


def read_tofu_corpus(folder: str | os.PathLike[str], configs: Sequence[str] | None = None) -> Corpus:
    """A corpus of the named sets of a folder, or of all it has."""
    names = sorted(_stems(Path(folder))) if configs is None else list(configs)
    if not names:
        raise FileNotFoundError(f"{folder} holds no .json or .jsonl file; name the folder with TOFU's files")
    return Corpus({name: read_tofu(folder, name) for name in names})


def write_tofu(folder: str | os.PathLike[str], corpus: Corpus) -> list[Path]:
    """Every set of the corpus as ``folder/config.json``, JSON Lines in UTF-8; what :func:`read_tofu` reads."""
    return [_write(Path(folder) / f"{name}.json", rows) for name, rows in corpus.sets.items()]


def read_muse(folder: str | os.PathLike[str], config: str, split: str) -> list[Row]:
    """The rows of ``folder/config/split`` of MUSE: ``.json`` or ``.jsonl`` (JSON Lines or one array, of objects or, for
    the sets of plain texts, of strings), or ``.txt``, which is one row of text.

    Args:
        folder: One corpus's folder, holding ``raw``, ``verbmem``, ...
        config: A key of :data:`MUSE_COLUMNS`.
        split: ``forget``, ``retain1``, ``retain2``, ``holdout`` (raw), ``forget`` (verbmem), ``forget_qa``,
            ``retain_qa``, ``forget_qa_icl``, ``retain_qa_icl`` (knowmem), ``forget``, ``retain``, ``holdout``
            (privleak), ``forget_1`` to ``forget_4`` (scal, sust).

    Raises:
        FileNotFoundError: No such file; the message lists the splits there are.
        ValueError: As for :func:`read_tofu`, or an unknown ``config``.
    """
    columns = muse_columns(config)
    return _checked(_find(Path(folder) / config, split), columns)


def muse_columns(config: str) -> tuple[str, ...]:
    """The columns of MUSE's configuration of that name."""
    if config not in MUSE_COLUMNS:
        raise ValueError(f"config must be one of {', '.join(MUSE_COLUMNS)}, got {config!r}")
    return MUSE_COLUMNS[config]


def write_muse(folder: str | os.PathLike[str], sets: Corpus) -> list[Path]:
    """Every set, named ``config/split`` (``"knowmem/forget_qa"``), as JSON Lines in ``folder/config/split.json``."""
    return [_write(Path(folder) / f"{name}.json", rows) for name, rows in sets.sets.items()]


def from_hub(name: str, config: str, split: str = "train") -> list[Row]:
    """The rows of one set of the Hugging Face hub, downloaded and cached by ``datasets``, checked as a local file is.

    Args:
        name: ``"tofu"``, ``"muse-news"``, ``"muse-books"`` or a dataset's full name (taken to have TOFU's schema).
        config: The configuration: ``"forget10_perturbed"``, ``"knowmem"``, ...
        split: TOFU has only ``"train"``.

    Raises:
        ModuleNotFoundError: ``datasets`` is not installed.
        ValueError: A row without the columns of its schema.
    """
    try:
        import datasets  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        message = 'reading from the hub needs `datasets`: pip install "mtopt[datasets]", or download and use read_tofu'
        raise ModuleNotFoundError(message, name="datasets") from error
    columns = muse_columns(config) if name.startswith("muse-") else tofu_columns(config)
    repository = HUB.get(name, name)
    rows = datasets.load_dataset(repository, config, split=split)
    return [_row(row, columns, f"{repository}, {config}, {split}, row {n}") for n, row in enumerate(rows, start=1)]


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*") if path.suffix in SUFFIXES}


def _find(folder: Path, stem: str) -> Path:
    for suffix in SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    there = ", ".join(sorted(_stems(folder))) if folder.is_dir() else "nothing, since there is no such folder"
    raise FileNotFoundError(f"no {stem}.json, .jsonl or .txt in {folder}; it holds {there}")


def _checked(path: Path, columns: tuple[str, ...]) -> list[Row]:
    rows = [_row(record, columns, place) for record, place in read_records(path, columns[0])]
    if not rows:
        raise ValueError(f"{path} is empty: at least one row with {', '.join(columns)} was expected")
    return rows


def read_records(path: Path, column: str = "text") -> Iterator[tuple[Any, str]]:
    """Each record of a file with the words that name its place. Blank lines are passed over; a ``.txt`` file is one
    record with one ``column``, and so is a JSON object over several lines."""
    content = path.read_bytes()
    if path.suffix == ".txt":
        if content.strip():
            yield {column: _decoded(content, f"{path}")}, f"{path}"
        return
    if content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        for number, record in enumerate(read_json(path, kind=list), start=1):
            yield record, f"{path}, row {number}"
        return
    if content.removeprefix(codecs.BOM_UTF8).split(maxsplit=1)[:1] == [b"{"]:
        yield read_json(path, kind=dict), f"{path}"
        return
    for number, record in read_json_lines(path):
        yield record, f"{path}, line {number}"


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error


def _row(record: Any, columns: tuple[str, ...], place: str) -> Row:
    if isinstance(record, str) and columns == ("text",):
        record = {"text": record}
    if not isinstance(record, dict):
        raise ValueError(f"{place}: an object with {', '.join(columns)} was expected, found {type(record).__name__}")
    check_characters(record, place)
    for column in columns:
        if column not in record:
            raise ValueError(f"{place}: no {column!r}; it has {', '.join(map(str, record)) or 'no column at all'}")
        value = record[column]
        if column == "perturbed_answer":
            if not (isinstance(value, list) and value and all(isinstance(answer, str) for answer in value)):
                raise ValueError(f"{place}: {column!r} must be a list of strings, found {value!r:.60}")
        elif not isinstance(value, str):
            raise ValueError(f"{place}: {column!r} must be a string, found {value!r:.60}")
        if column in SCORED and not all(text.strip() for text in ([value] if isinstance(value, str) else value)):
            raise ValueError(f"{place}: {column!r} holds an empty text, which has no token to score; leave the row out")
    return record


def check_characters(record: Row, place: str) -> None:
    """Refuses half of a character (``"\\ud83d"``), which a JSON file can hold and no tokenizer takes."""
    for column, value in record.items():
        for text in _texts_in(value):
            if halves := _HALVES.search(text):
                raise ValueError(
                    f"{place}: {column!r} holds half of a character, U+{ord(halves[0]):04X} at {halves.start()} of "
                    f"{text!a:.60}; write the character whole"
                )


def _texts_in(value: Any) -> Iterator[str]:
    """The texts of a value, of lists and of objects within it."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, list | dict):
            parts.extend(part.values() if isinstance(part, dict) else part)


def _write(path: Path, rows: Iterable[Row]) -> Path:
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
