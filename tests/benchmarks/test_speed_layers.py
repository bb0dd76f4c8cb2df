"""The steps that are timed by layers and by groups do the same work as those beside them, and the programs run."""

import pytest
import torch

from benchmarks.speed import groups, layers, layers_over_width
from benchmarks.speed._floor import hand_written, separate
from benchmarks.speed.models import MODELS, build
from mtopt import MGDA


def moved(model, step):
    before = [param.detach().clone() for param in model.parameters()]
    step()
    return torch.cat([(new.detach() - old).flatten() for new, old in zip(model.parameters(), before, strict=True)])


@pytest.mark.parametrize("plan", layers.PLANS)
def test_all_plans_take_the_step_written_by_hand(plan):
    case = layers.Case("mlp, batch 16", layers.mlp(16), 3)
    model, other = layers.built(case), layers.built(case)
    found, expected = moved(model, layers.step_of(model, plan)), moved(other, hand_written(other, MGDA().weights))
    assert float((found - expected).norm()) <= 1e-3 * float(expected.norm())


@pytest.mark.parametrize("name", MODELS)
def test_groups_take_the_step_of_two_batches(name):
    model, other = build(name, 1), build(name, 1)
    second = torch.randn(model.inputs.shape, generator=torch.Generator().manual_seed(1))
    found, expected = moved(model, groups.by_groups(model, second)), moved(other, separate(other, second))
    assert float((found - expected).norm()) <= 1e-3 * float(expected.norm())


def test_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(layers_over_width, "COUNTS", (2,))
    monkeypatch.setattr(layers_over_width, "SHARES", (1 / 32, 1 / 8))
    threads = torch.get_num_threads()
    try:
        assert layers.main(["--only", "batch 16", "--rounds", "3", "--seconds", "1"]) == 0
        assert groups.main(["--models", "small", "--rounds", "3", "--seconds", "1"]) == 0
        assert layers_over_width.main(["--out", str(tmp_path), "--rounds", "3", "--seconds", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    told = capsys.readouterr().out
    assert "| mlp, batch 16 | 8 | 0.35 | " in told
    assert "| small |  | " in told
    assert "| 2 | layers | " in told
    assert (tmp_path / "layers_over_width.png").stat().st_size > 0
