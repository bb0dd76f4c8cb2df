"""TOFU's and MUSE's files: what is written is read again, and what is malformed is named by file and line."""

import json
import sys
import types

import pytest

from benchmarks.unlearning.corpus import CorpusConfig, generate
from benchmarks.unlearning.files import (
    from_hub,
    read_muse,
    read_tofu,
    read_tofu_corpus,
    write_muse,
    write_tofu,
)
from benchmarks.unlearning.muse import generate_muse

CONFIG = CorpusConfig(authors=10, questions=4, background_authors=12, countries=4)
GOOD = {"question": "Wer schrieb es?", "answer": "Käthe Übelacker."}


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path.parent


def test_a_corpus_written_is_read_again(tmp_path):
    corpus = generate(CONFIG)
    write_tofu(tmp_path, corpus)
    # the background is not a set of TOFU's, but has its schema
    assert read_tofu_corpus(tmp_path).sets == corpus.sets
    assert read_tofu_corpus(tmp_path, ["forget10"]).sets == {"forget10": corpus["forget10"]}


def test_the_muse_sets_written_are_read_again(tmp_path):
    sets = generate_muse(CONFIG)
    write_muse(tmp_path, sets)
    for name, rows in sets.sets.items():
        config, split = name.split("/")
        if config != "background":
            assert read_muse(tmp_path, config, split) == rows


def test_json_lines_of_the_published_form_are_read(tmp_path):
    folder = write(tmp_path / "full.json", GOOD, b"", {**GOOD, "more": 1}, b"")
    assert read_tofu(folder, "full") == [GOOD, {**GOOD, "more": 1}]
    folder = write(tmp_path / "bom.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_tofu(folder, "bom") == [GOOD]


def test_a_byte_order_mark_may_stand_before_an_array(tmp_path):
    mark = b"\xef\xbb\xbf"
    for name, between in (("at_once", b""), ("later", b"\r\n ")):
        folder = write(tmp_path / f"{name}.json", mark + between + json.dumps([GOOD, GOOD], indent=1).encode())
        assert read_tofu(folder, name) == [GOOD, GOOD]
    write(tmp_path / "privleak" / "forget.json", mark + b'["one text", "another"]')
    assert read_muse(tmp_path, "privleak", "forget") == [{"text": "one text"}, {"text": "another"}]


def test_both_halves_of_a_character_are_the_character(tmp_path):
    folder = write(tmp_path / "full.json", b'{"question": "a", "answer": "\\ud83d\\ude00"}')
    assert read_tofu(folder, "full") == [{"question": "a", "answer": "\N{GRINNING FACE}"}]


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("privleak/forget", '["a text", " "]', "text"),
        ("verbmem/forget", '[{"prompt": "a", "gt": "b"}, {"prompt": "", "gt": "b"}]', "prompt"),
        ("verbmem/forget", '[{"prompt": "a", "gt": "b"}, {"prompt": "a", "gt": "\\n"}]', "gt"),
    ],
)
def test_empty_texts_are_named_by_row(tmp_path, name, row, column):
    write(tmp_path / f"{name}.json", row.encode())
    with pytest.raises(ValueError, match=rf"forget\.json, row 2: '{column}' holds an empty text"):
        read_muse(tmp_path, *name.split("/"))


def test_arrays_strings_and_plain_text_are_read_as_muse_stores_them(tmp_path):
    write(tmp_path / "privleak" / "forget.json", ["one text", "another"])
    write(tmp_path / "raw" / "forget.txt", b"One text.\n\nMore of it.")
    write(tmp_path / "knowmem" / "forget_qa.json", [GOOD])
    assert read_muse(tmp_path, "privleak", "forget") == [{"text": "one text"}, {"text": "another"}]
    assert read_muse(tmp_path, "raw", "forget") == [{"text": "One text.\n\nMore of it."}]
    assert read_muse(tmp_path, "knowmem", "forget_qa") == [GOOD]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b'{"question": "a", "answer"', "not JSON"),
        (b'{"question": "a", "answer": "b"} {}', "not JSON"),
        (b'["a", "b"]', "an object with question, answer was expected, found list"),
        (b'{"question": "a"}', "no 'answer'; it has question"),
        (b'{"question": "a", "answer": 3}', "'answer' must be a string, found 3"),
        (b'{"question": "a", "answer": null}', "'answer' must be a string, found None"),
        (b'{"question": "\xff"}', "not UTF-8"),
        (b'{"question": "a\\ud83d", "answer": "b"}', r"'question' holds half of a character, U\+D83D at 1 of 'a"),
        (b'{"question": "a", "answer": "\\ude00"}', "'answer' holds half of a character"),
        (b'{"question": "a", "answer": "b", "more": ["c", "\\ud83d"]}', "'more' holds half of a character"),
        (b'{"question": "a", "answer": ""}', "'answer' holds an empty text"),
        (b'{"question": "a", "answer": " "}', "'answer' holds an empty text"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(tmp_path, bad, why):
    folder = write(tmp_path / "full.json", GOOD, b"", bad, GOOD)
    with pytest.raises(ValueError, match=why) as raised:
        read_tofu(folder, "full")
    assert str(folder / "full.json") in str(raised.value)
    assert "line 3" in str(raised.value)


def test_an_empty_perturbed_answer_is_named(tmp_path):
    row = {**GOOD, "paraphrased_answer": "a", "paraphrased_question": "q", "perturbed_answer": ["x", ""]}
    folder = write(tmp_path / "forget10_perturbed.json", row)
    with pytest.raises(ValueError, match="line 1: 'perturbed_answer' holds an empty text"):
        read_tofu(folder, "forget10_perturbed")


@pytest.mark.parametrize("wrong", ["an answer", [], ["a", 2], None])
def test_perturbed_answers_must_be_a_list_of_strings(tmp_path, wrong):
    row = {**GOOD, "paraphrased_answer": "a", "paraphrased_question": "q", "perturbed_answer": wrong}
    folder = write(tmp_path / "forget10_perturbed.json", {**row, "perturbed_answer": ["x"]}, row)
    with pytest.raises(ValueError, match="line 2: 'perturbed_answer' must be a list of strings"):
        read_tofu(folder, "forget10_perturbed")


def test_a_malformed_array_is_named_by_line_and_row(tmp_path):
    write(tmp_path / "privleak" / "forget.json", b'["one",\n"two",\n"three')
    with pytest.raises(ValueError, match=r"forget\.json, line 3, .*not JSON"):
        read_muse(tmp_path, "privleak", "forget")
    write(tmp_path / "verbmem" / "forget.json", b'[{"prompt": "a", "gt": "b"}, {"prompt": "a"}]')
    with pytest.raises(ValueError, match=r"forget\.json, row 2: no 'gt'"):
        read_muse(tmp_path, "verbmem", "forget")


def test_what_is_not_there_is_answered_with_what_is(tmp_path):
    write(tmp_path / "full.json", GOOD)
    with pytest.raises(FileNotFoundError, match=r"no forget10\.json, \.jsonl or \.txt in .*; it holds full"):
        read_tofu(tmp_path, "forget10")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_tofu(tmp_path / "absent", "full")
    with pytest.raises(ValueError, match="verbmem"):
        read_muse(tmp_path, "verbatim", "forget")
    write(tmp_path / "retain90.json", b"\n")
    with pytest.raises(ValueError, match=r"retain90\.json is empty"):
        read_tofu(tmp_path, "retain90")


def test_a_hub_set_is_read_through_the_library_and_checked(monkeypatch):
    asked = []

    def loaded(repository, config, split):
        asked.append((repository, config, split))
        return [GOOD, {"question": "q"}] if config == "full" else [{"text": "t"}]

    # the library's place is taken: nothing is downloaded
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=loaded))
    assert from_hub("muse-news", "raw", "retain2") == [{"text": "t"}]
    with pytest.raises(ValueError, match="locuslab/TOFU, full, train, row 2: no 'answer'"):
        from_hub("tofu", "full")
    with pytest.raises(ValueError, match="raw, verbmem"):
        from_hub("muse-news", "full")
    assert asked == [("muse-bench/MUSE-News", "raw", "retain2"), ("locuslab/TOFU", "full", "train")]


def test_without_the_library_the_hub_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "mtopt\[datasets\]"'):
        from_hub("tofu", "full")
