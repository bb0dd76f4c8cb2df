"""Timing of the weights: the arithmetic of the table, the errors beside the speeds, and the program end to end."""

import json
import math

import numpy as np
import pytest
import torch

import mtopt
from benchmarks.speed import _errors, _pairs, weights
from benchmarks.speed._report import Cell, Measured, duration, error_text, geometric_mean, print_tables, write_markdown
from benchmarks.speed._timing import Side, drifting_gradients, interleave

SETTINGS = {"versions": {"mtopt": "1", "torchjd": "2"}}


def cell(rule="mgda", count=2, own=(1e-3,), peer=(4e-3,), own_errors=(), peer_errors=()):
    other = None if peer is None else Measured(list(peer), list(peer_errors))
    return Cell(rule, rule.upper(), count, "a distance", Measured(list(own), list(own_errors)), other)


def test_a_ratio_is_of_medians_and_the_mean_of_ratios_geometric():
    first = cell(own=(1e-3, 2e-3, 90.0), peer=(1e-3, 8e-3, 9e-3))
    assert first.ratio == pytest.approx(4.0)
    others = [cell(own=(1.0,), peer=(0.5,)), cell(own=(1.0,), peer=None)]
    assert geometric_mean([first, *others]) == pytest.approx(math.sqrt(4.0 * 0.5))
    assert geometric_mean([others[1]]) is None


def test_an_error_is_the_worst_and_not_hidden_by_nan():
    assert Measured([1.0], [1e-3, 2.0, 0.5]).error == 2.0
    assert math.isnan(Measured([1.0], [1e-3, math.nan, 0.5]).error)
    assert Measured([1.0]).error is None


def test_the_tables_show_times_ratios_errors_and_means(tmp_path):
    cells = [
        cell("mgda", 2, (20e-6,), (60e-6,), (3e-16,), (0.25,)),
        cell("mgda", 8, (1e-3,), (12e-3,), (2e-14,), (17.0,)),
        cell("krum", 8, (2e-3,), (6e-3,)),
        cell("krum", 2, (2.0,), None),
    ]
    with (tmp_path / "table").open("w+") as file:
        print_tables(cells, SETTINGS, file)
        file.seek(0)
        rows = [[part.strip() for part in line.split("│")[1:-1]] for line in file if "│" in line]
    assert ["MGDA", "2", "20 µs", "60 µs", "3.0", "<1e-15", "0.25"] in rows
    assert ["", "8", "1.0 ms", "12 ms", "12", "2e-14", "17"] in rows
    assert ["", "2", "2.0 s", "-", "-", "-", "-"] in rows
    assert ["MGDA", "3.0", "12", "6.0"] in rows
    assert ["KRUM", "-", "3.0", "3.0"] in rows
    assert ["geometric mean", "3.0", "6.0", f"{(3 * 12 * 3) ** (1 / 3):.1f}"] in rows


def test_the_markdown_table_has_ratios_times_and_means(tmp_path):
    cells = [
        cell("mgda", 2, (20e-6,), (60e-6,)),
        cell("mgda", 8, (1e-3,), (12e-3,)),
        cell("krum", 8, (2e-3,), (6e-3,)),
        cell("krum", 2, (2.0,), None),
    ]
    write_markdown(tmp_path / "table.md", cells)
    assert (tmp_path / "table.md").read_text().splitlines() == [
        "| rule | K = 2 | K = 8 | geometric mean |",
        "|---|--:|--:|--:|",
        "| MGDA | 3.0 (20 µs) | 12 (1.0 ms) | 6.0 |",
        "| KRUM | 2.0 s | 3.0 (2.0 ms) | 3.0 |",
        "| **geometric mean** | 3.0 | 6.0 | **4.8** |",
    ]
    write_markdown(tmp_path / "alone.md", [cell("mgda", 2, (20e-6,), None)])
    assert (tmp_path / "alone.md").read_text().splitlines()[2] == "| MGDA | 20 µs |"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.24e-5, "12 µs"), (9.996e-4, "1.0 ms"), (3.44e-3, "3.4 ms"), (2.06, "2.1 s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("error", "text"), [(None, "-"), (0.0, "<1e-15"), (3.2e-14, "3e-14"), (0.026, "0.026")])
def test_error_texts(error, text):
    assert error_text(error) == text


def gramian(*rows):
    jacobian = np.array(rows, dtype=float)
    return jacobian @ jacobian.T


RIGHT_ANGLE = gramian((3.0, 0.0), (0.0, 4.0))
CONFLICT = gramian((1.0, 0.0), (-1.0, 1.0))


def test_the_projections_of_two_conflicting_gradients():
    # P(g_1) = (1, 1) / 2 and P(g_2) = (0, 1): coefficients (1, 1/2) and (1, 1)
    assert _errors.upgrad([CONFLICT], np.array([1.0, 0.75])) < 1e-14
    assert _errors.upgrad([CONFLICT], np.array([1.0, 1.0])) == pytest.approx(math.sqrt(0.125 / 0.625))
    # their mean (0, 1/2) conflicts with neither
    assert _errors.dualproj([CONFLICT], np.array([0.5, 0.5])) < 1e-14
    assert _errors.dualproj([CONFLICT], np.array([1.0, 1.0])) == pytest.approx(1.0)


def test_excess_length_over_the_hull():
    # the foot of the perpendicular from the origin: 12 / 5 away
    assert abs(_errors.mgda([RIGHT_ANGLE], np.array([16.0, 9.0]) / 25.0)) < 1e-14
    assert _errors.mgda([RIGHT_ANGLE], np.array([1.0, 0.0])) == pytest.approx(3.0 / 2.4 - 1.0)


def test_the_gap_of_cagrad():
    equal = gramian((1.0, 0.0), (0.0, 1.0))
    # the mean is as good as it gets in direction: (1 + c) times as long
    assert _errors.cagrad([equal], np.array([0.7, 0.7]), 0.4) < 1e-14
    assert _errors.cagrad([equal], np.array([0.75, 0.75]), 0.4) > 0.05  # outside the ball
    # w = (1, 0): the dual gives 1/2 + 0.4 / sqrt(2), the worst loss gets 1/2
    lopsided = np.array([0.5 + 0.4 * math.sqrt(0.5), 0.5])
    assert _errors.cagrad([equal], lopsided, 0.4) == pytest.approx(0.4)


def test_the_balance_of_the_bargaining_rules():
    assert _errors.nash_mtl([RIGHT_ANGLE], np.array([2.0 / 3.0, 2.0 / 4.0])) < 1e-14  # any length
    assert _errors.nash_mtl([RIGHT_ANGLE], np.array([1.0, 1.0])) == pytest.approx(16.0 / 12.5 - 1.0)
    exact = np.array([9.0, 16.0]) ** (-2.0 / 3.0)  # G w = w^(-1/2)
    assert _errors.fairgrad([RIGHT_ANGLE], exact, 2.0) < 1e-14
    assert _errors.fairgrad([RIGHT_ANGLE], 4.0 * exact, 2.0) == pytest.approx(7.0)


def test_equal_projections():
    assert _errors.unequal_projections([RIGHT_ANGLE], np.array([1.0 / 3.0, 1.0 / 4.0])) < 1e-14
    assert _errors.unequal_projections([RIGHT_ANGLE], np.array([1.0, 1.0])) == pytest.approx(1.0 / 7.0)


def test_one_singular_value_for_all():
    # 3 V diag(1/3, 1/4) V' with p = 1/2
    assert _errors.aligned_mtl([RIGHT_ANGLE], np.array([0.5, 0.375])) < 1e-14


def test_the_one_in_the_middle_of_the_crowd():
    matrix = gramian((1.0, 0.1, 0.0, 0.0), (2.0, 0.0, 0.1, 0.0), (3.0, 0.0, 0.0, 0.1), (10.0, 0.0, 0.0, 0.0))
    distances = [_errors.krum([matrix], unit) for unit in np.eye(4)]
    assert distances[1] < 1e-14
    assert distances[0] == pytest.approx(0.5, abs=0.01)  # one away, of a length of two
    assert distances[3] == pytest.approx(4.0, abs=0.01)


def test_priority_of_the_first():
    # without a conflict, and enough for the second, it is the first gradient
    assert _errors.pcd([gramian((1.0, 0.0), (1.0, 1.0))], np.array([1.0, 0.0])) < 1e-14


@pytest.mark.parametrize("pair", [pair for pair in _pairs.PAIRS if pair.measure], ids=lambda pair: pair.name)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_mtopt_is_exact_and_a_wrong_answer_is_not(pair, count):
    matrices = [(factor @ factor.T) for factor in drifting_gradients(count, 3)]
    own = pair.own(count)
    for place, matrix in enumerate(matrices):
        answer = own(matrix).numpy()
        history = [m.numpy() for m in matrices[: place + 1]]
        assert pair.measure(history, answer) < 1e-10
        assert pair.measure(history, answer + np.eye(count)[0]) > 1e-3


def test_gradients_conflict_and_drift():
    factors = drifting_gradients(8, 3)
    first, second, _ = (factor @ factor.T for factor in factors)
    assert bool((first < 0).any())
    assert bool(torch.linalg.matrix_norm(second - first) > 0.05 * torch.linalg.matrix_norm(first))
    assert all(torch.equal(a, b) for a, b in zip(factors, drifting_gradients(8, 3), strict=True))


def made_side(cost, calls, name):
    """A side whose calls take ``cost`` seconds of a made-up clock."""
    now = [0.0]

    def call(given):
        calls.append(name)
        now[0] += cost
        return given

    return Side(call, [torch.tensor(float(i)) for i in range(5)], clock=lambda: now[0])


def test_sides_take_turns_and_get_the_same_inputs():
    calls = []
    sides = [made_side(1e-3, calls, "a"), made_side(4e-3, calls, "b")]
    interleave(sides, rounds=4, seconds=60.0, sample=2e-3)
    assert [side.median for side in sides] == pytest.approx([1e-3, 4e-3])
    assert [len(side.seconds) for side in sides] == [4, 4]
    assert "".join(calls) == "aabb" + "baa" + "aab" + "baa" + "aab"
    for side in sides:
        assert [float(answer) for answer in side.answers] == [0.0, 1.0, 2.0, 3.0]


def test_a_cell_stops_when_its_time_is_up():
    sides = [made_side(1.0, [], "a")]
    interleave(sides, rounds=50, seconds=0.0)
    assert len(sides[0].seconds) == 3


def test_every_shared_rule_is_registered_once():
    names = [pair.name for pair in _pairs.PAIRS]
    assert len(set(names)) == len(names)
    assert set(names) <= set(mtopt.list_combiners())


def test_mtopt_alone_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "peer_module", lambda: None)
    rules = ["mgda", "pcgrad", "config", "krum", "cagrad"]
    assert weights.main(["--out", str(tmp_path), "--sizes", "2", "4", "--rounds", "2", "--rules", *rules]) == 0
    printed = capsys.readouterr()
    assert "torchjd" in printed.err
    assert "MGDA" in printed.out
    assert "ratio" not in printed.out
    stored = json.loads((tmp_path / "weights.json").read_text())
    assert [(c["rule"], c["count"]) for c in stored["cells"]] == [
        (pair.name, count) for pair in _pairs.PAIRS if pair.name in rules for count in (2, 4)
    ]
    assert all(c["peer"] is None and c["ratio"] is None and c["own_median"] > 0.0 for c in stored["cells"])
    assert stored["settings"]["versions"]["mtopt"] == mtopt.__version__
    assert "MGDA" in (tmp_path / "weights.md").read_text()
    assert (tmp_path / "weights.png").stat().st_size > 10_000
    assert "MGDA" in (tmp_path / "weights.svg").read_text()


class Stand:
    """Stands for ``torchjd.aggregation``: the exact direction for ConFIG, equal weights for MGDA and Krum."""

    def ConFIG(self):
        rule = mtopt.create_combiner("config")
        return lambda factor: factor.T @ rule.weights(factor @ factor.T)

    def MGDAWeighting(self):
        return lambda gramian: torch.full((len(gramian),), 1.0 / len(gramian), dtype=torch.float64)

    def KrumWeighting(self, *, n_byzantine):
        return self.MGDAWeighting()


def test_both_sides_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "peer_module", Stand)
    arguments = ["--out", str(tmp_path), "--sizes", "2", "4", "--rounds", "2", "--rules", "config", "mgda", "krum"]
    assert weights.main(arguments) == 0
    assert "geometric mean" in capsys.readouterr().out
    cells = {(c["rule"], c["count"]): c for c in json.loads((tmp_path / "weights.json").read_text())["cells"]}
    assert max(cells["config", 4]["peer"]["errors"]) < 1e-12
    assert max(cells["mgda", 4]["peer"]["errors"]) > 0.01
    assert max(cells["mgda", 4]["own"]["errors"]) < 1e-12
    assert cells["krum", 2]["peer"] is None  # TorchJD's takes three rows at least
    assert cells["mgda", 4]["ratio"] == pytest.approx(cells["mgda", 4]["peer_median"] / cells["mgda", 4]["own_median"])


@pytest.mark.parametrize("wrong", [["--sizes", "1"], ["--rounds", "0"], ["--rules", "linear"], ["--sizes", "two"]])
def test_wrong_use_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        weights.main(wrong)
    assert wrong[0] in capsys.readouterr().err
