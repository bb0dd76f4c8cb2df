"""Accelerate with several losses: the same direction as ``mtopt.backward``, in all its ways to train."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader, TensorDataset

import mtopt
from mtopt.integrations.accelerate import backward
from tests.integrations.support import assert_same_direction, assert_same_state, example, gradients

EXAMPLE = example("accelerate_two_tasks")
X = torch.randn(80, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _alone():
    """Accelerate keeps one state per process; what other tests left there is no part of these, nor these of others."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def parts(accumulate=1, scaler=None, **options):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, **options)
    accelerator.scaler = scaler
    torch.manual_seed(0)
    model = EXAMPLE.Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(X), batch_size=16)
    return accelerator, *accelerator.prepare(model, optimizer, loader)


def test_the_direction_is_that_of_backward():
    accelerator, model, optimizer, loader = parts()
    combiner = mtopt.create_combiner("moco")
    for (x,) in loader:
        plain, rule = copy.deepcopy(model), copy.deepcopy(combiner)
        with accelerator.accumulate(model):
            record = backward(accelerator, EXAMPLE.losses_of(model, x), model, combiner)
            mtopt.backward(EXAMPLE.losses_of(plain, x), plain, rule)
            assert_same_direction(gradients(model), gradients(plain))
            assert record.backwards > 0
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("scaled", [False, True])
def test_accumulation_is_the_large_batch(scaled):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled else None
    accelerator, model, optimizer, loader = parts(accumulate=2, scaler=scaler)
    combiner = mtopt.create_combiner("moco")
    seen, sizes = [], []
    for (x,) in loader:
        if not seen:
            plain, rule = copy.deepcopy(model), copy.deepcopy(combiner)
        seen.append(x)
        with accelerator.accumulate(model):
            record = backward(accelerator, EXAMPLE.losses_of(model, x), model, combiner)
            assert (record is not None) == accelerator.sync_gradients
            if record is not None:
                # the last step has one micro-batch of two: accelerator.backward divides by two all the same
                losses = {k: v * len(seen) / 2 for k, v in EXAMPLE.losses_of(plain, torch.cat(seen)).items()}
                mtopt.backward(losses, plain, rule)
                assert_same_direction(gradients(model), gradients(plain), scale=1024.0 if scaled else 1.0)
                sizes.append(len(seen))
                seen = []
            optimizer.step()
            optimizer.zero_grad()
    assert sizes == [2, 2, 1]


def test_bfloat16():
    accelerator, model, _, _ = parts(mixed_precision="bf16")
    plain = EXAMPLE.Net()
    plain.load_state_dict(model.state_dict())
    with accelerator.accumulate(model):
        backward(accelerator, EXAMPLE.losses_of(model, X), model, mtopt.create_combiner("mgda"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = [output.float() for output in plain(X)]
    mtopt.backward(EXAMPLE.losses_of(lambda _: outputs, X), plain, mtopt.create_combiner("mgda"))
    assert_same_direction(gradients(model), gradients(plain))


def test_an_overflow_makes_the_scaler_skip():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    accelerator, model, optimizer, _ = parts(scaler=scaler)
    combiner = mtopt.create_combiner("moco")
    before, state = copy.deepcopy(model.state_dict()), copy.deepcopy(combiner.state_dict())
    losses = EXAMPLE.losses_of(model, X)
    record = backward(accelerator, {**losses, "sign": losses["sign"] * torch.inf}, model, combiner)
    optimizer.step()
    assert record.skipped
    assert accelerator.optimizer_step_was_skipped
    assert scaler.get_scale() == 512.0
    assert_same_state(model.state_dict(), before)
    assert_same_state(combiner.state_dict(), state)


def test_save_state_and_load_state_keep_the_rule(tmp_path):
    def steps(accelerator, model, optimizer, combiner, batches):
        for x in batches:
            with accelerator.accumulate(model):
                backward(accelerator, EXAMPLE.losses_of(model, x), model, combiner)
                optimizer.step()
                optimizer.zero_grad()

    whole, rule = parts(accumulate=2), mtopt.create_combiner("moco")
    whole[0].register_for_checkpointing(rule)
    steps(*whole[:3], rule, X.split(16)[:2])
    whole[0].save_state(str(tmp_path))
    resumed, restored = parts(accumulate=2), mtopt.create_combiner("moco")
    resumed[0].register_for_checkpointing(restored)
    resumed[0].load_state(str(tmp_path))
    assert_same_state(restored.state_dict(), rule.state_dict())
    for each, combiner in ((whole, rule), (resumed, restored)):
        steps(*each[:3], combiner, X.split(16)[2:4])
    assert_same_state(resumed[1].state_dict(), whole[1].state_dict())
    assert_same_state(restored.state_dict(), rule.state_dict())


def test_first_mistakes_are_explained():
    accelerator, model, _, _ = parts()
    losses, rule = EXAMPLE.losses_of(model, X), mtopt.create_combiner("mgda")
    with pytest.raises(TypeError, match="create it once, before the loop"):
        backward(accelerator, losses, model, "mgda")
    with pytest.raises(TypeError, match=r"accelerator must be an accelerate\.Accelerator, found Net"):
        backward(model, losses, accelerator, rule)
    with pytest.raises(TypeError, match="found Tensor"):
        backward(accelerator, losses["sign"], model, rule)
    deepspeed = types.SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, sync_gradients=True)
    with pytest.raises(RuntimeError, match="accelerator runs DEEPSPEED"):
        backward(deepspeed, losses, model, rule)


def test_the_example_runs(tmp_path, capsys):
    record = EXAMPLE.train(str(tmp_path), epochs=1)
    assert set(record.losses) == {"sign", "size"}
    assert capsys.readouterr().out.startswith("0 {'sign'")
