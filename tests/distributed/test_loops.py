"""The loops of other libraries on two ranks do what they do in one process, and their examples run under torchrun."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.judging import SECONDS
from tests.distributed.launched import ROOT, launch
from tests.distributed.loops import run_accelerate, run_fabric, run_lightning, run_loaded, run_transformers
from tests.distributed.spawned import Raised, run_on_ranks

pytestmark = [  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
]

LOOPS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "accelerate": (run_accelerate, ("moco", 2)),
    "transformers": (run_transformers, ("famo", 2)),
    "lightning": (run_lightning, ("famo", 1)),
    "lightning accumulated": (run_lightning, ("ngdiff", 2)),
    "fabric": (run_fabric, ("pcgrad", 2)),
    "accelerate sharded": (run_accelerate, ("moco", 2)),
    "transformers sharded": (run_transformers, ("famo", 2)),
    "transformers loaded": (run_loaded, ("ngdiff",)),
    "lightning sharded": (run_lightning, ("famo", 1)),
    "lightning sharded and accumulated": (run_lightning, ("ngdiff", 2)),
    "fabric sharded": (run_fabric, ("pcgrad", 2)),
}


def needed(name: str) -> None:
    package = name.split()[0]
    pytest.importorskip("lightning" if package == "fabric" else package)


def arguments_of(name: str, folder: Path) -> tuple[Any, ...]:
    folders = () if name.split()[0] in ("accelerate", "fabric") else (folder / name,)
    wraps = ("fsdp",) if "sharded" in name else ()
    return (*LOOPS[name][1], *folders, *wraps)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    for name in LOOPS:
        needed(name)
    folder = tmp_path_factory.mktemp("loops")
    cases: dict[str, Any] = {name: (LOOPS[name][0], arguments_of(name, folder)) for name in LOOPS}
    cases["broken"] = run_transformers, ("mgda", 1, folder / "broken", "ddp", True)
    return run_on_ranks(2, folder, cases)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_that_of_one_process(name: str, found: dict[str, list[Any]], tmp_path: Path) -> None:
    truth = LOOPS[name][0](*arguments_of(name, tmp_path))
    first, second = found[name]
    assert not isinstance(first, Raised), first
    assert torch.equal(first["end"], second["end"])
    torch.testing.assert_close(first["end"], truth["end"], rtol=0.0, atol=1e-12)
    assert len(first["losses"]) == len(truth["losses"]) > 2
    for mine, one in zip(first["losses"], truth["losses"], strict=True):
        # transformers logs float32 numbers, of sums in which large ones cancel
        assert mine == pytest.approx(one, rel=1e-11, abs=1e-6 if "transformers" in name else 1e-12)
    if "values" in truth:  # each of the examples once, though ranks take equally many
        names = [n for n in truth["values"] if n != "eval_loss"]
        assert [first["values"][n] for n in names] == pytest.approx([truth["values"][n] for n in names], rel=1e-11)
        assert first["values"] == pytest.approx(truth["values"], rel=1e-6)


def test_what_one_rank_raises_in_its_losses_is_raised_on_all(found: dict[str, list[Any]]) -> None:
    first, second = found["broken"]
    assert (first.kind, second.kind) == ("RankError", "Broken")
    assert "rank 1 raised Broken: out of luck" in first.text
    assert max(first.seconds, second.seconds) < SECONDS


def run_example(name: str, ranks: int, folder: Path, *options: str) -> str:
    """What it prints."""
    return launch(ROOT / "docs" / "examples" / f"{name}.py", ranks, *options, TMPDIR=str(folder))[0]


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_a_llama_is_trained_by_one_script_on_one_process_and_on_two(tmp_path: Path) -> None:
    needed("transformers")
    alone = numbers_in(run_example("llama_on_ranks", 1, tmp_path, "--shard"))
    retain_before, retain_after, forget_before, forget_after, rate = alone
    assert retain_after < 0.5 * retain_before
    assert forget_after > 1.5 * forget_before
    assert rate > 1e-3
    for options in ((), ("--shard",)):
        together = numbers_in(run_example("llama_on_ranks", 2, tmp_path, *options))
        assert together[::2][:2] == pytest.approx([retain_before, forget_before], rel=1e-5)  # after one epoch
        assert together == pytest.approx(alone, rel=0.05)  # a rate of differences of losses spreads their rounding


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--shard",)], ids=["replicas", "shards"])
@pytest.mark.parametrize("name", ["accelerate_two_tasks", "lightning_two_tasks", "transformers_unlearning"])
def test_an_example_runs_under_torchrun(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    needed(name.split("_")[0])
    alone, together = (run_example(name, ranks, tmp_path, *options) for ranks in (1, 2))
    assert together
    if name != "lightning_two_tasks":  # which shuffles otherwise on several ranks
        kept = [line for line in together.splitlines() if "runtime" not in line]
        assert numbers_in("\n".join(kept)) == pytest.approx(
            numbers_in("\n".join(line for line in alone.splitlines() if "runtime" not in line)), rel=1e-3
        )
