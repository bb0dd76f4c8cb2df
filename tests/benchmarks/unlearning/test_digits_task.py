"""The tasks of a comparison, and the table of methods."""

import json
import sys
from functools import partial

import numpy as np
import pytest

import mtopt
from benchmarks.unlearning.digits import CONTESTANTS, TASKS, __main__, suite
from benchmarks.unlearning.digits.comparison import (
    METHODS,
    TUNING_SEEDS,
    Method,
    Row,
    compare_methods,
    judge,
    tugs_of_war,
    tune,
)
from benchmarks.unlearning.digits.ensemble import Ensemble, reference
from benchmarks.unlearning.digits.klom import klom, margins
from benchmarks.unlearning.digits.methods import fine_tune
from benchmarks.unlearning.digits.metrics import accuracies, means, tug_of_war
from benchmarks.unlearning.digits.settings import ClassForgetting, Confusion
from benchmarks.unlearning.digits.task import FORGET_GAP, REFERENCE_SEEDS, UTILITY_GAP, DigitUnlearning
from mtopt.experiments import Budget, Suite
from tests.benchmarks.unlearning.digits_models import CLASS, CONFUSION, SMALL, original, retrained


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("digits")


@pytest.fixture
def task(cache):
    budget = Budget(steps=16, trials=1, seeds=1)
    return DigitUnlearning(CLASS, training=SMALL, cache_dir=cache, budget=budget, quick_budget=budget)


def start(task, rule="linear", seed=0, **options):
    combiner = mtopt.create_combiner(rule)
    return task.trainer(combiner, learning_rate=1e-3, seed=seed, point=0, points=1, **options)


def test_the_suite_has_both_settings_and_all_baselines():
    assert [task.name for task in TASKS] == ["class-3", "confusion-3-8"]
    known = {contestant.name for contestant in CONTESTANTS} | set(mtopt.list_combiners())
    assert set(suite.combiners) <= known
    assert {"fine-tuning", "NegGrad+", "random labels", "SalUn", "SCRUB", "MUNBa", "ngdiff"} <= set(suite.combiners)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_score_of_a_run_is_its_tug_of_war(task, cache, split):
    trainer = start(task)
    trainer.fit(task.data("train", seed=0), steps=3)
    values = task.values(trainer, split, seed=0)
    wanted = means(
        accuracies(reference(CLASS, "retrained", REFERENCE_SEEDS, training=SMALL, cache_dir=cache), CLASS, split)
    )
    found = means(accuracies(Ensemble([trainer.model]), CLASS, split))
    assert values[FORGET_GAP] == pytest.approx(abs(found["forget"] - wanted["forget"]))
    score = float(mtopt.pareto.hypervolume(np.array([[values[FORGET_GAP], values[UTILITY_GAP]]]), [1.0, 1.0]))
    assert score == pytest.approx(tug_of_war(found, wanted))
    assert values["accuracy, test"] == pytest.approx(found["test"])


def test_landmarks_are_the_model_before_and_the_retrained_ones(task, cache):
    landmarks = task.landmarks(start(task, seed=1))
    assert landmarks["retrained"][FORGET_GAP] == landmarks["retrained"][UTILITY_GAP] == 0.0
    before = reference(CLASS, "original", [1], training=SMALL, cache_dir=cache)
    assert landmarks["before unlearning"]["accuracy, forget"] == means(accuracies(before, CLASS))["forget"]
    assert landmarks["before unlearning"][FORGET_GAP] > 0.5


def test_seeds_decide_the_model_and_the_batches(task):
    def weight(seed, rule="linear"):
        return start(task, rule, seed).model[0].weight

    assert (weight(0) == weight(0, "mgda")).all()
    assert (weight(0) != weight(1)).any()
    batches = [next(iter(task.data("train", seed=seed)))["retain"]["labels"] for seed in (0, 0, 1)]
    assert (batches[0] == batches[1]).all()
    assert (batches[0] != batches[2]).any()


def test_what_is_trained_before_is_part_of_the_fingerprint(cache):
    tasks = (
        DigitUnlearning(CLASS),
        DigitUnlearning(ClassForgetting(4)),
        DigitUnlearning(CONFUSION),
        DigitUnlearning(CLASS, training=SMALL),
    )
    assert len({task.fingerprint() for task in tasks}) == 4
    moved = DigitUnlearning(ClassForgetting(3), cache_dir=cache)
    assert moved.fingerprint() == tasks[0].fingerprint()


def test_the_fingerprint_stays_when_the_task_is_used(task):
    before = task.fingerprint()
    task.landmarks(start(task))
    assert task.fingerprint() == before


def test_an_unknown_method_is_named(task):
    with pytest.raises(ValueError, match="method must be 'losses', 'salun' or 'scrub', found 'other'"):
        start(task, method="other")


def test_mtopt_compare_runs_the_baselines_beside_rules(task, tmp_path):
    entered = ["NegGrad+", "SalUn", "SCRUB", "MUNBa", "ngdiff", "random_labels:nash_mtl"]
    small = Suite("small", (task,), combiners=tuple(entered), contestants=CONTESTANTS)
    comparison = mtopt.compare(small, out=tmp_path, quick=True, jobs=1, progress=False)
    rows = {row["combiner"]: row for row in comparison.rows()}
    assert set(rows) == {"linear", *entered}
    for row in rows.values():
        assert 0 < row["score"] <= 1


def test_every_method_tries_as_much():
    for name, method in METHODS.items():
        configurations = method.configurations()
        assert len(configurations) == 12, name
        assert len({json.dumps(each) for each in configurations}) == 12
    alone = Method(fine_tune).configurations(1)
    assert alone == [{"learning_rate": pytest.approx(3**0.5 * 1e-3, rel=1e-2)}]


def test_tuning_takes_the_best_on_the_validation_images():
    method = Method(fine_tune)
    before, wanted = original()[:3], means(accuracies(retrained(), CLASS, "validation"))
    scores = {}
    for configuration in method.configurations(3):
        after = fine_tune(before, CLASS, seeds=TUNING_SEEDS, **configuration)
        scores[configuration["learning_rate"]] = np.mean(tugs_of_war(after, CLASS, wanted, "validation"))
    found = tune(method, CLASS, before, retrained(), 3)
    assert found == {"learning_rate": max(scores, key=scores.get)}
    assert len(set(scores.values())) == 3


def test_a_row_has_the_figures_of_every_model():
    models = original()[:4]
    row = judge("original", models, CLASS, retrained(), {"learning_rate": 1.0})
    assert row.values["forget"] == accuracies(models, CLASS)["forget"].tolist()
    assert row.values["ToW"] == tugs_of_war(models, CLASS, means(accuracies(retrained(), CLASS)), "test")
    wanted = klom(margins(models, CLASS.forget), margins(retrained(), CLASS.forget)).mean()
    assert row.divergences["KLoM, forget"] == pytest.approx(wanted)


def test_comparing_methods(cache):
    rows = compare_methods(
        Confusion(), members=2, trials=1, chosen=["fine-tuning", "MGDA"], training=SMALL, cache_dir=cache
    )
    assert [row.method for row in rows] == ["original", "retrained", "fine-tuning", "MGDA"]
    for row in rows:
        assert all(len(values) == 2 for values in row.values.values())
        assert all(np.isfinite(value) for value in row.divergences.values())
    assert rows[2].configuration == METHODS["fine-tuning"].configurations(1)[0]
    with pytest.raises(ValueError, match=r"unknown methods \['SISA'\]; known names: fine-tuning"):
        compare_methods(CLASS, chosen=["SISA"])


def test_the_command_prints_tables_and_draws(cache, tmp_path, monkeypatch, capsys):
    arguments = ["--members", "2", "--trials", "1", "--methods", "fine-tuning", "SalUn", "--jobs", "1"]
    log = tmp_path / "log.json"
    monkeypatch.setattr(
        sys, "argv", ["digits", *arguments, "--out", str(tmp_path), "--cache", str(cache), "--log", str(log)]
    )
    monkeypatch.setattr(__main__, "compare_methods", partial(compare_methods, training=SMALL))
    __main__.main()
    printed = capsys.readouterr().out
    assert "Digits: forget the class 3, 2 models" in printed
    assert "Digits: forget swapped labels of 3 and 8, 2 models" in printed
    kept = json.loads(log.read_text())
    for rows in kept.values():
        assert [row["method"] for row in rows] == ["original", "retrained", "fine-tuning", "SalUn"]
        shown = f"{np.mean(rows[2]['values']['ToW']):.3f} ± {np.std(rows[2]['values']['ToW']):.3f}"
        assert shown in printed
    assert (tmp_path / "class_unlearning.png").stat().st_size > 10_000


def test_the_figure_shows_every_model_and_nothing_beyond_the_percentages_there_are(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(__main__, "save", lambda found, path, formats: drawn.append(found) or [path])
    accuracies = {"original": [1.0, 1.0, 1.0], "retrained": [0.0, 0.0, 0.0], "two camps": [0.0, 0.0, 1.0]}
    rows = [
        Row(
            name,
            {"forget": found, "test": [0.9] * 3, "ToW": found},
            {"KLoM, forget": 2.0, "KLoM, retain": 1.0},
            {},
            0.0,
        )
        for name, found in accuracies.items()
    ]
    __main__.draw({CLASS: rows}, tmp_path)
    panel = drawn[0].axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["retrained", "original", "two camps"]
    marks = [line.get_xydata().tolist() for line in panel.lines[1:]]
    assert [[0.0, 2.0], [0.0, 2.0], [100.0, 2.0]] in marks
    assert [[pytest.approx(100 / 3), 2.0]] in marks
    assert all(0.0 <= x <= 100.0 for points in marks for x, _ in points)
