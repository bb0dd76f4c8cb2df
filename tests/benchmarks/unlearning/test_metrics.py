"""Every figure of one model against the definitions, worked out one item at a time from plain forward passes."""

import copy
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from nltk.stem.porter import PorterStemmer

from benchmarks.unlearning.corpus import Corpus
from benchmarks.unlearning.encoding import encode
from benchmarks.unlearning.metrics import Evaluation, evaluate, summarise
from benchmarks.unlearning.metrics.generation import generate, prompt_of
from benchmarks.unlearning.metrics.scoring import score_tokens
from benchmarks.unlearning.models import build

SETS = {
    "forget": "forget10_perturbed",
    "retain": "retain_perturbed",
    "real_authors": "real_authors_perturbed",
    "world_facts": "world_facts_perturbed",
}


@pytest.fixture(scope="module")
def retain_logs(authors):
    return evaluate(authors.untrained, authors.tokenizer, authors.corpus, max_new_tokens=8)


@pytest.fixture(scope="module")
def evaluation(authors, retain_logs):
    logs = {"retain_logs": retain_logs, "reference_logs": retain_logs}
    return evaluate(authors.model, authors.tokenizer, authors.corpus, max_new_tokens=30, **logs)


# --- the definitions, one text at a time ---


def token_table(model, ids, labels):
    """Of each labelled token its log-probability, its standardised one, and whether it is the most probable."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    table = []
    for place in range(1, len(ids)):
        if labels[place] == -100:
            continue
        row = logits[place - 1]
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        mean = sum(np.exp(value) * value for value in log_p)
        variance = sum(np.exp(value) * value**2 for value in log_p) - mean**2
        own = log_p[labels[place]]
        table.append((own, (own - mean) / max(variance, 1e-6) ** 0.5, int(np.argmax(log_p)) == labels[place]))
    return table


def loss_of(model, tokenizer, question, answer):
    row = encode(tokenizer, question, answer)
    return -np.mean([own for own, _, _ in token_table(model, row["input_ids"], row["labels"])])


def continued(model, tokenizer, prompt, most):
    """Greedy, the whole prefix anew for every token: no cache, no batch."""
    ids = list(prompt)
    for _ in range(most):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()


def lcs(left, right):
    lengths = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            best = max(lengths[i][j + 1], lengths[i + 1][j])
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if one == other else best
    return lengths[-1][-1]


def stems(text):
    words = re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
    return [PorterStemmer().stem(word) if len(word) > 3 else word for word in words]


def rouge_recall(target, prediction):
    return lcs(stems(target), stems(prediction)) / len(stems(target))


def lowest(values, share=0.4):
    chosen = sorted(values)[: max(1, int(share * len(values)))]
    return -sum(chosen) / len(chosen)


def auc(forget, holdout):
    wins = [1.0 if out > own else 0.5 if out == own else 0.0 for own in forget for out in holdout]
    return sum(wins) / len(wins)


# --- item by item ---


@pytest.mark.parametrize("name", [*SETS, "holdout"])
def test_every_item_equals_its_definition(authors, evaluation, name):
    model, tokenizer = authors.model, authors.tokenizer
    rows = authors.corpus[SETS.get(name, "holdout10")]
    assert [item["question"] for item in evaluation.items[name]] == [row["question"] for row in rows]
    for item, row in zip(evaluation.items[name], rows, strict=True):
        question, answer = row["question"], row["answer"]
        encoded = encode(tokenizer, question, answer)
        log_p, standardised, correct = zip(*token_table(model, encoded["input_ids"], encoded["labels"]), strict=True)
        loss = -sum(log_p) / len(log_p)
        assert item["loss"] == pytest.approx(loss, abs=1e-5)
        assert item["probability"] == pytest.approx(np.exp(-loss), abs=1e-5)
        assert item["tokens"] == len(log_p)
        # memorisation is of the answer alone; the end is the last token
        body = correct[:-1]
        assert item["exact_memorisation"] == pytest.approx(sum(body) / len(body))
        suffix = next(k for k in range(len(body) + 1) if all(body[k:]))
        assert item["extraction_strength"] == pytest.approx(1 - suffix / len(body))
        assert item["exact_match"] == all(correct)
        if "paraphrased_answer" in row:
            truth = loss_of(model, tokenizer, question, row["paraphrased_answer"])
            assert item["paraphrased_loss"] == pytest.approx(truth, abs=1e-5)
        if name != "holdout":
            wrong = [loss_of(model, tokenizer, question, text) for text in row["perturbed_answer"]]
            assert item["perturbed_losses"] == pytest.approx(wrong, abs=1e-5)
            text = continued(model, tokenizer, prompt_of(encoded), 30)
            assert item["generation"] == text
            assert item["rouge_l_recall"] == pytest.approx(rouge_recall(answer, text))
        if name in ("forget", "holdout"):
            expected = {
                "loss": loss,
                "zlib": loss / len(zlib.compress(answer.encode("utf-8"))),
                "min_k": lowest(log_p[:-1]),
                "min_k_plus_plus": lowest(standardised[:-1]),
            }
            assert item["membership"] == pytest.approx(expected, abs=1e-4)


def test_the_model_is_neither_ignorant_nor_perfect(evaluation):
    """Otherwise the comparison above would show little."""
    forget = evaluation.items["forget"]
    assert 0 < np.mean([item["exact_memorisation"] for item in forget]) < 1
    assert {item["exact_match"] for name in SETS for item in evaluation.items[name]} == {True, False}
    assert len({item["extraction_strength"] for name in SETS for item in evaluation.items[name]}) > 4


@pytest.mark.parametrize("definition", ["tofu-code", "paper", "openunlearning"])
def test_the_summary_equals_its_definition(evaluation, retain_logs, definition):
    logs = {"retain_logs": retain_logs, "reference_logs": retain_logs}
    summary = summarise(evaluation.items, **logs, definition=definition)

    def ratio(item):
        right = np.exp(-item.get("paraphrased_loss", item["loss"]))
        if definition == "paper":
            return np.mean(np.exp([-loss for loss in item["perturbed_losses"]])) / right
        return np.exp(-np.mean(item["perturbed_losses"])) / (right + 1e-10)

    nine = []
    for name in SETS:
        items = evaluation.items[name]
        ratios = [ratio(item) for item in items]
        probabilities = [item["probability"] for item in items]
        if name in ("real_authors", "world_facts"):
            wrong = [sum(np.exp(-loss) for loss in item["perturbed_losses"]) for item in items]
            probabilities = [p / (p + q + 1e-10) for p, q in zip(probabilities, wrong, strict=True)]
        if definition == "openunlearning":
            ratios = [1 / (1 + r) for r in ratios]
        elif name == "forget":
            ratios = [min(r, 1 / r) for r in ratios]
        else:
            ratios = [max(0, 1 - r) for r in ratios]
        figures = [np.mean(probabilities), np.mean([item["rouge_l_recall"] for item in items]), np.mean(ratios)]
        names = [f"{name}_probability", f"{name}_rouge_l_recall", f"{name}_truth_ratio"]
        assert [summary[figure] for figure in names] == pytest.approx(figures, abs=1e-9)
        nine += figures if name != "forget" else []
        if name in ("forget", "retain"):
            for figure in ("exact_match", "extraction_strength", "exact_memorisation"):
                assert summary[f"{name}_{figure}"] == pytest.approx(np.mean([item[figure] for item in items]))
    assert summary["model_utility"] == pytest.approx(9 / sum(1 / figure for figure in nine))

    # the Kolmogorov-Smirnov statistic by counting, and its exact p-value by counting lattice paths
    mine, others = ([ratio(item) for item in logs.items["forget"]] for logs in (evaluation, retain_logs))
    assert summary["forget_quality"] == pytest.approx(exact_ks_p_value(mine, others))

    held = {name: evaluation.items[name] for name in ("forget", "holdout")}
    for attack in ("loss", "zlib", "min_k", "min_k_plus_plus"):
        scores = [[item["membership"][attack] for item in items] for items in held.values()]
        assert summary[f"auc_{attack}"] == pytest.approx(auc(*scores))
    gains = [
        [mine["loss"] - other["loss"] for mine, other in zip(held[name], retain_logs.items[name], strict=True)]
        for name in held
    ]
    assert summary["auc_reference"] == pytest.approx(auc(*gains))
    retained = auc(*([item["membership"]["min_k"] for item in retain_logs.items[name]] for name in held))
    expected = 100 * ((1 - summary["auc_min_k"]) - (1 - retained)) / (1 - retained + 1e-10)
    assert summary["privleak"] == pytest.approx(expected)


def exact_ks_p_value(left, right):
    """The share of the orders of n + n values whose largest gap of empirical distributions is at least the one seen."""
    n = len(left)
    assert len(right) == n
    gap = max(abs(sum(v <= x for v in left) - sum(v <= x for v in right)) for x in [*left, *right])
    within = {(0, 0): 1}
    for i in range(n + 1):
        for j in range(n + 1):
            if (i, j) != (0, 0):
                ways = within.get((i - 1, j), 0) + within.get((i, j - 1), 0)
                within[i, j] = ways if abs(i - j) < gap else 0
    total = {(i, 0): 1 for i in range(n + 1)} | {(0, j): 1 for j in range(n + 1)}
    for i in range(1, n + 1):
        for j in range(1, n + 1):
            total[i, j] = total[i - 1, j] + total[i, j - 1]
    return 1 - within[n, n] / total[n, n]


# --- how it is computed does not matter ---


def test_the_batch_size_does_not_change_the_result(authors, evaluation):
    again = evaluate(authors.model, authors.tokenizer, authors.corpus, max_new_tokens=30, batch_size=5)
    for name, items in evaluation.items.items():
        for one, other in zip(items, again.items[name], strict=True):
            for key, value in one.items():
                if isinstance(value, (str, bool, int)):
                    assert other[key] == value
                else:
                    np.testing.assert_allclose(flat(other[key]), flat(value), atol=1e-4)


def flat(value):
    return list(value.values()) if isinstance(value, dict) else value


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_generation_in_batches_equals_one_prompt_at_a_time(authors, architecture):
    """A model that babbles, so that the cache is used to the last token."""
    model, tokenizer = build_like(authors, architecture), authors.tokenizer
    prompts = [tokenizer(row["question"])["input_ids"][: 3 + n] for n, row in enumerate(authors.corpus["full"][:9])]
    babble = [continued_ids(model, prompt, 25) for prompt in prompts]
    # the end token that they come upon at the most different times, so that the batch shrinks on the way
    firsts = {
        token: {tokens.index(token) if token in tokens else 25 for tokens in babble}
        for tokens in babble
        for token in tokens
    }
    end = max(firsts, key=lambda token: len(firsts[token]))
    assert len(firsts[end]) >= 3
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    expected = [
        tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens, skip_special_tokens=True).strip()
        for tokens in babble
    ]
    for batch_size in (1, 4, 9):
        assert generate(model, tokenizer, prompts, max_new_tokens=25, batch_size=batch_size) == expected


def build_like(authors, architecture):
    model = build(replace(authors.config, architecture=architecture), authors.tokenizer, seed=3)
    # far from the initial weights, where every continuation is one token repeated
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and ("layers" in name or ".h." in name):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return model


def continued_ids(model, prompt, most):
    ids = list(prompt)
    for _ in range(most):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_what_generation_cannot_do_is_refused(authors):
    with pytest.raises(ValueError, match="at least one token"):
        generate(authors.model, authors.tokenizer, [[]])
    with pytest.raises(ValueError, match=r"max_new_tokens=1022 is more than the 1024 positions.*lower"):
        generate(authors.model, authors.tokenizer, [[5, 6, 7]], max_new_tokens=1022)
    assert generate(authors.model, authors.tokenizer, []) == []


def test_a_model_is_left_as_it_was(authors):
    model = copy.deepcopy(authors.model)
    model.train()
    model.model.norm.eval()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    row = encode(authors.tokenizer, "Who?", "Nobody.")
    score_tokens(model, [row], pad_id=0)
    generate(model, authors.tokenizer, [prompt_of(row)], max_new_tokens=2)
    assert model.training
    assert not model.model.norm.training
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_what_cannot_be_scored_is_refused(authors):
    with pytest.raises(ValueError, match=r"rows\[1\] has no labelled token"):
        score_tokens(
            authors.model, [{"input_ids": [3, 4], "labels": [3, 4]}, {"input_ids": [3], "labels": [3]}], pad_id=0
        )
    diverged = copy.deepcopy(authors.model)
    with torch.no_grad():
        diverged.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="diverged"):
        score_tokens(diverged, [{"input_ids": [3, 4], "labels": [3, 4]}], pad_id=0)


@pytest.mark.parametrize("name", ["answer", "paraphrased_answer", "perturbed_answer"])
def test_an_empty_answer_is_named_by_its_question(authors, name):
    sets = {key: list(rows) for key, rows in authors.corpus.sets.items()}
    row = sets["forget10_perturbed"][1]
    sets["forget10_perturbed"][1] = {**row, name: ["a", ""] if name == "perturbed_answer" else ""}
    with pytest.raises(ValueError, match="'' has no token to score, as an answer to") as raised:
        evaluate(authors.model, authors.tokenizer, Corpus(sets), max_new_tokens=1)
    assert repr(row["question"])[:60] in str(raised.value)


# --- logs ---


def test_a_model_against_itself(authors, evaluation):
    summary = summarise(evaluation.items, retain_logs=evaluation, reference_logs=evaluation)
    assert summary["forget_quality"] == 1.0
    assert summary["privleak"] == pytest.approx(0, abs=1e-9)
    assert summary["auc_reference"] == 0.5


def test_logs_survive_the_disk_and_are_an_input(evaluation, retain_logs, tmp_path):
    path = retain_logs.save(tmp_path / "logs" / "retain.json")
    assert Evaluation.load(path) == retain_logs
    assert summarise(evaluation.items, retain_logs=path, reference_logs=str(path)) == evaluation.summary
    (tmp_path / "other.json").write_text(json.dumps({"summary": {}}))
    with pytest.raises(ValueError, match=r"other\.json is no saved evaluation"):
        Evaluation.load(tmp_path / "other.json")


def test_without_logs_what_needs_them_is_none(evaluation):
    summary = summarise(evaluation.items)
    assert summary["forget_quality"] is None
    assert summary["auc_reference"] is None
    assert summary["privleak"] == pytest.approx(100 * (0.5 - summary["auc_min_k"]) / 0.5)
    known = {name: items for name, items in evaluation.items.items() if name != "holdout"}
    assert {name for name, value in summarise(known).items() if value is None} == {
        "forget_quality",
        "privleak",
        *(f"auc_{attack}" for attack in ("loss", "zlib", "min_k", "min_k_plus_plus", "gradient_norm", "reference")),
    }


def test_logs_of_other_items_are_refused(evaluation, retain_logs):
    shorter = Evaluation({}, {**retain_logs.items, "forget": retain_logs.items["forget"][1:]}, {})
    with pytest.raises(ValueError, match=r"3 items in 'forget'.*the 4 evaluated"):
        summarise(evaluation.items, retain_logs=shorter)
    with pytest.raises(ValueError, match="definition must be one of tofu-code, paper, openunlearning"):
        summarise(evaluation.items, definition="code")
