"""Loops that step without a closure refuse an optimizer that needs one, by name."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from transformers import TrainingArguments

import mtopt
from mtopt.integrations.accelerate import backward
from tests.integrations import test_lightning as lightning
from tests.integrations.test_second_look import Physics
from tests.training.physics import Field, points

pytestmark = lightning.pytestmark


@pytest.mark.parametrize("combiner", ["linear", "mgda"])
def test_lightning_refuses_it(combiner):
    class Searching(lightning.Watched):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ValueError, match="optimizer is LBFGS, whose step needs a closure, and this mixin gives none"):
        lightning.fit(Searching(combiner))


def test_transformers_refuses_it(tmp_path):
    model = Field()
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, remove_unused_columns=False)
    optimizers = torch.optim.LBFGS(model.parameters()), None
    data = [{"x": x} for x in points()]
    trainer = Physics(model, args, train_dataset=data, combiner="linear", optimizers=optimizers)
    with pytest.raises(ValueError, match="optimizer is LBFGS, whose step needs a closure, and the Trainer gives none"):
        trainer.train()


def test_accelerate_refuses_it_for_rules_on_gradients_and_leaves_others_to_the_closure():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    try:
        accelerator = Accelerator(cpu=True)
        point = nn.Linear(1, 2, bias=False)
        model, optimizer = accelerator.prepare(point, torch.optim.LBFGS(point.parameters(), max_iter=20))
        combiner = mtopt.create_combiner("linear")

        def losses():
            return [(model.weight - target).square().sum() for target in (1.0, 3.0)]

        def closure():
            optimizer.zero_grad()
            return torch.tensor(sum(backward(accelerator, losses(), model, combiner).losses.values()))

        optimizer.step(closure)
        torch.testing.assert_close(point.weight.detach(), torch.full((2, 1), 2.0))
        with pytest.raises(ValueError, match=r"optimizer is LBFGS, .* MGDA\(.*, which combines gradients, gives none"):
            backward(accelerator, losses(), model, mtopt.create_combiner("mgda"))
        other = nn.Linear(1, 2, bias=False)
        assert backward(accelerator, [other.weight.sum()], other, mtopt.create_combiner("mgda")).backwards == 1
        with pytest.raises(TypeError, match="combiner must be a Combiner, found str"):
            backward(accelerator, losses(), model, "mgda")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
