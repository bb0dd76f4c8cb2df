"""The study of starting rates: its grid, rows that outlive a kill, and what is read off them."""

import dataclasses
import json
import math
from itertools import pairwise

import pytest
import torch

import mtopt
from benchmarks.unlearning.corpus import CorpusConfig
from benchmarks.unlearning.models import FitConfig, ModelConfig, ReferenceConfig
from benchmarks.unlearning.starting_rates import figure, grid, worlds
from benchmarks.unlearning.starting_rates.__main__ import main
from benchmarks.unlearning.starting_rates.grid import RATES, Grid, Rows, finished, run_missing
from benchmarks.unlearning.starting_rates.results import arms_of, claim, standings
from benchmarks.unlearning.starting_rates.training import Case, Row, unlearn

TINY = ReferenceConfig(
    corpus=CorpusConfig(authors=10, questions=4, background_authors=4, countries=3),
    model=ModelConfig(hidden=32, layers=1, heads=2, vocabulary=400),
    pretraining=FitConfig(epochs=4, learning_rate=1e-2),
    finetuning=FitConfig(epochs=8, learning_rate=1e-2, replay=20),
)


def row_of(method="NGDiff", rate=1e-3, seed=0, *, world="memorised", optimizer="sgd", **figures):
    known = {"end": 0.5, "known": 0.01, "equal": 0.6, "equal_step": 4, "last_rate": rate, "wanted": 0.02}
    return Row(Case(world, optimizer, method, rate, seed), **{**known, "untouched": 0.7, "cpu_seconds": 1.0, **figures})


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Worlds of a second, and each model trained once for all tests."""
    monkeypatch.setattr(worlds, "config_of", lambda world, seed: dataclasses.replace(TINY, seed=seed))
    worlds.open_start.cache_clear()
    yield tmp_path / "models"
    worlds.open_start.cache_clear()


def test_rates_are_eight_over_four_decades_and_seeds_come_one_after_another():
    for rates in RATES.values():
        assert len(rates) == 8
        assert rates[-1] / rates[0] == pytest.approx(1e4)
        steps = [math.log10(after / before) for before, after in pairwise(rates)]
        assert steps == pytest.approx([4 / 7] * 7, abs=0.02)  # two digits of each are kept
    cases = list(Grid(("NGDiff", "NPO"), seeds=2).cases())
    assert len(cases) == len(set(cases)) == 2 * 8 * 2 * 2 * 2
    assert [case.seed for case in cases] == sorted(case.seed for case in cases)


def test_rows_come_back_as_they_were_and_only_whole_seeds_count(tmp_path):
    rows = Rows(tmp_path, 40)
    small = Grid(("NGDiff",), seeds=2)
    cases = list(small.cases())
    written = [row_of(c.method, c.rate, c.seed, world=c.world, optimizer=c.optimizer, equal=None) for c in cases]
    for row in written[:-1]:
        rows.write(row)
    found, complete = finished(small, Rows(tmp_path, 40))
    assert complete == [0]
    assert found == written[: len(cases) // 2]
    assert rows.read(cases[-1]) is None
    with pytest.raises(ValueError, match="runs of 40 steps, and 20"):
        Rows(tmp_path, 20)
    path = rows._path(cases[0])
    path.write_text(json.dumps({"case": {}}))
    with pytest.raises(ValueError, match="delete it"):
        rows.read(cases[0])


def test_what_never_forgets_counts_nothing():
    rows = [
        *(row_of("NGDiff", 10.0**-k, equal=0.6 if k < 3 else None, known=0.01 if k < 5 else 0.9) for k in range(8)),
        *(row_of("NGDiff+GeN", 10.0**-k, equal=0.1 * k, end=0.0, known=None) for k in range(8)),
    ]
    by_name = {standing.method: standing for standing in standings(rows)}
    ngdiff, automatic = by_name["NGDiff"], by_name["NGDiff+GeN"]
    assert (ngdiff.equal.median, ngdiff.equal.worst, ngdiff.equal.best) == (0.0, 0.0, 0.6)
    assert (ngdiff.end.median, ngdiff.end.worst, ngdiff.end.best) == (0.5, 0.0, 0.5)
    assert (ngdiff.rates, ngdiff.works, ngdiff.lasts) == (3, 0, 0)  # 0.6 and 0.5 are less than 90 % of 0.7
    assert automatic.works == 1  # 0.7 alone
    assert automatic.equal.median == pytest.approx(0.35)  # of 0, 0.1, ..., 0.7
    assert automatic.end.best == 0.0
    words = claim(rows)
    assert "at equal forgetting NGDiff+GeN has the highest median (0.350), NGDiff+GeN 0.350, place 1" in words
    assert "at the end NGDiff has the highest median (0.500), NGDiff+GeN 0.000, place 2" in words
    assert "in 1 of 1 arms at equal forgetting, and in 0 of 1 at the end" in words


def test_medians_are_taken_over_the_rates_of_a_seed_and_then_the_mean():
    rows = [
        row_of("NGDiff", rate, seed, equal=(0.2, 0.4, 0.6)[rate] + 0.1 * seed) for rate in range(3) for seed in (0, 1)
    ]
    (standing,) = standings(rows)
    assert standing.equal.median == pytest.approx(0.45)
    assert standing.equal.worst == pytest.approx(0.25)
    assert [arm for arm, _ in arms_of(rows)] == [("memorised", "sgd")]


def test_a_run_forgets_stops_looking_there_and_is_judged_at_both_ends(tiny):
    rate = 0.3
    row = unlearn(Case("memorised", "sgd", "NGDiff", rate, 0), steps=24, cache_dir=tiny)
    start = worlds.open_start("memorised", 0, tiny)
    assert row.untouched == start.utility(start.world.prepared.target) > 0
    # TOFU's own figure of the retrained model
    assert row.wanted == pytest.approx(start.world.evaluations["retain"].summary["forget_probability"], rel=1e-5)
    assert row.last_rate == rate
    assert row.forgotten == (row.known is None or row.known <= row.wanted)
    assert row.equal is not None
    assert row.equal_step % 4 == 0
    still = unlearn(Case("memorised", "sgd", "NGDiff", 1e-7, 0), steps=4, cache_dir=tiny)
    assert still.equal is None
    assert still.end == pytest.approx(still.untouched, abs=1e-3)
    assert not still.forgotten


def test_a_model_that_diverged_has_no_utility(tiny):
    start = worlds.open_start("memorised", 0, tiny)
    model = start.world.prepared.base
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    assert math.isnan(start.probability(model))
    assert start.utility(model) == 0.0
    with pytest.raises(mtopt.NonFiniteError, match="have diverged"):
        start.world.evaluate(model)


def test_the_command_goes_on_where_it_was_and_reports(tiny, tmp_path, monkeypatch, capsys):
    ran = []

    def counted(case, **options):
        ran.append(case)
        return row_of(case.method, case.rate, case.seed, world=case.world, optimizer=case.optimizer)

    monkeypatch.setattr(grid, "unlearn", counted)
    out = tmp_path / "out"
    small = Grid(("NGDiff", "NGDiff+GeN"), seeds=1)
    rows = Rows(out, small.steps)
    for case in list(small.cases())[:60]:
        rows.write(row_of(case.method, case.rate, case.seed, world=case.world, optimizer=case.optimizer))
    run_missing(small, rows, cache_dir=tiny)
    assert ran == list(small.cases())[60:]
    flags = ["--out", str(out), "--methods", *small.methods, "--seeds", "1", "--report-only"]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 seeds are complete: 0" in printed
    assert printed.count("| NGDiff+GeN |") == 4
    assert (out / "starting_rates.png").stat().st_size > 0
    assert main(["--out", str(tmp_path / "empty"), "--quick", "--report-only"]) == 1


def test_the_figure_has_constant_rates_in_grey_and_fills_what_most_seeds_forget(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure, "save", lambda found, path, formats: drawn.append(found) or [path])
    methods = {"NGDiff": None, "NGDiff+GeN": 0.5, "NGDiff+GeN(smoothed)": 0.6}
    rows = [
        row_of(method, rate, seed, equal=equal if seed < 2 else None)
        for method, equal in methods.items()
        for rate in (1e-3, 1e-2)
        for seed in range(3)
    ]
    figure.draw(rows, tmp_path)
    above = drawn[0].axes[0]
    lines = [line for line in above.lines if len(line.get_xdata()) == 2]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([0.0, 1.0 / 3, 0.4])
    assert lines[0].get_color() == figure.CONSTANT
    assert len({line.get_color() for line in lines}) == 3
    marks = [line.get_markerfacecolor() for line in above.lines if len(line.get_xdata()) == 1]
    assert marks == ["white"] * 2 + [lines[1].get_color()] * 2 + [lines[2].get_color()] * 2
