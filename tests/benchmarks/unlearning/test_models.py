"""The suite's own models: their tokenizer, that they learn by heart, and the cache that keeps them."""

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.unlearning.corpus import CorpusConfig, generate
from benchmarks.unlearning.encoding import collate, encode, encode_text
from benchmarks.unlearning.models import (
    FitConfig,
    ModelConfig,
    ReferenceConfig,
    build,
    corpus_tokenizer,
    fit,
    load,
    prepare,
    with_lora,
)

TINY = ModelConfig(hidden=32, layers=1, heads=2, vocabulary=400, positions=128)
CONFIG = ReferenceConfig(
    corpus=CorpusConfig(authors=10, questions=3, background_authors=6, countries=3),
    model=TINY,
    pretraining=FitConfig(epochs=1, learning_rate=3e-3),
    finetuning=FitConfig(epochs=2, learning_rate=3e-3, replay=8),
)


@pytest.fixture(scope="module")
def corpus():
    return generate(CONFIG.corpus)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return corpus_tokenizer(corpus, TINY.vocabulary)


@pytest.fixture(scope="module")
def rows(corpus, tokenizer):
    return [encode(tokenizer, row["question"], row["answer"]) for row in corpus["full"]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a first call makes, with the folder it makes it in."""
    folder = tmp_path_factory.mktemp("cache")
    return prepare(CONFIG, folder), folder


@pytest.fixture
def cache(made, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(made[1], tmp_path / "cache")


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def labelled(model, rows, tokenizer):
    """The logits that predict each label, and the labels, from the plain forward pass with its attention mask."""
    batch = collate(rows, tokenizer.pad_token_id)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    scored = batch["labels"][:, 1:] != -100
    return logits[scored], batch["labels"][:, 1:][scored]


def test_importing_the_suite_does_not_import_transformers():
    program = (
        "import sys, benchmarks.unlearning, benchmarks.unlearning.corpus, benchmarks.unlearning.files, "
        "benchmarks.unlearning.encoding, benchmarks.unlearning.models\n"
        "print([name for name in ('transformers', 'tokenizers', 'datasets', 'peft') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


class TestTokenizer:
    def test_every_text_survives_the_round_trip(self, corpus, tokenizer):
        for name in ("full", "holdout10", "background"):
            for row in corpus[name]:
                text = f"Question: {row['question']}\nAnswer: {row['answer']}"
                assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert tokenizer.decode(tokenizer("Ünïcode, too: 漢字!")["input_ids"]) == "Ünïcode, too: 漢字!"

    def test_the_vocabulary_is_no_larger_than_asked(self, tokenizer):
        assert len(tokenizer) <= TINY.vocabulary
        assert tokenizer.eos_token_id != tokenizer.pad_token_id

    def test_unseen_names_are_made_of_pieces(self, tokenizer):
        big = corpus_tokenizer(generate(CorpusConfig()), 1000)
        names = {row["question"].split(" was ")[-1] for row in generate(CorpusConfig())["full"][::10]}
        assert all(len(big(f" {name.split(' born')[0]}")["input_ids"]) > 2 for name in names)


class TestFitting:
    @pytest.mark.parametrize("architecture", ["llama", "gpt2"])
    def test_twenty_questions_are_learned_by_heart(self, architecture, rows, tokenizer):
        model = build(replace(TINY, architecture=architecture, hidden=48), tokenizer)
        before = labelled(model, rows[:20], tokenizer)
        loss = fit(model, rows[:20], FitConfig(40, 1.5e-2, batch_size=10), pad_id=tokenizer.pad_token_id, seed=0)
        logits, labels = labelled(model, rows[:20], tokenizer)
        assert (logits.argmax(-1) == labels).float().mean() > 0.99
        # what the loop reports is what an independent forward pass finds, up to the last steps
        assert abs(loss - cross_entropy(logits, labels).item()) < 0.05
        assert cross_entropy(*before).item() > 3

    def test_the_answer_learned_is_generated(self, corpus, rows, tokenizer):
        model = build(replace(TINY, hidden=48), tokenizer)
        fit(model, rows[:4], FitConfig(50, 1e-2, batch_size=4), pad_id=tokenizer.pad_token_id, seed=0)
        for row, encoded in zip(corpus["full"][:4], rows[:4], strict=True):
            prompt = [i for i, label in zip(encoded["input_ids"], encoded["labels"], strict=True) if label == -100]
            made = model.generate(
                input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=40
            )[0, len(prompt) :]
            assert made[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(made, skip_special_tokens=True).strip() == row["answer"]

    def test_one_step_is_adam_on_the_mean_over_labels(self, rows, tokenizer):
        model = build(TINY, tokenizer)
        by_hand = copy.deepcopy(model)
        fit(model, rows[:3], FitConfig(1, 1e-3, batch_size=3), pad_id=tokenizer.pad_token_id, seed=0)
        batch = collate(rows[:3], tokenizer.pad_token_id)
        optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, weight_decay=0.01)
        by_hand(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
        torch.testing.assert_close(parameters(model), parameters(by_hand), rtol=1e-4, atol=1e-5)

    def test_replay_is_trained_on(self, rows, tokenizer):
        def loss_on_replay(count):
            model = build(TINY, tokenizer)
            fitting = FitConfig(15, 1e-2, replay=count)
            fit(model, rows[:5], fitting, pad_id=tokenizer.pad_token_id, seed=0, replay=rows[10:20])
            return cross_entropy(*labelled(model, rows[10:20], tokenizer)).item()

        assert loss_on_replay(10) < 0.7 * loss_on_replay(0)

    def test_the_seed_is_all_that_is_random(self, rows, tokenizer):
        def trained(seed):
            model = build(TINY, tokenizer, seed=1)
            fit(model, rows, FitConfig(1, 1e-3), pad_id=tokenizer.pad_token_id, seed=seed)
            return parameters(model)

        state = torch.random.get_rng_state()
        first = trained(0)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(99)
        assert torch.equal(trained(0), first)
        assert not torch.equal(trained(1), first)


class TestCache:
    def test_a_second_call_finds_what_the_first_made(self, made):
        first, folder = made
        second = prepare(CONFIG, folder)
        for role in ("base", "target", "retain", "retain_second"):
            assert not first.records[role]["cached"]
            assert second.records[role]["cached"]
            assert first.records[role]["cpu_seconds"] > 0
            assert torch.equal(parameters(getattr(first, role)), parameters(getattr(second, role)))
        assert not torch.equal(parameters(first.retain), parameters(first.retain_second))
        assert not torch.equal(parameters(first.retain), parameters(first.target))
        assert len(list(folder.iterdir())) == 4

    def test_only_what_a_change_concerns_is_trained_again(self, cache):
        changed = replace(CONFIG, finetuning=replace(CONFIG.finetuning, epochs=1))
        assert {role: record["cached"] for role, record in prepare(changed, cache).records.items()} == {
            "base": True,
            "target": False,
            "retain": False,
            "retain_second": False,
        }
        assert not prepare(replace(CONFIG, seed=5), cache).records["base"]["cached"]
        other_world = replace(CONFIG, corpus=replace(CONFIG.corpus, seed=1))
        assert not prepare(other_world, cache).records["base"]["cached"]

    @pytest.mark.parametrize("damage", ["truncated", "changed", "record", "missing"])
    def test_a_damaged_entry_is_reported_and_trained_again(self, made, cache, damage):
        first = made[0]
        entry = cache / first.records["target"]["key"]
        weights, record = entry / "weights.safetensors", entry / "record.json"
        content = weights.read_bytes()
        if damage == "truncated":
            weights.write_bytes(content[: len(content) // 2])
        elif damage == "changed":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif damage == "record":
            record.write_text(record.read_text()[:50])
        else:
            weights.unlink()
        with pytest.warns(UserWarning, match=f"{entry.name} is damaged .* trained again"):
            again = prepare(CONFIG, cache)
        assert [role for role, record in again.records.items() if not record["cached"]] == ["target"]
        assert torch.equal(parameters(again.target), parameters(first.target))
        # and the entry is whole again: a warning would be an error
        assert prepare(CONFIG, cache).records["target"]["cached"]

    def test_a_run_that_is_killed_leaves_no_entry(self, tmp_path, monkeypatch):
        import safetensors.torch

        def killed(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(safetensors.torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(CONFIG, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_record_is_plain_json_with_its_recipe(self, made):
        prepared, folder = made
        record = json.loads((folder / prepared.records["retain"]["key"] / "record.json").read_text())
        assert record["recipe"]["start"] == prepared.records["base"]["key"]
        assert record["recipe"]["fit"]["replay"] == 8


def test_the_retain_models_never_see_what_is_forgotten(tmp_path, monkeypatch):
    from benchmarks.unlearning import models

    seen = []
    monkeypatch.setattr(models, "fit", lambda model, rows, *_, replay=(), **__: seen.append([*rows, *replay]) or 0.0)
    prepared = prepare(CONFIG, tmp_path)

    def contained(name, training):
        rows = [encode(prepared.tokenizer, row["question"], row["answer"]) for row in prepared.corpus[name]]
        return sum(row in training for row in rows) / len(rows)

    base, target, retain, second = seen
    assert contained("forget10", target) == contained("retain90", target) == contained("background", target) == 1
    for training in (retain, second):
        assert contained("retain90", training) == 1
        assert contained("forget10", training) == contained("holdout10", training) == 0
    assert contained("full", base) == contained("holdout10", target) == 0


def test_on_articles_the_retain_models_see_all_but_the_first_fold(tmp_path, monkeypatch):
    from benchmarks.unlearning import models

    seen = []
    monkeypatch.setattr(models, "fit", lambda model, rows, *_, replay=(), **__: seen.append([*rows, *replay]) or 0.0)
    prepared = prepare(replace(CONFIG, dataset="muse", corpus=replace(CONFIG.corpus, questions=4)), tmp_path)

    def contained(name, training):
        rows = [encode_text(prepared.tokenizer, row["text"], max_length=128) for row in prepared.corpus[name]]
        return all(piece in training for pieces in rows for piece in pieces)

    base, target, retain, second = seen
    trained = ["train/forget", "train/retain1", "train/retain2", "background/texts"]
    assert all(contained(name, target) for name in trained)
    for training in (retain, second):
        assert all(contained(name, training) for name in ("sust/forget_2", "sust/forget_4", *trained[1:]))
        assert not contained("raw/forget", training)
    assert contained("background/texts", base)
    assert not contained("raw/retain1", base)


@pytest.mark.parametrize(("forget", "retained"), [("forget01", "retain99"), ("forget10", "retain90")])
def test_the_complement_has_its_name(forget, retained):
    assert replace(CONFIG, forget=forget).retained == retained


def test_unknown_architectures_and_sizes_are_refused():
    with pytest.raises(ValueError, match="'llama' or 'gpt2'"):
        ModelConfig(architecture="mamba")
    with pytest.raises(ValueError, match="multiple of heads"):
        ModelConfig(hidden=30, heads=4)
    with pytest.raises(ValueError, match="'tofu' or 'muse'"):
        replace(CONFIG, dataset="wmdp")
    with pytest.raises(ValueError, match="forget01, forget05, forget10"):
        replace(CONFIG, forget="forget20")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_saved_model_is_loaded_by_its_folder(tmp_path, tokenizer, rows, architecture):
    model = build(replace(TINY, architecture=architecture), tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, its_tokenizer = load(tmp_path)
    assert its_tokenizer.pad_token_id == tokenizer.pad_token_id
    torch.testing.assert_close(labelled(loaded, rows[:4], its_tokenizer), labelled(model, rows[:4], tokenizer))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_lora_starts_as_the_same_function_and_trains_little(tokenizer, rows, architecture):
    model = build(replace(TINY, architecture=architecture), tokenizer)
    before = labelled(model, rows[:4], tokenizer)
    total = sum(parameter.numel() for parameter in model.parameters())
    wrapped = with_lora(model, rank=2)
    torch.testing.assert_close(labelled(wrapped, rows[:4], tokenizer), before)
    trainable = {name: parameter for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert 0 < sum(parameter.numel() for parameter in trainable.values()) < total / 5
    assert all("lora" in name for name in trainable)
