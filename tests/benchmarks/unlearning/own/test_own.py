"""A model that unlearns a file: from files to files, and what its figures are."""

import json
import math

import pytest
import torch

import mtopt
from benchmarks.unlearning import _recording, losses
from benchmarks.unlearning.encoding import collate, encode, encode_text
from benchmarks.unlearning.metrics import Evaluation
from benchmarks.unlearning.models import ModelConfig, load, tiny_llama
from benchmarks.unlearning.own import Request, unlearn
from benchmarks.unlearning.own.command import _usual_template
from benchmarks.unlearning.own.measure import measure
from tests.benchmarks.unlearning.chat_tokenizers import chat_tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def files(authors, tmp_path_factory):
    """A model that has half learned some authors, and three of its sets with nothing but questions and answers."""
    folder = tmp_path_factory.mktemp("own")
    authors.model.save_pretrained(folder / "model")
    authors.tokenizer.save_pretrained(folder / "model")
    for name, source, count in [("forget", "forget10", 4), ("retain", "retain90", 12), ("holdout", "holdout10", 4)]:
        rows = [{name: row[name] for name in ("question", "answer")} for row in authors.corpus[source][:count]]
        write(folder / f"{name}.jsonl", rows)
        write(folder / f"{name}_texts.jsonl", [{"text": f"{row['question']} {row['answer']}"} for row in rows])
    return folder


def request_of(files, out, kind="", **options):
    named = {name: str(files / f"{name}{kind}.jsonl") for name in ("forget", "retain", "holdout")}
    small = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "max_new_tokens": 12}
    return Request(**{"model": str(files / "model"), "out": str(out), **named, **small, **options})


def lines_of(out):
    return [json.loads(line) for line in (out / "summary.jsonl").read_text().splitlines()]


def test_questions_from_files_to_the_page(files, authors, tmp_path, capsys):
    retained = files / "retain.jsonl"
    page = unlearn(request_of(files, tmp_path, evaluate={"<again>": str(retained)}))
    first, *_, last = lines_of(tmp_path)
    assert [line["step"] for line in lines_of(tmp_path)] == [0, 1, 2, 3]
    assert last["forget_nll"] > first["forget_nll"]
    # the figures before, from the loss itself
    rows = [json.loads(line) for line in (files / "forget.jsonl").read_text().splitlines()]
    encoded = [encode(authors.tokenizer, row["question"], row["answer"]) for row in rows]
    with torch.no_grad():
        each = losses.nll(authors.model, collate(encoded, 0), reduction="none").double()
    assert first["forget_nll"] == pytest.approx(each.mean().item(), rel=1e-5)
    assert first["forget_probability"] == pytest.approx(each.neg().exp().mean().item(), rel=1e-5)
    assert first["<again>_nll"] == pytest.approx(first["retain_nll"], rel=1e-5)
    assert 0 <= first["auc_min_k"] <= 1
    assert first["privleak"] == pytest.approx(100 * (0.5 - first["auc_min_k"]) / 0.5)
    # what was saved is what was measured last, and stands on the page
    model, tokenizer = load(tmp_path / "model")
    saved = Evaluation.load(tmp_path / "evaluations" / "step_000003.json")
    sets = {"forget": rows}
    again = measure(model, tokenizer, sets, template="plain", max_length=1024, max_new_tokens=12)
    assert again.summary == pytest.approx({name: saved.summary[name] for name in again.summary}, rel=1e-4)
    assert [item["generation"] for item in again.items["forget"]] == [
        item["generation"] for item in saved.items["forget"]
    ]
    html = page.read_text()
    assert "<svg" in html
    assert "&lt;again&gt;, after" in html
    assert "<again>" not in html
    assert f"{last['forget_nll']:.3g}" in html
    assert (tmp_path / "figures" / "tradeoff.png").is_file()
    told = capsys.readouterr().out
    assert "forget 4 rows, retain 12 rows, holdout 4 rows" in told
    assert "template: 'plain'" in told
    assert "step 3: forget_probability" in told


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"method": "npo+kl", "lora": 2, "gradient_checkpointing": True}, "adapter_model.safetensors"),
        ({"method": "GDiff", "rule": "pcgrad", "forget_loss": "simnpo", "lora": 2, "merge": True}, "model.safetensors"),
        ({"method": "GA", "retain_loss": "none", "schedule": "constant"}, "model.safetensors"),
        ({"method": "NGDiff+GeN(fresh, smoothed)"}, "model.safetensors"),
    ],
    ids=["adapters", "merged", "forget alone", "a rate found on other rows"],
)
def test_texts_by_other_losses_and_rules(options, saved, files, tmp_path):
    unlearn(request_of(files, tmp_path, "_texts", epochs=2, **options))
    first, last = lines_of(tmp_path)[0], lines_of(tmp_path)[-1]
    assert last["step"] == 2 * math.ceil(4 / 4)
    assert first["forget_nll"] != last["forget_nll"]
    assert (tmp_path / "model" / saved).is_file()
    item = Evaluation.load(tmp_path / "evaluations" / "step_000000.json").items["forget"][0]
    assert item["text"].startswith(item["prompt"])
    assert item["prompt"] + item["continuation"] in item["text"]


def test_a_killed_run_goes_on_with_its_reference_on_the_disk(files, tmp_path, monkeypatch):
    options = {"method": "NPO+KL", "cache_reference": True, "checkpoint_every": 1}
    unlearn(request_of(files, tmp_path / "whole", **options))
    record = _recording.record_evaluation

    def killed(out, step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        record(out, step, *rest)

    monkeypatch.setattr(_recording, "record_evaluation", killed)
    with pytest.raises(KeyboardInterrupt):
        unlearn(request_of(files, tmp_path / "killed", **options))
    monkeypatch.undo()
    unlearn(request_of(files, tmp_path / "killed", **options))
    whole, resumed = (load(tmp_path / name / "model")[0] for name in ("whole", "killed"))
    assert all(torch.equal(*both) for both in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert [line["step"] for line in lines_of(tmp_path / "killed")] == [0, 1, 2, 3]
    assert not list((tmp_path / "killed").glob(".*"))


def test_conversations_by_the_models_own_template(authors, tmp_path):
    """A model whose turns end with a token that its tokenizer does not end with, from files of messages."""
    tokenizer = chat_tokenizer("phi-3")
    tiny_llama(ModelConfig(hidden=16, layers=1, heads=2, positions=256), tokenizer).half().save_pretrained(
        tmp_path / "m"
    )
    tokenizer.save_pretrained(tmp_path / "m")
    for name, answers in {"forget": ["Bo.", "An."], "retain": ["In Tallinn.", "At sea."]}.items():
        turns = [[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": answer}] for answer in answers]
        write(tmp_path / f"{name}.jsonl", [{"messages": each} for each in turns])
    unlearn(request_of(tmp_path, tmp_path / "out", model=str(tmp_path / "m"), holdout=None, epochs=1))
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["arguments"]["template"] == "chat"
    items = Evaluation.load(tmp_path / "out" / "evaluations" / "step_000000.json").items["forget"]
    # the tokens of the answer and the end of its turn, and no end of sequence after it
    assert [item["tokens"] for item in items] == [
        len(tokenizer(f"{answer}<|end|>", add_special_tokens=False)["input_ids"]) for answer in ("Bo.", "An.")
    ]
    # a float16 checkpoint was trained, in float32
    assert not (math.isnan(lines_of(tmp_path / "out")[-1]["forget_nll"]))
    assert load(tmp_path / "out" / "model")[0].dtype == torch.float32


def test_the_pieces_of_a_text_count_as_one(authors):
    text = " ".join(row["answer"] for row in authors.corpus["forget10"])
    options = {"template": "plain", "max_new_tokens": 2}
    found = measure(authors.model, authors.tokenizer, {"forget": [{"text": text}]}, max_length=9, **options)
    pieces = encode_text(authors.tokenizer, text, max_length=9)
    assert len(pieces) > 3
    with torch.no_grad():
        values, mask = losses.token_nll(
            authors.model(input_ids=(batch := collate(pieces, 0))["input_ids"]).logits, batch["labels"]
        )
    assert found.summary["forget_nll"] == pytest.approx((values.sum() / mask.sum()).item(), rel=1e-5)


def test_wrong_answers_give_a_truth_ratio(authors):
    rows = [dict(row) for row in authors.corpus["forget10_perturbed"][:3]]
    found = measure(authors.model, authors.tokenizer, {"forget": rows}, template="plain", max_new_tokens=4)
    assert 0 < found.summary["forget_truth_ratio"] <= 1
    plain = [{name: row[name] for name in ("question", "answer")} for row in rows]
    without = measure(authors.model, authors.tokenizer, {"forget": plain}, template="plain", max_new_tokens=4)
    assert "forget_truth_ratio" not in without.summary


def test_the_usual_template_is_the_tokenizers(files, authors, tmp_path):
    write(tmp_path / "prompts.jsonl", [{"prompt": "Bo is", "completion": " here."}])
    prompts = request_of(files, tmp_path, forget=str(tmp_path / "prompts.jsonl"))
    assert _usual_template(request_of(files, tmp_path), authors.tokenizer) == "plain"
    assert _usual_template(prompts, authors.tokenizer) == "{question}{answer}"
    assert _usual_template(prompts, chat_tokenizer("gemma")) == "chat"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "NGD"}, mtopt.UnknownNameError, "unknown method 'NGD'; known names: GA, GDiff"),
        ({"forget_loss": "np"}, mtopt.UnknownNameError, "unknown forget_loss 'np'; known names: nll"),
        ({"retain_loss": "npo"}, mtopt.UnknownNameError, "unknown retain_loss 'npo'"),
        ({"rule": "pcgard"}, mtopt.UnknownNameError, "did you mean 'pcgrad'"),
        ({"retain_loss": "none"}, ValueError, r"NGDiff\+GeN finds its rate on the retain loss"),
        ({"evaluate": {"retain": "a.jsonl"}}, ValueError, "evaluate names retain"),
        ({"epochs": 0}, ValueError, "epochs must be positive, found 0"),
    ],
)
def test_a_wrong_request_is_refused_before_a_file_is_read(options, error, message):
    with pytest.raises(error, match=message):
        Request(**{"model": "nowhere", "forget": "no", "retain": "no", "out": "no", **options})


def test_files_that_do_not_go_together(files, tmp_path):
    with pytest.raises(ValueError, match=r"4 of the 4 rows of .*forget\.jsonl are in .*forget\.jsonl, too"):
        unlearn(request_of(files, tmp_path, model="nowhere", retain=str(files / "forget.jsonl")))
    with pytest.raises(ValueError, match=r"holdout_texts\.jsonl must hold rows of the kind of"):
        unlearn(request_of(files, tmp_path, model="nowhere", holdout=str(files / "holdout_texts.jsonl")))
    with pytest.raises(ValueError, match=r"12 of the 12 rows of .*retain\.jsonl are in .*retain\.jsonl, too"):
        unlearn(request_of(files, tmp_path, model="nowhere", holdout=str(files / "retain.jsonl")))
    with pytest.raises(FileNotFoundError, match=r"no folder .*/nowhere; give what save_pretrained wrote"):
        unlearn(request_of(files, tmp_path, model=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="idk_dpo refuses to answer questions, and the texts of forget ask none"):
        unlearn(request_of(files, tmp_path, "_texts", method="IdkDPO"))


def test_the_page_runs(run_page, files, tmp_path):
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / "llama").symlink_to(files / "model")
    for name in ("forget", "retain"):
        (demo / f"{name}.jsonl").symlink_to(files / f"{name}.jsonl")
    assert run_page("docs/unlearn_own_data.md")["page"].is_file()
