"""A run that goes on with something else than it began with is refused, or says so."""

import warnings

import pytest
import torch
from torch import nn

import mtopt
from mtopt.training import CheckpointWarning
from tests.training.support import TwoHeads, TwoLosses, data_set, loader, two_losses


class Twins(nn.Module):
    """Two parameters of one shape."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([2.0, 3.0], dtype=dtype))
        self.b = nn.Parameter(torch.tensor([-1.0, 5.0], dtype=dtype))


class TwinTrainer(mtopt.MultiLossTrainer):
    def losses(self, batch):
        model = self.model
        return [(model.a - 1).square().sum() + model.b.sum().square(), (model.b - model.a).square().sum()]


def twins(params, outside=()):
    model = Twins()
    return TwinTrainer(model, torch.optim.Adam([*(getattr(model, name) for name in params), *outside], lr=0.1), "mgda")


def test_parameters_in_another_order_with_equal_shapes_are_refused(tmp_path):
    twins("ab").fit(steps=3, checkpoint_dir=tmp_path)
    trainer = twins("ba")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(
        mtopt.CheckpointError,
        match=r"in another order, or others: number 0 of group 0 was a, found b; give the optimizer the parameters",
    ):
        trainer.fit(steps=5, checkpoint_dir=tmp_path)
    assert all(value.equal(before[name]) for name, value in trainer.model.state_dict().items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twins("ab").fit(steps=5, checkpoint_dir=tmp_path)


def test_a_parameter_outside_the_model_is_known_by_its_shape(tmp_path):
    twins("ab", [nn.Parameter(torch.zeros(2))]).fit(steps=3, checkpoint_dir=tmp_path)
    model = Twins()
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2)), model.a, model.b], lr=0.1)
    with pytest.raises(mtopt.CheckpointError, match=r"was a, found one outside the model of shape \(2,\)"):
        TwinTrainer(model, optimizer, "mgda").fit(steps=5, checkpoint_dir=tmp_path)


def test_the_dtype_is_said(tmp_path):
    twins("ab").fit(steps=3, checkpoint_dir=tmp_path)
    model = Twins(torch.float64)
    trainer = TwinTrainer(model, torch.optim.Adam(model.parameters(), lr=0.1), "mgda")
    with pytest.warns(
        CheckpointWarning, match=r"the model had a torch\.float32, now torch\.float64 and 1 more: numbers are"
    ):
        trainer.fit(steps=5, checkpoint_dir=tmp_path)
    assert trainer.step == 5


def run(folder, steps, *, lr=0.01, eps=1e-8, cosine=40, gamma=0.9, seed=5, data=None, **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = TwoHeads()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, eps=eps)
    schedules = torch.optim.lr_scheduler
    parts = [schedules.ExponentialLR(optimizer, gamma), schedules.CosineAnnealingLR(optimizer, cosine)]
    scheduler = schedules.SequentialLR(optimizer, parts, [4])
    trainer = TwoLosses(model, optimizer, "mgda", scheduler=scheduler, seed=seed, **options)
    trainer.fit(loader() if data is None else data, steps=steps, checkpoint_dir=folder)
    return trainer


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 6}, "the trainer had seed 5, now 6: what is given now is used, and generators go on"),
        ({"accumulate": 2}, "the trainer had accumulate 1, now 2: what is given now is used"),
        ({"autocast": torch.bfloat16}, r"the trainer had autocast None, now torch\.bfloat16"),
        ({"clip_norm": 1.0}, r"the trainer had clip_norm None, now 1\.0"),
        (
            {"lr": 0.02},
            r"the optimizer had lr 0\.01, now 0\.02: the checkpoint's are used\. the scheduler had .*base_lrs",
        ),
        ({"eps": 1e-6}, "the optimizer had eps 1e-08, now 1e-06: the checkpoint's are used"),
        ({"cosine": 50}, r"the scheduler had _schedulers\[1\]\.T_max 40, now 50: the checkpoint's are used"),
        ({"gamma": 0.8}, r"the scheduler had _schedulers\[0\]\.gamma 0\.9, now 0\.8"),
        (
            {"data": list(loader())[:5]},
            "data of 6 batches per epoch, and training goes on with 5, after as many .* epoch 1 .*: 3",
        ),
    ],
)
def test_other_settings_are_said(other, said, tmp_path):
    run(tmp_path, 3)
    with pytest.warns(CheckpointWarning, match=said) as warned:
        trainer = run(tmp_path, 5, **other)
    assert len(warned) == 1
    assert trainer.step == 5
    assert trainer.optimizer.defaults["lr"] == other.get("lr", 0.01)


def test_the_same_settings_say_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (3, 5, 8):
            run(tmp_path, steps)


def test_data_that_grew_between_two_epochs_is_said_too(tmp_path):
    two_losses().fit(loader(), epochs=1, checkpoint_dir=tmp_path)
    longer = torch.utils.data.DataLoader(torch.utils.data.ConcatDataset([data_set(), data_set(4)]), batch_size=8)
    with pytest.warns(CheckpointWarning, match="data of 6 batches per epoch, and training goes on with 11"):
        two_losses().fit(longer, epochs=2, checkpoint_dir=tmp_path)


def test_a_checkpoint_from_before_these_were_saved_goes_on(tmp_path):
    trainer = two_losses()
    trainer.fit(loader(), steps=3)
    state = trainer.state_dict()
    del state["made_with"], state["optimizer"]["parameters"], state["position"]["length"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = two_losses(seed=6)
        other.load_state_dict(state)
        other.fit(loader(), steps=5)
    assert other.step == 5
