"""The command line, from files to files: what it trains, records, goes on with and refuses."""

import json

import pytest
import torch

from benchmarks.unlearning import _recording, _sources, run
from benchmarks.unlearning._arguments import parser
from benchmarks.unlearning._sources import Sources, open_sets
from benchmarks.unlearning.automatic_rate import AutomaticRate
from benchmarks.unlearning.corpus import CorpusConfig, generate
from benchmarks.unlearning.encoding import encode
from benchmarks.unlearning.files import write_muse, write_tofu
from benchmarks.unlearning.metrics import Evaluation
from benchmarks.unlearning.models import FitConfig, ModelConfig, build, corpus_tokenizer, fit, load
from benchmarks.unlearning.muse import generate_muse

WORLD = CorpusConfig(authors=10, questions=4, background_authors=6, countries=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Generated files of both benchmarks, and a tiny model that knows the authors, all in folders."""
    folder = tmp_path_factory.mktemp("files")
    corpus = generate(WORLD)
    write_tofu(folder / "tofu", corpus)
    write_muse(folder / "muse", generate_muse(WORLD))
    tokenizer = corpus_tokenizer(corpus, 400)
    model = build(ModelConfig(hidden=32, layers=1, heads=2, vocabulary=400, positions=1024), tokenizer)
    rows = [encode(tokenizer, row["question"], row["answer"]) for row in (*corpus["full"], *corpus["background"])]
    fit(model, rows, FitConfig(15, 1.5e-2), pad_id=tokenizer.pad_token_id, seed=0)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def arguments(files, out, method, *more, data="tofu", model=None):
    benchmark = "muse" if data == "muse" else "tofu"
    settings = ["--model", model or files / "model", "--data", files / data, "--benchmark", benchmark, "--out", out]
    few = [] if data == "muse" else ["--max-new-tokens", 12]
    return [str(part) for part in ("--method", method, *settings, *few, "--batch-size", 2, *more)]


def ran(*parts, **options):
    assert run.main(arguments(*parts, **options)) == 0
    return lines_of(parts[1])


def lines_of(out):
    return [json.loads(line) for line in (out / "summary.jsonl").read_text().splitlines()]


def figures(line):
    return {name: value for name, value in line.items() if name not in ("step", "training_seconds")}


def test_unlearning_from_files(files, tmp_path):
    (target,) = ran(files, tmp_path / "target", "none")
    logs = tmp_path / "target" / "evaluations" / "step_000000.json"
    options = ["--epochs", 2, "--learning-rate", 1e-3, "--evaluate-every", 2, "--retain-logs", logs]
    lines = ran(files, tmp_path / "run", "ngdiff+gen", *options, "--probe-batches", 2)
    # forget10 is one author's four questions: two steps an epoch
    assert [line["step"] for line in lines] == [0, 2, 4]
    # the target's own logs as those of the retain model: they agree at first, and less later
    assert lines[0]["forget_quality"] == 1
    assert lines[-1]["forget_probability"] < lines[0]["forget_probability"] == target["forget_probability"]
    assert lines[-1]["privleak"] >= lines[0]["privleak"] == pytest.approx(0, abs=1e-9)
    saved = Evaluation.load(tmp_path / "run" / "evaluations" / "step_000004.json")
    assert saved.summary == figures(lines[-1])
    assert len((tmp_path / "run" / "steps.csv").read_text().splitlines()) == 5
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["arguments"]["method"] == "NGDiff+GeN"
    assert settings["weights"]["trained"] == settings["weights"]["all"]
    # what was saved is what was evaluated last
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "run" / "model" / name).unlink()
    options = ["--retain-logs", logs, "--tokenizer", files / "model"]
    (again,) = ran(files, tmp_path / "again", "none", *options, model=tmp_path / "run" / "model")
    assert figures(again) == pytest.approx(figures(lines[-1]), abs=1e-6)


def test_parts_of_the_automatic_rate_are_flags():
    def rate_of(method, *flags):
        parts = ["--method", method, "--out", "runs", *flags]
        return run._recipe(parser().parse_args(parts)).automatic_rate

    assert rate_of("NGDiff+GeN") == AutomaticRate()
    assert rate_of("NGDiff+GeN", "--probe-batches", "4") == rate_of("NGDiff+GeN(fresh)") == AutomaticRate(fresh=True)
    assert rate_of("NGDiff+GeN(fresh)", "--probe-batches", "0") == AutomaticRate()
    flags = ["--probe-every", "5", "--probe-smoothing", "0.5", "--probe-startup", "3"]
    assert rate_of("NGDiff+GeN", *flags) == AutomaticRate(every=5, smoothing=0.5, startup=3)
    with pytest.raises(SystemExit, match="which NGDiff is not"):
        rate_of("NGDiff", "--probe-smoothing", "0.5")


def test_finetuning_learns_the_set_it_is_given(files, tmp_path):
    options = ["--train-on", "holdout10", "--epochs", 20, "--learning-rate", 1e-2]
    first, last = ran(files, tmp_path, "finetune", *options)
    held_out = [
        [item["loss"] for item in Evaluation.load(tmp_path / "evaluations" / name).items["holdout"]]
        for name in ("step_000000.json", "step_000040.json")
    ]
    assert sum(held_out[1]) < 0.5 * sum(held_out[0])
    assert last["step"] == 40
    # in TOFU's order: those to forget are known at first and the held-out ones are not
    assert first["auc_loss"] > last["auc_loss"]


def test_adapters_alone_are_trained_and_saved(files, tmp_path):
    options = ["--lora", 4, "--epochs", 2, "--learning-rate", 1e-2, "--gradient-checkpointing"]
    separate = ran(files, tmp_path / "separate", "NPO+NLL", *options)
    weights = json.loads((tmp_path / "separate" / "settings.json").read_text())["weights"]
    assert 0 < weights["trained"] < weights["all"] / 4
    assert (tmp_path / "separate" / "model" / "adapter_model.safetensors").is_file()
    merged = ran(files, tmp_path / "merged", "NPO+NLL", *options, "--merge")
    assert [figures(line) for line in merged] == [figures(line) for line in separate]
    assert merged[1]["forget_probability"] != merged[0]["forget_probability"]
    for name in ("separate", "merged"):
        (again,) = ran(files, tmp_path / f"{name} again", "none", model=tmp_path / name / "model")
        assert figures(again) == pytest.approx(figures(merged[-1]), abs=1e-4)


def test_muse_from_files(files, tmp_path):
    lines = ran(files, tmp_path / "run", "GDiff", "--epochs", 1, "--learning-rate", 1e-3, data="muse")
    assert [line["step"] for line in lines] == [0, -(-len(generate_muse(WORLD)["raw/forget"]) // 2)]
    assert lines[0]["privleak"] is None
    assert {"verbmem_forget", "knowmem_forget", "knowmem_retain", "auc_min_k"} < set(lines[0])
    (later,) = ran(files, tmp_path / "later", "none", "--auc-retrained", 0.4772, data="muse")
    assert later["privleak"] == pytest.approx(100 * (later["auc_min_k"] - 0.4772) / 0.4772)
    other = ran(files, tmp_path / "fold", "GA", "--epochs", 1, "--split", "sust/forget_2", data="muse")
    assert other[-1]["step"] == lines[-1]["step"]


def test_the_hub_is_asked_for_the_sets_that_are_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(_sources, "from_hub", lambda *names: asked.append(names) or [{"text": "a"}])
    muse = open_sets(Sources("muse", "sust/forget_2"), "hub:muse-news", ["sust/forget_2", "raw/retain1"])
    assert {("muse-news", "sust", "forget_2"), ("muse-news", "raw", "retain1")} < set(asked)
    assert ("muse-news", "knowmem", "retain_qa_icl") in asked
    assert len(asked) == len(set(asked)) == len(muse.sets)
    asked.clear()
    open_sets(Sources("tofu", "forget05"), "hub:tofu", ["forget05", "retain95"])
    sets = (
        "forget05 retain95 forget05_perturbed retain_perturbed real_authors_perturbed world_facts_perturbed holdout05"
    )
    assert asked == [("tofu", name) for name in sets.split()]


def test_a_split_of_ones_own_with_what_to_retain_beside_it(files, tmp_path):
    """The published split under other names gives the figures that it gives under its own, but for the held-out set."""
    own = tmp_path / "own"
    for name, copied in [
        ("doctors", "forget10"), ("doctors_perturbed", "forget10_perturbed"), ("others", "retain90"),
        *((name, name) for name in ("retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")),
    ]:  # fmt: skip
        own.mkdir(exist_ok=True)
        (own / f"{name}.json").write_bytes((files / "tofu" / f"{copied}.json").read_bytes())
    options = ["--epochs", 1, "--learning-rate", 1e-3]
    published = ran(files, tmp_path / "published", "GDiff", *options)
    mine = ran(files, tmp_path / "mine", "GDiff", *options, "--split", "doctors", "--retain-split", "others", data=own)
    assert mine[-1]["privleak"] is None
    assert published[-1]["privleak"] is not None
    shared = [name for name, value in mine[-1].items() if value is not None and name != "training_seconds"]
    # batches of other rows round otherwise
    assert [mine[-1][name] for name in shared] == pytest.approx([published[-1][name] for name in shared], rel=1e-4)


def test_a_reference_on_the_disk_gives_the_same_run(files, tmp_path):
    options = ["--epochs", 1, "--learning-rate", 1e-3]
    copied = ran(files, tmp_path / "copied", "NPO+KL", *options)
    cached = ran(files, tmp_path / "cached", "NPO+KL", *options, "--cache-reference")
    measured = {name: value for name, value in figures(copied[-1]).items() if value is not None}
    assert {name: cached[-1][name] for name in measured} == pytest.approx(measured, rel=1e-3, abs=1e-6)
    assert sorted(path.name for path in (tmp_path / "cached").iterdir()) == sorted(
        path.name for path in (tmp_path / "copied").iterdir()
    )
    with pytest.raises(ValueError, match="the losses nll and None take nothing of a reference"):
        ran(files, tmp_path / "none", "GA", *options, "--cache-reference")


def test_a_killed_run_goes_on(files, tmp_path, monkeypatch):
    options = ["--epochs", 2, "--learning-rate", 1e-3, "--evaluate-every", 1, "--checkpoint-every", 1]
    whole = ran(files, tmp_path / "whole", "IdkDPO", *options)
    record = _recording.record_evaluation

    def killed(out, step, *rest):
        record(out, step, *rest)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_recording, "record_evaluation", killed)
    with pytest.raises(KeyboardInterrupt):
        run.main(arguments(files, tmp_path / "killed", "IdkDPO", *options))
    monkeypatch.undo()
    assert [line["step"] for line in lines_of(tmp_path / "killed")] == [0, 1, 2, 3]
    resumed = ran(files, tmp_path / "killed", "IdkDPO", *options)
    assert [line["step"] for line in resumed] == [0, 1, 2, 3, 4]
    assert [figures(line) for line in resumed] == [figures(line) for line in whole]
    models = [load(tmp_path / name / "model")[0] for name in ("whole", "killed")]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_what_does_not_fit_together_is_refused(files, tmp_path, capsys):
    def refused(method, *more, **options):
        with pytest.raises(SystemExit) as caught:
            run.main(arguments(files, tmp_path, method, *more, **options))
        return str(caught.value) + capsys.readouterr().err

    assert "finetune needs --train-on" in refused("finetune")
    assert "--train-on is for --method finetune" in refused("GA", "--train-on", "full")
    assert "MUSE's texts ask none" in refused("IdkNLL", data="muse")
    assert "invalid choice: 'NGD'" in refused("NGD")
    assert "must be 1 or more" in refused("GA", "--epochs", 0)
    # whose complement has no name
    for split in ("my_forget", "forget", "forget-5", "forget00", "forget100", "10"):
        assert f"--split {split}: split must be forgetXX" in (told := refused("GA", "--split", split))
        assert "--retain-split" in told
    with pytest.raises(SystemExit, match=r"--split my_forget: forget must be one of forget01"):
        run.main(["--method", "none", "--split", "my_forget", "--out", str(tmp_path)])
    occupied = tmp_path / "a file"
    occupied.write_text("of mine")
    with pytest.raises(SystemExit):
        run.main(["--method", "none", "--out", str(occupied / "run")])
    assert f"argument --out: {occupied} is a file, not a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--model and --data go together"):
        run.main(["--method", "GA", "--model", "a", "--out", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"no forget50\.json"):
        run.main(arguments(files, tmp_path, "GA", "--split", "forget50"))


def test_the_rate_rises_over_an_epoch_and_falls_to_zero():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    options = parser().parse_args(["--method", "GA", "--out", "x"])
    schedule = run._schedule(optimizer, options, steps_per_epoch=4, epochs=3)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    constant = parser().parse_args(["--method", "GA", "--out", "x", "--schedule", "constant"])
    assert run._schedule(optimizer, constant, steps_per_epoch=4, epochs=3) is None
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == pytest.approx([1 - n / 8 for n in range(8)])
