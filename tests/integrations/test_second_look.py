"""In Trainers of other libraries a second look at the losses leaves no trace, and has a graph where they need one."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments

from mtopt.integrations.lightning import MultiLossMixin as LightningMixin
from mtopt.integrations.transformers import MultiLossMixin as TransformersMixin
from tests.integrations.support import example
from tests.training.physics import Field, physics_losses, points

LIGHTNING = example("lightning_two_tasks")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
]


class Module(LightningMixin, LightningModule):
    def __init__(self, **options):
        super().__init__(**options)
        self.field = Field()
        self.found = []

    def losses(self, batch):
        return physics_losses(self.field, batch[0])

    def test_step(self, batch, batch_idx):
        self.found.append(self.loss_values(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)  # so that the second look sees the same parameters


def by_lightning(folder, evaluates=False, **options):
    module = Module(accumulate_grad_batches=2, **options)
    data = DataLoader(TensorDataset(points()), batch_size=4)
    trainer = LIGHTNING.quiet_trainer(max_epochs=1)
    torch.manual_seed(3)
    trainer.fit(module, data)
    if evaluates:
        trainer.test(module, DataLoader(TensorDataset(points()), batch_size=16), verbose=False)
    return module.field, [(one["residual"], one["start"]) for one in module.found]


class Physics(TransformersMixin, Trainer):
    def compute_losses(self, model, inputs):
        return physics_losses(model, inputs["x"])


def by_transformers(folder, evaluates=False, **options):
    settings = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    settings |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 1}
    settings |= {"per_device_eval_batch_size": 16, "learning_rate": 0.0, "optim": "sgd"}
    args = TrainingArguments(str(folder), remove_unused_columns=False, **settings)
    data = [{"x": x} for x in points()]
    trainer = Physics(Field(), args, train_dataset=data, eval_dataset=data, **options)
    trainer.train()
    metrics = trainer.evaluate() if evaluates else {}
    return trainer.model, [(metrics["eval_loss_residual"], metrics["eval_loss_start"])] if evaluates else []


both = pytest.mark.parametrize("by", [by_lightning, by_transformers])


@both
def test_the_second_look_of_famo_leaves_no_trace_and_draws_the_same_numbers(by, tmp_path):
    plain, _ = by(tmp_path, combiner="linear")
    found, _ = by(tmp_path, combiner="famo", needs_graph=True)
    assert len(plain.drawn) == int(plain.norm.num_batches_tracked) == 4
    for name, buffer in found.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(name)), name
    assert found.drawn[:2] == found.drawn[2:4] == plain.drawn[:2]
    assert found.drawn[4:6] == found.drawn[6:8] == plain.drawn[2:]


@both
def test_losses_that_differentiate_inside_are_evaluated(by, tmp_path):
    field, found = by(tmp_path, evaluates=True, combiner="linear", needs_graph=True)
    expected = [float(loss.detach()) for loss in physics_losses(field.eval(), points()).values()]
    assert found == [pytest.approx(expected, rel=1e-4)]


@both
@pytest.mark.parametrize("options", [{"combiner": "famo"}, {"combiner": "linear", "evaluates": True}])
def test_without_a_graph_the_error_says_what_to_do(by, options, tmp_path):
    with pytest.raises(RuntimeError, match=r"the losses differentiate inside, .* give needs_graph=True to the"):
        by(tmp_path, **options)


def test_the_trainers_forward_for_logits_has_no_graph_and_says_so(tmp_path):
    class Forces(Field):
        def forward(self, x, labels=None):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)

    class Predicting(Physics):
        def compute_losses(self, model, inputs):
            (slope,) = model(inputs["x"])
            return {"first": slope.square().mean(), "second": (slope - 1).square().mean()}

    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True)
    data = [{"x": x, "labels": 0} for x in points()]
    options = {"eval_dataset": data, "combiner": "linear", "needs_graph": True}
    assert "eval_loss_first" in Predicting(Forces(), args, **options).evaluate()
    with pytest.raises(RuntimeError, match="compute_metrics asks for logits, whose forward the Trainer runs without"):
        Predicting(Forces(), args, compute_metrics=lambda found: {}, **options).evaluate()
