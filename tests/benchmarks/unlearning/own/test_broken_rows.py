"""Files of rows with something wrong in them: what is read is what stands there, or one error names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.unlearning.files import MUSE_COLUMNS, read_muse, read_tofu
from benchmarks.unlearning.own.rows import has_prompts, overlap, read_rows
from tests.broken import FEW_OR_MANY, changed, damaged, right_or_named

PAIR = {"question": "Who is it?", "answer": "Bo."}
WHOLE: list[dict[str, Any]] = [
    {**PAIR, "perturbed_answer": ["An.", "Cy."], "paraphrased_answer": "It is Bo."},
    {"instruction": "Say who.", "input": "Of two.", "output": "Bo."},
    {"prompt": "It is", "completion": "Bo."},
    {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Bo."}]},
    {"prompt": [{"role": "user", "content": "Who?"}], "completion": [{"role": "assistant", "content": "Bo."}]},
    {"text": "It is Bo."},
]
"""A row of each form."""


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def array(rows: list[Any]) -> bytes:
    return json.dumps(rows).encode()


def check_rows(path: Path) -> None:
    """What every later part takes for granted of rows."""
    with right_or_named(path, ValueError):
        rows = read_rows(path)
        for row in rows:
            texts = [row["text"]] if "text" in row else [row["answer"], *row.get("perturbed_answer", ())]
            assert all(isinstance(text, str) and text.strip() for text in texts)
            asked = row.get("question", "")
            for text in [*texts, *([turn["content"] for turn in asked] if isinstance(asked, list) else [asked])]:
                text.encode()  # no half of a character
        assert overlap(rows, rows) == len(rows)
        assert has_prompts(path) in (True, False)


@FEW_OR_MANY
@pytest.mark.parametrize("form", [lines, array])
def test_rows_of_ones_own(form: Any, draws: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"

    @settings(max_examples=2 * draws)
    @given(st.sampled_from(WHOLE).flatmap(lambda row: changed([row, row])))
    @example([PAIR, "text"])
    @example([{"text": "\ud800"}])
    @example([{"question": [], "answer": []}])
    @example([{"prompt": [{"role": "user", "content": "Who?"}], "completion": []}])
    def check_values(rows: Any) -> None:
        path.write_bytes(form(rows) if isinstance(rows, list) else json.dumps(rows).encode())
        check_rows(path)

    @settings(max_examples=draws)
    @given(damaged(form(WHOLE[:1] * 2)) | st.binary(max_size=40))
    @example(b"\xff\xfe[\0]\0")
    @example(b'{"text": "a"}\x85{"text": "b"}')
    @example(b"[" * 5000)
    @example(b'["a", 1]')
    def check_bytes(content: bytes) -> None:
        path.write_bytes(content)
        check_rows(path)

    check_values()
    check_bytes()


@FEW_OR_MANY
def test_a_text(draws: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"

    @settings(max_examples=draws)
    @given(st.binary(max_size=12) | damaged("It is Bo – and was.".encode()))
    @example(b"\xef\xbb\xbf")
    @example(b"\xe2\x80\x83")
    def check(content: bytes) -> None:
        path.write_bytes(content)
        check_rows(path)

    check()


@FEW_OR_MANY
def test_published_sets(draws: int, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()

    @settings(max_examples=draws)
    @given(changed([WHOLE[0], WHOLE[0]]), st.sampled_from(sorted(MUSE_COLUMNS)))
    def check(rows: Any, config: str) -> None:
        content = lines(rows) if isinstance(rows, list) else json.dumps(rows).encode()
        (tmp_path / config).mkdir(exist_ok=True)
        for path in (tmp_path / "full_perturbed.json", tmp_path / "full.json", tmp_path / config / "forget.json"):
            path.write_bytes(content)
        for name in ("full", "full_perturbed"):
            with right_or_named(tmp_path, ValueError):
                assert all(
                    isinstance(row["answer"], str) and row["answer"].strip() for row in read_tofu(tmp_path, name)
                )
        with right_or_named(tmp_path, ValueError):
            assert all(set(MUSE_COLUMNS[config]) <= set(row) for row in read_muse(tmp_path, config, "forget"))

    check()
