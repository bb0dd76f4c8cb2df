"""The step on two ranks: what its wire is made of, and a table from a run."""

from __future__ import annotations

import pytest

from benchmarks.speed import step_on_ranks
from benchmarks.speed.step_on_ranks import LAYERS, WIDTH, Sample, line_of, wire_of

ONCE = LAYERS * WIDTH * (WIDTH + 1)
"""The numbers of a collective that is timed: all layers, without the heads."""

TIMES = {"reduced": Sample(1.0, 0.5), "gathered": Sample(2.0, 1.0), "scattered": Sample(4.0, 2.0)}


@pytest.mark.parametrize("objectives", [2, 8])
def test_the_wire_is_of_the_bytes_that_travel(objectives: int) -> None:
    heads = objectives * (WIDTH + 1)
    share = (ONCE + heads) / ONCE
    replicas = wire_of(TIMES, objectives, "DDP", "rows")
    assert replicas.wall == pytest.approx(objectives * share)  # every row is all-reduced
    assert replicas.cpu == pytest.approx(0.5 * objectives * share)
    assert wire_of(TIMES, objectives, "DDP", "plain").wall == pytest.approx(share)
    sharded = wire_of(TIMES, objectives, "FSDP2", "rows")  # the layers are gathered twice, the heads once
    assert sharded.wall == pytest.approx(2.0 * (share + 1.0) + 4.0 * objectives * share)


def test_ratios_are_those_of_a_round() -> None:
    rounds = [
        {**TIMES, "alone plain": Sample(1.0, 1.0), "DDP plain": Sample(3.0, 2.0)},
        {**TIMES, "alone plain": Sample(2.0, 1.0), "DDP plain": Sample(4.0, 2.0)},
        {**TIMES, "alone plain": Sample(2.0, 1.0), "DDP plain": Sample(4.0, 2.0)},
    ]
    assert line_of(rounds, 2, "DDP", "plain") == ["2", "plain", "DDP", "4000", "2000", "1000", "2.00", "1.33", "1.33"]


def test_a_run_prints_a_line_for_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    step_on_ranks.main(["--objectives", "2", "--rounds", "1"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[1:3] for row in rows[2:]] == [[way, e] for way in ("plain", "rows") for e in ("alone", "DDP", "FSDP2")]
    assert all(float(row[3]) > 0 and float(row[-1]) > 0 for row in rows[2:])
