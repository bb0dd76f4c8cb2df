"""Files of one's own: every form is read as the same rows, and a fault is named with its line."""

import json

import pytest

from benchmarks.unlearning.own.rows import has_prompts, overlap, read_rows

ROW = {"question": "Who is it?", "answer": "Bo."}


def written(folder, *records, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    "record",
    [
        ROW,
        {"prompt": "Who is it?", "completion": "Bo."},
        {"id": 7, "instruction": "Who is it?", "output": "Bo.", "input": ""},
        {"input": "Who is it?", "output": "Bo."},
    ],
)
def test_questions_and_answers_by_the_names_of_their_columns(record, tmp_path):
    assert read_rows(written(tmp_path, record, record)) == [ROW, ROW]


def test_columns_of_other_names(tmp_path):
    path = written(tmp_path, {"q": "Who is it?", "a": "Bo.", "text": "no"})
    assert read_rows(path, ["q", "a"]) == [ROW]
    assert read_rows(path, ["a"]) == [{"text": "Bo."}]
    assert read_rows(path) == [{"text": "no"}]


def test_an_input_stands_under_its_instruction(tmp_path):
    (row,) = read_rows(written(tmp_path, {"instruction": "Translate.", "input": "Hund", "output": "dog"}))
    assert row == {"question": "Translate.\nHund", "answer": "dog"}


def test_conversations_end_with_the_answer(tmp_path):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who is it?"}]
    answered = {"role": "assistant", "content": "Bo."}
    expected = [{"question": asked, "answer": "Bo."}]
    assert read_rows(written(tmp_path, {"messages": [*asked, answered]})) == expected
    assert read_rows(written(tmp_path, {"prompt": asked, "completion": [answered]})) == expected
    with pytest.raises(
        ValueError, match=r"line 1: 'messages' must end with the assistant's answer.* found system, user"
    ):
        read_rows(written(tmp_path, {"messages": asked}))
    with pytest.raises(ValueError, match=r"line 1: 'messages' must be a list of turns with a role and a content"):
        read_rows(written(tmp_path, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}))
    with pytest.raises(ValueError, match=r"line 1: the last turn: 'content' is empty"):
        read_rows(written(tmp_path, {"messages": [*asked, {**answered, "content": " "}]}))


def test_texts(tmp_path):
    assert read_rows(written(tmp_path, {"text": "Bo was born."}, {"text": "Later."})) == [
        {"text": "Bo was born."},
        {"text": "Later."},
    ]
    (tmp_path / "strings.json").write_bytes(b'\xef\xbb\xbf["Bo was born."]')
    assert read_rows(tmp_path / "strings.json") == [{"text": "Bo was born."}]
    (tmp_path / "book.txt").write_text("Bo was born.\n\nLater.")
    assert read_rows(tmp_path / "book.txt") == [{"text": "Bo was born.\n\nLater."}]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["", "byte-order mark"])
def test_arrays_and_lines_with_and_without_a_byte_order_mark(start, tmp_path):
    for name, content in [("a.json", json.dumps([ROW, ROW])), ("b.jsonl", f"{json.dumps(ROW)}\n\n{json.dumps(ROW)}")]:
        (tmp_path / name).write_bytes(start + content.encode())
        assert read_rows(tmp_path / name) == [ROW, ROW]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"question": "Why?", "answer": "\n "}, r"line 2: 'answer' is empty.*leave the row out"),
        ({"question": "", "answer": "Bo."}, r"line 2: 'question' is empty"),
        ({"question": "Why?"}, r"line 2: no 'answer'; it has question"),
        ({"question": "Why?", "answer": 3}, r"line 2: 'answer' must be a string, found 3"),
        ({**ROW, "answer": "Bo \ud83d."}, r"line 2: 'answer' holds half of a character, U\+D83D at 3"),
        ({**ROW, "perturbed_answer": ["An.", ""]}, r"line 2: 'perturbed_answer' must hold texts that are not empty"),
        (["Why?"], "line 2: an object was expected, found list"),
    ],
)
def test_a_fault_is_named_with_its_line(bad, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_rows(written(tmp_path, ROW, bad))


def test_half_of_a_character_within_a_turn(tmp_path):
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "\udc00 Bo."}]
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: 'messages' holds half of a character, U\+DC00 at 0"):
        read_rows(written(tmp_path, {"messages": [turns[0], {**turns[1], "content": "Bo."}]}, {"messages": turns}))


def test_files_that_hold_no_rows(tmp_path):
    with pytest.raises(ValueError, match="is empty: at least one row"):
        read_rows(written(tmp_path))
    with pytest.raises(ValueError, match=r"line 1: it has q, a; messages, question and answer, .*--columns"):
        read_rows(written(tmp_path, {"q": "Who?", "a": "Bo."}))
    with pytest.raises(ValueError, match="question's and an answer's, or a text's, got a, b, c"):
        read_rows(written(tmp_path, ROW), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"rows\.csv must be one of \.json"):
        read_rows(written(tmp_path, ROW, name="rows.csv"))
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "nowhere.jsonl")


def test_wrong_answers_are_kept_and_overlap_is_seen(tmp_path):
    rows = read_rows(
        written(tmp_path, {**ROW, "perturbed_answer": "An.", "id": 1}, {**ROW, "paraphrased_answer": "Bo"})
    )
    assert rows == [{**ROW, "perturbed_answer": ["An."]}, {**ROW, "paraphrased_answer": "Bo"}]
    assert overlap(rows, [ROW]) == 2
    assert overlap(rows, [{**ROW, "answer": "An."}]) == 0


def test_prompts_are_told_from_questions(tmp_path):
    assert has_prompts(written(tmp_path, {"prompt": "Who", "completion": " is it"}))
    assert not has_prompts(written(tmp_path, ROW))
    assert has_prompts(tmp_path / "rows.jsonl", ["prompt", "answer"])
