"""The cost model of steps on several ranks counts the bytes that gloo is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.ranks import Model, held, main, sent
from tests.distributed.costs import run_step
from tests.distributed.spawned import Raised, run_on_ranks
from tests.distributed.trainings import Net

STEPS = {
    "plain": ("plain", "dwa"),
    "loss rule": ("plain", "dwa"),
    "rows": ("rows", "mgda"),
    "rows, freed": ("rows, freed", "mgda"),
    "rows, kept": ("rows, kept", "mgda"),
    "callables": ("callables", "mgda"),
}
"""By name how the model calls a step, and the rule."""

CASES = [(name, wrap) for name in ("plain", "loss rule", "rows") for wrap in ("ddp", "fsdp")]
CASES += [("rows, freed", "freed"), ("rows, freed", "parts_freed"), ("rows, kept", "kept"), ("callables", "fsdp")]
CASES += [("plain", "freed"), ("callables", "freed")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("costs")
    cases: dict[str, Any] = {}
    for name, wrap in CASES:
        way = "plain" if name == "plain" else "callables" if name == "callables" else "rows"
        cases[f"{name} {wrap}"] = run_step, (way, STEPS[name][1], wrap)
    return run_on_ranks(2, folder, cases)


@pytest.mark.parametrize(("name", "wrap"), CASES)
def test_the_model_counts_the_bytes_that_travel(name: str, wrap: str, found: dict[str, list[Any]]) -> None:
    net = Net()
    (part,) = net.parts()
    numbers = sum(param.numel() for param in net.parameters())  # all of which two ranks can halve
    own = sum(param.numel() for param in part.parameters())
    root = 0 if wrap == "freed" else numbers - own
    model = Model(numbers, 1, root=root, gathered=8, reduced=8)  # in float64
    expected = sent(model, 2, STEPS[name][0], wrap != "ddp")
    for each in found[f"{name} {wrap}"]:
        assert not isinstance(each, Raised), each
        assert each.get("_allgather_base_", 0) == expected.gathered
        assert each.get("_reduce_scatter_base_", 0) == expected.scattered
        assert each.get("allreduce_", 0) == expected.reduced


def test_a_sharded_step_holds_its_part_and_what_is_gathered() -> None:
    model = Model(1e9, 10)
    of_shards = [held(model, 2, "callables", ranks, True) for ranks in (1, 2, 4)]
    gathered = 2 * of_shards[1] - of_shards[0]
    assert gathered == pytest.approx(2 * 2e8)  # two layers of ten, in two bytes
    assert of_shards[2] == pytest.approx((of_shards[0] - gathered) / 4 + gathered)
    assert held(model, 2, "rows", 4, True) - of_shards[2] == pytest.approx(2e9 - gathered)
    assert held(model, 2, "rows, freed", 4, True) == of_shards[2]
    assert held(model, 2, "rows, kept", 4, True) == held(model, 2, "rows", 4, True)
    assert held(model, 3, "rows", 4, False) - held(model, 2, "rows", 4, False) == pytest.approx(4e9)  # a row


def test_the_page_has_the_plan_that_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "many_gpus.md").read_text()
    assert main(["--ranks", "8", "32", "128", "512"]) == 0
    assert capsys.readouterr().out.strip() in page
