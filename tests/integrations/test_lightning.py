"""Lightning's Trainer and Fabric with several losses go the direction of ``mtopt.backward``, in all ways to train."""

from __future__ import annotations

import copy
import runpy
import types

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision as FabricPrecision
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

import mtopt
from mtopt.integrations.lightning import STATE_KEY, MultiLossMixin, backward
from tests.integrations.support import EXAMPLES, assert_same_direction, assert_same_state, example, gradients

# Lightning's own, of the versions tested together, and its advice on worker processes
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
]

EXAMPLE = example("lightning_two_tasks")
FABRIC = example("fabric_two_tasks")


class WatchedSGD(torch.optim.SGD):
    """Keeps the gradients that it steps along."""

    def __init__(self, module, **options):
        super().__init__(module.parameters(), **options)
        self.module = module

    def step(self, closure=None):
        result = None if closure is None else closure()
        self.module.steps[-1].found = gradients(self.module)
        super().step()
        return result


class Watched(EXAMPLE.TwoTasks):
    """Keeps what each step started from, its batches, and its direction."""

    def __init__(self, combiner="moco", schedule=None, **options):
        torch.manual_seed(0)
        super().__init__(combiner, **options)
        self.steps = []
        self.poisoned = ()
        self.schedule = schedule
        self.ended = True

    def losses(self, batch):
        if self.ended:
            self.ended = False
            state, rule = copy.deepcopy(self.state_dict()), copy.deepcopy(self.combiner)
            self.steps.append(types.SimpleNamespace(state=state, rule=rule, batches=[]))
        self.steps[-1].batches.append(batch)
        losses = super().losses(batch)
        if len(self.steps) in self.poisoned:
            losses["sign"] = losses["sign"] * torch.inf
        return losses

    def training_step(self, batch, batch_idx):
        result = super().training_step(batch, batch_idx)
        self.ended = result is not None
        return result

    def configure_optimizers(self):
        optimizer = WatchedSGD(self, lr=0.1)
        if self.schedule is None:
            return optimizer
        return [optimizer], [{**self.schedule, "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)}]


def fit(module, count=64, batch_size=16, callbacks=(), ckpt_path=None, **settings):
    torch.manual_seed(1)
    loader = DataLoader(EXAMPLE.two_tasks_data(count), batch_size=batch_size)
    trainer = EXAMPLE.quiet_trainer(**{"max_epochs": 1, "log_every_n_steps": 1, "callbacks": [*callbacks], **settings})
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer


def expected_direction(step, **autocast):
    """Of the whole batch, by ``mtopt.backward``."""
    module = EXAMPLE.TwoTasks()
    module.load_state_dict(step.state)
    batch = [torch.cat(parts) for parts in zip(*step.batches, strict=True)]
    with torch.autocast("cpu", enabled=bool(autocast), **autocast):
        losses = module.losses(batch)
    mtopt.backward(losses, module, step.rule)
    return gradients(module)


def test_the_direction_is_that_of_backward():
    module = Watched()
    trainer = fit(module)
    assert trainer.global_step == len(module.steps) == 4
    for step in module.steps:
        assert_same_direction(step.found, expected_direction(step))


def test_accumulation_is_the_large_batch():
    module = Watched(accumulate_grad_batches=3)
    trainer = fit(module, count=80, max_epochs=2)
    assert [len(step.batches) for step in module.steps] == [3, 2, 3, 2]
    assert trainer.global_step == 4
    for step in module.steps:
        assert_same_direction(step.found, expected_direction(step))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("scaled", [False, True])
def test_clipping_acts_on_the_unscaled_direction(algorithm, scaled):
    module = Watched(gradient_clip_val=0.01, gradient_clip_algorithm=algorithm)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler=scaler)] if scaled else []
    fit(module, limit_train_batches=1, plugins=plugins)
    (step,) = module.steps
    expected = expected_direction(step, **({"dtype": torch.float16} if scaled else {}))
    norm = torch.stack([g.norm() for g in expected.values()]).norm()
    assert norm > 0.01
    if algorithm == "norm":
        clipped = {name: g * 0.01 / norm for name, g in expected.items()}
    else:
        clipped = {name: g.clamp(-0.01, 0.01) for name, g in expected.items()}
    for name, gradient in step.found.items():
        torch.testing.assert_close(gradient, clipped[name], rtol=2e-4, atol=1e-7)  # Lightning divides by norm + 1e-6


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_under_a_grad_scaler(micro_batches):
    module = Watched(accumulate_grad_batches=micro_batches, schedule={"interval": "step"})
    module.poisoned = (2,)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    fit(module, count=48 * micro_batches, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    first, second, third = module.steps
    assert_same_state(third.state, second.state)
    assert_same_state(third.rule.state_dict(), second.rule.state_dict())
    assert scaler.get_scale() == 512.0
    assert module.optimizers().param_groups[0]["lr"] == 0.1 * 0.5**2  # the skipped step is not counted
    if micro_batches == 1:  # float16 sums of halves of a batch are other numbers
        assert_same_direction(first.found, expected_direction(first, dtype=torch.float16))
        assert_same_direction(third.found, expected_direction(third, dtype=torch.float16))


def test_a_skipped_step_changes_nothing():
    module = Watched()
    module.poisoned = (2,)
    fit(module)
    _, second, third, _ = module.steps
    assert_same_state(third.state, second.state)
    assert_same_state(third.rule.state_dict(), second.rule.state_dict())


@pytest.mark.parametrize(
    ("schedule", "count"),
    [
        ({}, 2),
        ({"interval": "epoch", "frequency": 2}, 1),
        ({"interval": "step"}, 4),
        ({"interval": "step", "frequency": 3}, 1),
    ],
)
def test_schedulers_are_stepped_at_their_interval(schedule, count):
    module = Watched(schedule=schedule, accumulate_grad_batches=2)
    fit(module, max_epochs=2)
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**count)


def test_a_resumed_training_ends_where_the_whole_one_ends(tmp_path):
    class Last(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    whole, resumed = Watched(), Watched()
    fit(whole, max_epochs=2, callbacks=[Last()])
    fit(resumed, max_epochs=2, ckpt_path=tmp_path / "0.ckpt")
    assert len(resumed.steps) == 4
    assert_same_state(resumed.state_dict(), whole.state_dict())
    assert_same_state(resumed.combiner.state_dict(), whole.combiner.state_dict())
    with pytest.raises(mtopt.CheckpointError, match="belongs to rule 'MoCo', not to MGDA"):
        fit(Watched("mgda"), max_epochs=2, ckpt_path=tmp_path / "0.ckpt")
    content = torch.load(tmp_path / "0.ckpt", weights_only=True)
    del content[STATE_KEY]
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(mtopt.CheckpointError, match="the checkpoint has no 'mtopt_combiner'"):
        fit(Watched(), max_epochs=2, ckpt_path=tmp_path / "foreign.ckpt")


def test_logs_and_outputs_have_the_record(tmp_path):
    records = []

    class Records(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            records.append(outputs["record"])
            assert float(outputs["loss"]) == pytest.approx(sum(outputs["record"].losses.values()))
            for name in ("sign", "size"):
                assert float(trainer.callback_metrics[f"loss_{name}"]) == pytest.approx(records[-1].losses[name])
                assert float(trainer.callback_metrics[f"weight_{name}"]) == pytest.approx(records[-1].weights[name])

    module = Watched()
    best = ModelCheckpoint(tmp_path, monitor="loss_sign")
    fit(module, callbacks=[Records(), best], enable_checkpointing=True)
    assert len(records) == 4
    assert module.record is records[-1]
    assert best.best_model_path


def test_famo_is_shown_the_losses_after_the_step():
    module = Watched("famo", accumulate_grad_batches=2)
    fit(module)
    first, second = module.steps
    batch = [torch.cat(parts) for parts in zip(*first.batches[:2], strict=True)]  # then they come again
    plain = EXAMPLE.TwoTasks()
    plain.load_state_dict(first.state)
    mtopt.backward(plain.losses(batch), plain, first.rule)
    plain.load_state_dict(second.state)
    with torch.no_grad():
        first.rule.reevaluate(torch.stack(list(plain.losses(batch).values())))
    found, expected = (rule.state_dict()["state"]["_learned"]["values"] for rule in (second.rule, first.rule))
    assert bool((expected != 0).any())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_first_mistakes_are_explained():
    class Without(MultiLossMixin, LightningModule):
        pass

    class Scalar(Watched):
        def losses(self, batch):
            return sum(super().losses(batch).values())

    class Two(Watched):
        def configure_optimizers(self):
            return WatchedSGD(self, lr=0.1), WatchedSGD(self, lr=0.1)

    class Plateau(Watched):
        def configure_optimizers(self):
            optimizer = WatchedSGD(self, lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)]

    with pytest.raises(TypeError, match=r"Without must define losses\(self, batch\)"):
        Without(combiner="mgda")
    with pytest.raises(TypeError, match=r"Scalar\.losses must return a mapping .* found Tensor"):
        fit(Scalar())
    with pytest.raises(TypeError, match=r"create one: MGDA\(\)"):
        MultiLossMixin.__init__(Watched(), combiner=type(mtopt.create_combiner("mgda")))
    with pytest.raises(ValueError, match="one optimizer for all the losses, found 2"):
        fit(Two())
    with pytest.raises(ValueError, match="ReduceLROnPlateau needs a metric: override step_schedulers"):
        fit(Plateau())
    with pytest.raises(ValueError, match="accumulate_grad_batches must be a positive int"):
        Watched(accumulate_grad_batches=0)
    with pytest.raises(ValueError, match="the micro-batches of a step must have the same objectives"):
        fit(_changing())


def _changing():
    class Changing(Watched):
        def losses(self, batch):
            losses = super().losses(batch)
            return losses if len(self.steps[-1].batches) == 1 else dict(reversed(losses.items()))

    return Changing(accumulate_grad_batches=2)


def test_the_example_runs(capsys):
    runpy.run_path(str(EXAMPLES / "lightning_two_tasks.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "20 steps" in out
    assert "cosine_sign_size" in out


# -- Fabric ---------------------------------------------------------------------------------------------------------


def fabric_parts(precision=None):
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[] if precision is None else [precision])
    torch.manual_seed(0)
    net = FABRIC.Net()
    plain = copy.deepcopy(net)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
    return fabric, model, optimizer, plain


@pytest.mark.parametrize(("name", "dtype"), [(None, None), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)])
def test_fabric_gives_the_direction_of_backward(name, dtype):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if name == "16-mixed" else None
    fabric, model, _, plain = fabric_parts(None if name is None else FabricPrecision(name, "cpu", scaler=scaler))
    found, expected = mtopt.create_combiner("moco"), mtopt.create_combiner("moco")
    for _ in range(2):
        x = torch.randn(32, 8)
        model.zero_grad()
        backward(fabric, FABRIC.losses_of(model, x), model, found)
        plain.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            sign, size = plain(x if dtype is None else x.to(dtype))
        outputs = sign.float(), size.float()
        losses = FABRIC.losses_of(lambda _, outputs=outputs: outputs, x)
        mtopt.backward(losses, plain, expected)
        scale = 1.0 if scaler is None else 1024.0
        assert_same_direction(gradients(model.module), gradients(plain), scale=scale)


def test_fabric_accumulates_into_the_large_batch():
    fabric, model, _, plain = fabric_parts()
    x = torch.randn(32, 8)
    for part in range(4):
        losses = {k: loss / 4 for k, loss in FABRIC.losses_of(model, x[part * 8 : part * 8 + 8]).items()}
        record = backward(fabric, losses, model, mtopt.create_combiner("ngdiff"), accumulate=part < 3)
        assert (record is None) == (part < 3)
    whole = mtopt.backward(FABRIC.losses_of(plain, x), plain, mtopt.create_combiner("ngdiff"))
    assert_same_direction(gradients(model.module), gradients(plain))
    assert record.losses == pytest.approx(whole.losses)


def test_fabric_restores_the_rule(tmp_path):
    def steps(parts, count):
        fabric, model, optimizer, rule = parts
        for k in range(count):
            optimizer.zero_grad()
            x = torch.randn(32, 8, generator=torch.Generator().manual_seed(k))
            backward(fabric, FABRIC.losses_of(model, x), model, rule)
            optimizer.step()

    whole = (*fabric_parts()[:3], mtopt.create_combiner("moco"))
    resumed = (*fabric_parts()[:3], mtopt.create_combiner("moco"))
    steps(whole, 2)
    whole[0].save(tmp_path / "last.ckpt", {"model": whole[1], "optimizer": whole[2], "combiner": whole[3]})
    resumed[0].load(tmp_path / "last.ckpt", {"model": resumed[1], "optimizer": resumed[2], "combiner": resumed[3]})
    for parts in (whole, resumed):
        steps(parts, 2)
    assert_same_state(resumed[1].state_dict(), whole[1].state_dict())
    assert_same_state(resumed[3].state_dict(), whole[3].state_dict())


def test_fabric_wants_the_model_that_it_set_up():
    fabric, _, _, plain = fabric_parts()
    with pytest.raises(TypeError, match=r"what fabric.setup\(model, optimizer\) returned, found Net"):
        backward(fabric, FABRIC.losses_of(plain, torch.randn(4, 8)), plain, mtopt.create_combiner("mgda"))


def test_the_fabric_example_runs(tmp_path, capsys):
    record = FABRIC.train(tmp_path, steps=11)
    assert set(record.losses) == {"sign", "size"}
    assert capsys.readouterr().out.startswith("0 {'sign'")
