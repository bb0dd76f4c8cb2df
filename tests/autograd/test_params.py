"""What ``params`` may be: nothing that would train nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import mtopt
from tests.autograd.helpers import FIVE, MultiHead
from tests.autograd.test_existing_gradients import STEPS


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", FIVE)
def test_an_iterator_serves_one_step(name: str, named: bool) -> None:
    model, rule = MultiHead(2), mtopt.create_combiner(name)
    params: Any = model.named_parameters() if named else model.parameters()
    mtopt.backward(model.losses(), params, rule)
    with pytest.raises(ValueError, match=r"params is an iterator that holds nothing \(any more\): .*give the model"):
        mtopt.backward(model.losses(), params, rule)


def test_an_iterator_of_frozen_parameters_is_not_used_up() -> None:
    model = MultiHead(2).requires_grad_(False)
    with pytest.raises(ValueError, match="unfreeze some"):
        mtopt.backward([torch.ones((), requires_grad=True)], model.parameters(), mtopt.create_combiner("linear"))


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def _shard(model: MultiHead) -> None:
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model.trunk, mesh=mesh)
    for head in model.heads:
        fully_shard(head, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _whole(param: torch.Tensor) -> torch.Tensor:
    assert isinstance(param.grad, torch.distributed.tensor.DTensor)
    return param.grad.full_tensor()


WHOLE = ("representation", "samples", "samples by losses", "matrix-free", "matrix-free draws")
"""Steps that need whole parameters."""


@pytest.mark.parametrize("what", WHOLE)
def test_a_sharded_model_is_refused_where_it_must_be_whole(what: str, one_process: None) -> None:
    model = MultiHead(3)
    _shard(model)
    with pytest.raises(ValueError, match=r"params (are sharded by fully_shard|holds parameters that are sharded)"):
        STEPS[what](model)


@pytest.mark.parametrize("what", sorted(set(STEPS) - set(WHOLE)))
def test_a_model_that_one_process_shards_is_trained_as_any(what: str, one_process: None) -> None:
    model, plain = MultiHead(3), MultiHead(3)
    _shard(model)
    STEPS[what](model)
    STEPS[what](plain)
    for param, alike in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(_whole(param), alike.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FIVE)
def test_the_whole_parameters_of_a_sharded_model_stand_for_its_shards(name: str, one_process: None) -> None:
    plain = torch.nn.Linear(3, 2)
    model = copy.deepcopy(plain)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    shards = list(model.parameters())
    outputs = model(torch.ones(4, 3))
    params = list(model.parameters())  # put in place for the forward: what the optimizer steps are others
    assert not any(isinstance(param, torch.distributed.tensor.DTensor) for param in params)
    mtopt.backward(list(outputs.square().mean(0)), params, mtopt.create_combiner(name))
    mtopt.backward(list(plain(torch.ones(4, 3)).square().mean(0)), plain, mtopt.create_combiner(name))
    for param, alike in zip(shards, plain.parameters(), strict=True):
        torch.testing.assert_close(_whole(param), alike.grad, rtol=1e-5, atol=1e-6)


def test_a_trainer_of_a_sharded_model(one_process: None) -> None:
    class Two(mtopt.MultiLossTrainer):
        def losses(self, batch: Any) -> list[torch.Tensor]:
            return list(self.model(torch.ones(4, 3)).square().mean(0))

    model = torch.nn.Linear(3, 2)
    plain = copy.deepcopy(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    for each in (model, plain):
        Two(each, torch.optim.SGD(each.parameters(), lr=0.1), "mgda").fit(steps=3)
    for param, alike in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(param.detach().full_tensor(), alike.detach())
