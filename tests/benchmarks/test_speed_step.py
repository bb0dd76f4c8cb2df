"""Timing of whole steps: every side takes the same step, the arithmetic of the tables, and the program end to end."""

import json

import pytest
import torch

import mtopt
from benchmarks.speed import __main__ as program
from benchmarks.speed import _cost_model, _floor, _lines, _own
from benchmarks.speed._memory import MIB, Memory, peak_tensor_bytes
from benchmarks.speed._step_report import markdown
from benchmarks.speed._targets import TARGETS, jacobians, time_verdicts
from benchmarks.speed.models import build
from benchmarks.speed.step import Cell, Spread


def after(make, name="small", tasks=4):
    model = build(name, tasks).double()
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    make(model)()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before


@pytest.mark.parametrize("rule", ["mgda", "upgrad"])
def test_the_hand_written_step_is_the_same_as_every_plan(rule):
    weigh = mtopt.create_combiner(rule).weights
    expected = after(lambda model: _floor.hand_written(model, weigh))
    ways = {
        "loop": {},
        "batched": {"plan": "batched"},
        "recompute": {"store": "recompute"},
    }
    found = {way: after(lambda model, o=options: _own.named(model, rule, **o)) for way, options in ways.items()}
    found["features"] = after(lambda model: _own.features_first(model, rule))
    for moved in found.values():
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_the_steps_on_two_batches_are_the_same():
    other = torch.randn(64, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mine, by_hand = (after(lambda model, m=make: m(model, other)) for make in (_own.separate, _floor.separate))
    torch.testing.assert_close(mine, by_hand, rtol=0, atol=1e-9 * float(by_hand.abs().max()))


def test_a_plain_step_is_that_of_the_summed_losses():
    torch.testing.assert_close(after(_floor.plain), 4 * after(lambda model: _own.named(model, "linear")))


def cell(seconds, tasks=8, threads=1):
    return Cell("mlp", tasks, threads, 1000, cpu=seconds, wall={name: [9.0] for name in seconds})


def test_a_ratio_is_of_rounds_and_cpu_time_counts_on_one_thread():
    found = cell({"a": [2.0, 30.0, 6.0], "b": [1.0, 10.0, 2.0]})
    assert found.ratio("a", "b") == Spread(3.0, 2.5, 3.0)
    assert found.ratio("a", "c") is None
    assert cell({"a": [2.0], "b": [1.0]}, threads=2).ratio("a", "b").median == 1.0


def test_verdicts():
    seconds = {"mgda": [1.06], "hand-written, mgda": [1.0], "linear": [1.0], "plain sum": [1.0]}
    assert [(found.line, found.met) for found in time_verdicts([cell(seconds)])] == [("mgda", False), ("linear", True)]
    taken = jacobians(Memory(30.0, 20.0, 19.0), Memory(10.0, 10.0, 9.0), 2, int(MIB))
    assert taken == {"resident": 2.5, "returning": 1.25, "tensors": 1.25}


def test_the_cost_model_adds_up_its_parts():
    parts = {"plain sum": [10.0], "trunk backward": [6.0], "forward without a graph": [3.0], "rule: mgda": [2.0]}
    found = cell(parts)
    assert _cost_model.seconds("linear", found) == 10
    assert _cost_model.seconds("mgda, rows", found) == 10 + 7 * 6 + 2
    assert _cost_model.seconds("Every(mgda, 10)", found) == 10 + (7 * 6 + 2) / 10
    assert _cost_model.seconds("mgda, recompute", found) == 10 + 8 * (1 + 3 / 4) * 6 + 2
    assert _cost_model.seconds("nash_mtl, matrix-free exact", found) == 19
    assert _cost_model.seconds("backward, UPGrad", found) is None
    assert _cost_model.seconds("mgda, rows", cell({"plain sum": [10.0]})) is None
    assert _cost_model.mebibytes("mgda, rows", 8, 12.0, 10.0, 4.0) == 82
    assert _cost_model.mebibytes("mgda, rows", 8, 12.0, 10.0, 0.5) == 92
    assert _cost_model.mebibytes("mgda, recompute", 8, 12.0, 10.0, 4.0) == 2 + 32


def test_the_peak_counts_what_is_alive_together():
    def work():
        first = torch.ones(250_000)
        second = first + 1
        del first
        torch.ones(250_000)
        del second

    assert 2_000_000 <= peak_tensor_bytes(work) < 2_001_000


def test_what_an_earlier_measurement_left_does_not_count_when_it_is_freed():
    kept = []
    assert 1_000_000 <= peak_tensor_bytes(lambda: kept.append(torch.ones(250_000))) < 1_001_000

    def work():
        kept.clear()
        torch.ones(250_000)

    assert 1_000_000 <= peak_tensor_bytes(work) < 1_001_000


def test_lines_have_names_of_their_own():
    found = _lines.lines(2, peers=False)
    assert len({line.name for line in found}) == len(found)
    assert "ngdiff, two batches" not in {line.name for line in _lines.lines(4, peers=False)}


def test_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "weigh", lambda *_: {"plain sum": Memory(1, 1, 1), "mgda, rows": Memory(2, 2, 2)})
    arguments = ["--models", "small", "--ks", "2", "--threads", "1", "--rounds", "3", "--seconds", "0", "--no-peers"]
    assert program.main([*arguments, "--memory-ks", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "step.md").read_text() in printed
    stored = json.loads((tmp_path / "step.json").read_text())
    (times,) = stored["times"]
    assert set(times["cpu"]) == {line.name for line in _lines.lines(2, peers=False)}
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in times["cpu"].values())
    assert "two batches / concatenated batch" in printed
    assert (tmp_path / "step.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        program.main(["--ks", "1"])


def test_the_steps_that_targets_are_about_stand_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "weigh", lambda *_: pytest.fail("no memory is weighed"))
    arguments = ["--targets", "--models", "small", "--ks", "2", "--threads", "1", "--rounds", "3", "--seconds", "0"]
    assert program.main([*arguments, "--out", str(tmp_path)]) == 0
    (times,) = json.loads((tmp_path / "step.json").read_text())["times"]
    names = list(times["cpu"])
    assert names[:2] == ["hand-written, mgda", "mgda"]
    assert set(names) == {name for target in TARGETS for name in (target.line, target.base)}
    assert "Cost model" not in capsys.readouterr().out


def test_the_tables_of_memory():
    weighed = {("mlp", 8): {"plain sum": Memory(20, 15, 12), "mgda, rows": Memory(200, 100, 90)}}
    cells = [cell({"plain sum": [1.0], "mgda": [6.0]})]
    text = markdown(cells, weighed, _lines.lines(8, peers=False))
    assert "| mgda, rows | 200 / 100 / 90 |" in text
    assert "| mgda | 6.00 (6.00 to 6.00) |" in text
