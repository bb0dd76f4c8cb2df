"""Encoding and batches against examples worked out by hand, with a tokenizer simple enough to do so."""

import re

import pytest
import torch

from benchmarks.unlearning.encoding import IGNORED, collate, encode, encode_all, encode_text


class Words:
    """One id a word, white space ignored; ``#`` and the word after it are one piece, as a tokenizer may merge across a
    border. Ids are given as words come; 0 is the end, 1 the beginning."""

    eos_token_id: int | None = 0
    chat_template = "its own"

    def __init__(self, *, begins=False, ends=False):
        self.begins, self.ends, self.known = begins, ends, ["<end>", "<begin>"]

    def __call__(self, text, add_special_tokens=True):
        if isinstance(text, list):
            return {"input_ids": [self(one, add_special_tokens)["input_ids"] for one in text]}
        words = re.findall(r"#\s*\w+|\w+|[^\w\s]", text)
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        ids = [self.known.index(word) for word in words]
        if add_special_tokens:
            ids = [1] * self.begins + ids + [0] * self.ends
        return {"input_ids": ids}

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        assert not tokenize
        names = {"user": "USER", "assistant": "BOT"}
        said = "".join(f"{names[turn['role']]} {turn['content']} " for turn in turns)
        return said + "BOT " * add_generation_prompt

    def words(self, ids):
        return [self.known[place] for place in ids]


def test_labels_are_on_the_answer_and_the_end():
    tokenizer = Words()
    row = encode(tokenizer, "Who is it?", "It is Bo.")
    assert " ".join(tokenizer.words(row["input_ids"])) == "Question : Who is it ? Answer : It is Bo . <end>"
    assert row["labels"] == [IGNORED] * 8 + row["input_ids"][8:]


@pytest.mark.parametrize(
    ("template", "words", "scored"),
    [
        ("llama-2", "<begin> [ INST ] Who ? [ / INST ] Bo <end>", 2),
        ("{question} = {answer}", "<begin> Who ? = Bo <end>", 2),
        ("chat", "USER Who ? BOT Bo <end>", 2),
        # the border falls within a piece: it is scored, and generation starts before it
        ("{question} # {answer}", "<begin> Who ? #_Bo <end>", 2),
    ],
)
def test_templates(template, words, scored):
    tokenizer = Words(begins=True)
    row = encode(tokenizer, "Who?", "Bo", template=template)
    assert tokenizer.words(row["input_ids"]) == [word.replace("_", " ") for word in words.split()]
    assert row["labels"] == [IGNORED] * (len(row["input_ids"]) - scored) + row["input_ids"][-scored:]


def test_many_at_once_are_the_single_ones():
    tokenizer = Words(begins=True)
    pairs = [("Who?", "Bo"), ("And who is it then?", "It is not Bo."), ("Why?", "")]
    assert encode_all(tokenizer, pairs) == [encode(tokenizer, *pair) for pair in pairs]
    assert encode_all(tokenizer, []) == []


def test_braces_in_the_question_are_text():
    row = encode(tokenizer := Words(), "a {answer}", "b", template="{question} {answer}")
    assert tokenizer.words(row["input_ids"]) == ["a", "{", "answer", "}", "b", "<end>"]


def test_an_end_that_the_tokenizer_adds_is_not_doubled():
    row = encode(Words(ends=True), "a", "b", template="{question} {answer}")
    assert row == {"input_ids": [2, 3, 0], "labels": [IGNORED, 3, 0]}


def test_an_empty_answer_leaves_the_prompt_and_the_end():
    row = encode(Words(), "a", "", template="{question} {answer}")
    assert row == {"input_ids": [2, 0], "labels": [IGNORED, 0]}


def test_what_would_be_cut_is_refused():
    assert len(encode(Words(), "a b", "c", template="{question} {answer}", max_length=4)["input_ids"]) == 4
    with pytest.raises(ValueError, match=r"4 tokens, more than max_length=3.*'a b'"):
        encode(Words(), "a b", "c", template="{question} {answer}", max_length=3)
    with pytest.raises(ValueError, match="plain, llama-2, chat"):
        encode(Words(), "a", "b", template="alpaca")
    with pytest.raises(ValueError, match="end with"):
        encode(Words(), "a", "b", template="{answer} {question}")
    endless = Words()
    endless.eos_token_id = None
    with pytest.raises(ValueError, match="eos_token"):
        encode(endless, "a", "b")


def test_texts_are_cut_in_pieces_that_lose_nothing():
    pieces = encode_text(Words(), "a b c d e", max_length=4)
    assert [piece["input_ids"] for piece in pieces] == [[2, 3, 4, 5], [6, 0]]
    assert all(piece["labels"] == piece["input_ids"] for piece in pieces)
    assert encode_text(Words(), "a b") == [{"input_ids": [2, 3, 0], "labels": [2, 3, 0]}]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6, 7, 9])
def test_every_token_of_a_text_but_the_first_of_a_piece_can_be_predicted(length):
    text = "a b c d e f g h"  # nine tokens with the end, so that one is left over after two, four and eight
    pieces = encode_text(Words(), text, max_length=length)
    assert all(2 <= len(piece["input_ids"]) <= length for piece in pieces)
    assert [label for piece in pieces for label in piece["labels"] if label != IGNORED] == [2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert all(any(label != IGNORED for label in piece["labels"][1:]) for piece in pieces)


def test_the_token_left_over_is_predicted_from_the_one_before():
    pieces = encode_text(Words(), "a b c d", max_length=4)
    assert pieces == [
        {"input_ids": [2, 3, 4, 5], "labels": [2, 3, 4, 5]},
        {"input_ids": [5, 0], "labels": [IGNORED, 0]},
    ]


def test_texts_that_hold_nothing_to_predict_are_refused():
    with pytest.raises(ValueError, match=r"the text ' ' has no token besides its end"):
        encode_text(Words(), " ")
    with pytest.raises(ValueError, match="max_length must be at least 2"):
        encode_text(Words(), "a b", max_length=1)


def test_batches_are_padded_on_the_right():
    batch = collate(
        [{"input_ids": [5, 6, 0], "labels": [IGNORED, 6, 0]}, {"input_ids": [7], "labels": [7]}],
        pad_id=9,
    )
    assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(batch, torch.int64)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 0], [7, IGNORED, IGNORED]]
    with pytest.raises(ValueError, match="rows is empty"):
        collate([], pad_id=0)
