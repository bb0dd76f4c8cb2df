"""Chat templates: what is learned of an answer is what the model is to say, the end of its turn included, no more."""

import math

import pytest

from benchmarks.unlearning.chat import chat_template_of
from benchmarks.unlearning.encoding import IGNORED, encode, encode_all
from benchmarks.unlearning.metrics.generation import answer_of, generate, prompt_of
from benchmarks.unlearning.metrics.scoring import score_tokens
from benchmarks.unlearning.models import FitConfig, ModelConfig, fit, tiny_llama
from tests.benchmarks.unlearning.chat_tokenizers import PUBLISHED, chat_tokenizer, end_of_turn

QUESTION, ANSWER = "Who is it?", "It is Bo."


@pytest.fixture(params=PUBLISHED)
def named(request):
    return request.param, chat_tokenizer(request.param)


def test_the_answer_ends_as_its_turn_does(named):
    name, tokenizer = named
    row = encode(tokenizer, QUESTION, ANSWER, template="chat")
    assert tokenizer.decode(row["input_ids"][-1]) == end_of_turn(name)
    assert tokenizer.decode(answer_of(row)).strip() in (ANSWER + end_of_turn(name), f"{ANSWER} {end_of_turn(name)}")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    # some special tokens take the white space after them
    assert "".join(tokenizer.decode(prompt_of(row)).split()) == "".join(asked.split())
    # one beginning: the template's own
    assert row["input_ids"].count(tokenizer.bos_token_id) == asked.count(tokenizer.bos_token)


def test_what_the_template_writes_is_what_is_read(named):
    """The row is the beginning of what the tokenizer makes of the finished conversation."""
    _, tokenizer = named
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    whole = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
    row = encode(tokenizer, QUESTION, ANSWER, template="chat")
    kept = len(row["input_ids"]) - (chat_template_of(tokenizer).end is None)  # the end, where the template has none
    assert row["input_ids"][:kept] == whole[:kept]
    assert sum(label == IGNORED for label in row["labels"]) == len(prompt_of(row)) > 0


@pytest.mark.parametrize("name", ["gemma", "llama-3", "llama-2"])
def test_a_template_that_trims_the_answer(name):
    tokenizer = chat_tokenizer(name)
    padded = encode(tokenizer, QUESTION, f"  {ANSWER}\n\n", template="chat")
    assert padded == encode(tokenizer, QUESTION, ANSWER, template="chat")


def test_conversations_of_several_turns():
    tokenizer = chat_tokenizer("llama-3")
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Bo."},
        {"role": "user", "content": "Where was Bo born?"},
    ]
    row = encode(tokenizer, turns, "In Tallinn.", template="chat")
    assert tokenizer.decode(answer_of(row)) == "In Tallinn.<|eot_id|>"
    assert tokenizer.decode(prompt_of(row)).count("<|eot_id|>") == 4
    with pytest.raises(ValueError, match="takes one question, got turns of system, user, assistant, user"):
        encode(tokenizer, turns, "In Tallinn.", template="plain")
    with pytest.raises(ValueError, match=r"refuses turns of system, user, assistant, user: .*roles must alternate"):
        encode(chat_tokenizer("gemma"), turns, "In Tallinn.", template="chat")


def test_templates_that_cannot_be_used():
    tokenizer = chat_tokenizer("gemma")
    tokenizer.chat_template = "{% for message in messages %}{% if message['role'] == 'user' %}Q{% endif %}{% endfor %}"
    with pytest.raises(ValueError, match="leaves out what the assistant says: it makes 'Q'"):
        encode(tokenizer, QUESTION, ANSWER, template="chat")
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template; name another"):
        encode(tokenizer, QUESTION, ANSWER, template="chat")


@pytest.mark.parametrize("name", ["gemma", "phi-3"])
def test_a_model_that_ends_its_turns_is_scored_and_stopped_there(name):
    """Trained on its template's own text, as those who publish do, and with no end of a turn in its configuration."""
    tokenizer = chat_tokenizer(name)
    pairs = [(QUESTION, ANSWER), ("Where was Anna Kovacs born?", "Anna was born in Tallinn.")]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenize=False
        )
        for question, answer in pairs
    ]
    published = [{"input_ids": ids, "labels": ids} for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    model = tiny_llama(ModelConfig(hidden=32, layers=1, heads=2, positions=256), tokenizer)
    fit(model, published * 4, FitConfig(60, 1e-2), pad_id=tokenizer.pad_token_id, seed=0)
    rows = encode_all(tokenizer, pairs, template="chat")
    scores = score_tokens(model, rows, pad_id=tokenizer.pad_token_id)
    assert all(score.correct.all() for score in scores)
    assert all(math.exp(score.log_probabilities[-1]) > 0.9 for score in scores)
    ends = {answer_of(row)[-1] for row in rows}
    said = generate(model, tokenizer, [prompt_of(row) for row in rows], max_new_tokens=40, ends=ends)
    assert said == [answer for _, answer in pairs]
