"""When checkpoints are written, which one is gone on from, and what does not fit."""

import warnings

import pytest
import torch

import mtopt
from mtopt.training import CheckpointFolder, CheckpointWarning, Evaluator, MultiLossTrainer, write_checkpoint
from tests.training.support import (
    Stateful,
    TwoHeads,
    TwoLosses,
    fingerprint,
    loader,
    point,
    same_history,
    two_losses,
)


def test_checkpoints_come_every_n_steps_and_at_the_end(tmp_path):
    written = []

    class Watching(mtopt.training.Callback):
        def on_step_end(self, trainer, record):
            written.append(CheckpointFolder(tmp_path).steps())

    two_losses(callbacks=[Watching()]).fit(loader(), steps=11, checkpoint_dir=tmp_path, checkpoint_every=3)
    assert written[3] == written[5] == [3]
    assert written[9] == [6, 9]
    assert CheckpointFolder(tmp_path).steps() == [9, 11]


def test_checkpoints_come_at_the_ends_of_epochs_unless_told(tmp_path):
    two_losses().fit(loader(), steps=14, checkpoint_dir=tmp_path)
    assert CheckpointFolder(tmp_path).steps() == [12, 14]


def test_the_same_call_again_does_nothing(tmp_path):
    class NoLength:
        def __iter__(self):
            return iter(loader())

    for number, (data, limits) in enumerate(
        [(loader, {"steps": 9}), (loader, {"epochs": 2}), (NoLength, {"epochs": 2})]
    ):
        first = two_losses(callbacks=[Evaluator(loader())])
        first.fit(data(), checkpoint_dir=tmp_path / str(number), checkpoint_every=1, **limits)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = two_losses(callbacks=[Evaluator(loader())])
            second.fit(data(), checkpoint_dir=tmp_path / str(number), checkpoint_every=1, **limits)
        assert fingerprint(second) == fingerprint(first)
        assert len(second.history) == first.step
        same_history(second, first)


def test_a_checkpoint_beyond_what_is_asked(tmp_path):
    two_losses().fit(loader(), steps=9, checkpoint_dir=tmp_path)
    trainer = two_losses()
    with pytest.warns(CheckpointWarning, match="holds 9 steps, more than the 5 asked for; nothing is trained"):
        trainer.fit(loader(), steps=5, checkpoint_dir=tmp_path)
    assert trainer.step == 9
    trainer.fit(loader(), steps=12, checkpoint_dir=tmp_path)  # and it can still go on
    whole = two_losses()
    whole.fit(loader(), steps=12)
    assert fingerprint(trainer) == fingerprint(whole)


def test_starting_over(tmp_path):
    two_losses().fit(loader(), steps=9, checkpoint_dir=tmp_path, checkpoint_every=4)
    trainer = two_losses()
    trainer.fit(loader(), steps=2, checkpoint_dir=tmp_path, resume=False)
    assert trainer.step == 2
    assert CheckpointFolder(tmp_path).steps() == [2]


def test_memory_goes_before_the_directory(tmp_path):
    trainer, data = two_losses(), loader()
    trainer.fit(data, steps=4, checkpoint_dir=tmp_path)
    trainer.fit(data, steps=7, checkpoint_dir=tmp_path)
    assert CheckpointFolder(tmp_path).steps() == [6, 7]  # the one of the epoch's end, and the last
    behind = two_losses()
    behind.fit(loader(), steps=5)
    with pytest.raises(mtopt.CheckpointError, match="after 7 steps, and this trainer has done 5; resume in a new"):
        behind.fit(loader(), steps=9, checkpoint_dir=tmp_path)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    whole = two_losses("moco")
    whole.fit(loader(), steps=14)
    two_losses("moco").fit(loader(), steps=9, checkpoint_dir=tmp_path, checkpoint_every=4)
    folder = CheckpointFolder(tmp_path)
    assert folder.steps() == [8, 9]
    damaged = bytearray(folder.path(9).read_bytes())
    damaged[len(damaged) // 2] ^= 4
    folder.path(9).write_bytes(damaged)
    resumed = two_losses("moco")
    with pytest.warns(CheckpointWarning, match=r"0009\.pt is damaged.*Went back to .*0008\.pt"):
        resumed.fit(loader(), steps=14, checkpoint_dir=tmp_path, checkpoint_every=4)
    assert fingerprint(resumed) == fingerprint(whole)
    assert folder.steps() == [12, 14]


def test_all_damaged(tmp_path):
    two_losses().fit(loader(), steps=9, checkpoint_dir=tmp_path, checkpoint_every=4)
    for step in (8, 9):
        CheckpointFolder(tmp_path).path(step).write_bytes(b"PK\x03\x04")
    with pytest.raises(mtopt.CheckpointError, match=r"no checkpoint in .* can be used: .*resume=False"):
        two_losses().fit(loader(), steps=14, checkpoint_dir=tmp_path)


# -- what does not fit ------------------------------------------------------------------------------------------


class Wider(TwoHeads):
    def __init__(self):
        super().__init__()
        self.left = torch.nn.Linear(12, 2)
        self.third = torch.nn.Linear(12, 1)


def _trainer(model=None, combiner="mgda", optimizer=torch.optim.SGD, params=None, schedule=None):
    model = model or TwoHeads()
    made = optimizer(params(model) if params else model.parameters(), lr=0.05)
    scheduler = schedule(made) if schedule else None
    return TwoLosses(model, made, combiner, scheduler=scheduler)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: _trainer(Wider()),
            r"another model: it lacks third\.weight, third\.bias; "
            r"it has the shapes left\.weight \(1, 12\) \(the model: \(2, 12\)\)",
        ),
        (lambda: _trainer(combiner="moco"), "belongs to rule 'MGDA', not to MoCo"),
        (lambda: _trainer(optimizer=torch.optim.Adam), "made with optimizer SGD, found Adam; give the optimizer"),
        (
            lambda: _trainer(
                params=lambda m: [{"params": list(m.trunk.parameters())}, {"params": m.left.parameters()}]
            ),
            r"groups of \[8\] parameters, found groups of \[4, 2\]",
        ),
        (
            lambda: _trainer(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 1)),
            "made with scheduler None, found StepLR",
        ),
    ],
)
def test_another_run(build, message, tmp_path):
    _trainer().fit(loader(), steps=3, checkpoint_dir=tmp_path)
    trainer = build()
    before = fingerprint(trainer)
    with pytest.raises(mtopt.CheckpointError, match=r"checkpoint .*step-0000000003\.pt does not fit: .*" + message):
        trainer.fit(loader(), steps=5, checkpoint_dir=tmp_path)
    assert fingerprint(trainer) == before
    assert trainer.step == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "made with data, and fit was given none; call fit as before"),
        (loader(own_generator=True), r"data that holds the generators \[\], found \['generator'"),
        (list(loader())[:2], "made after 3 batches of epoch 1, and data has only 2 of them now"),
        (Stateful(), "data that lacks state_dict and load_state_dict, unlike the Stateful given"),
    ],
)
def test_other_data(data, message, tmp_path):
    two_losses().fit(loader(), steps=3, checkpoint_dir=tmp_path)
    with pytest.raises(mtopt.CheckpointError, match=message):
        two_losses().fit(data, steps=5, checkpoint_dir=tmp_path)


def test_a_rule_with_other_settings_goes_on_with_a_warning(tmp_path):
    point(mtopt.create_combiner("moco", beta=0.3)).fit(steps=3, checkpoint_dir=tmp_path)
    trainer = point(mtopt.create_combiner("moco", beta=0.4))
    with pytest.warns(CheckpointWarning, match=r"made with MoCo\(beta=0.3\), and training goes on with MoCo\(beta=0.4"):
        trainer.fit(steps=5, checkpoint_dir=tmp_path)
    assert trainer.step == 5
    generator = torch.Generator()  # its repr holds an address
    for _ in range(2):
        trainer = point(mtopt.create_combiner("pcgrad", generator=generator.clone_state()))
        trainer.fit(steps=trainer.step + 2, checkpoint_dir=tmp_path / "other")


def test_something_else_in_the_directory(tmp_path):
    write_checkpoint(CheckpointFolder(tmp_path).path(3), {"weights": torch.ones(2)})
    with pytest.raises(mtopt.CheckpointError, match="not the state of a trainer: it lacks"):
        point().fit(steps=5, checkpoint_dir=tmp_path)


def test_state_that_cannot_be_saved_is_known_before_the_first_step(tmp_path):
    class Holder(mtopt.training.Callback):
        def state_dict(self):
            return {"model": object()}

    trainer = point(callbacks=[Holder()])
    with pytest.raises(TypeError, match=r"state_dict\(\)\['callbacks'\]\['Holder 1'\]\['model'\] is a object"):
        trainer.fit(steps=5, checkpoint_dir=tmp_path)
    assert trainer.step == 0


def test_the_trainer_is_what_a_subclass_makes_it():
    assert issubclass(TwoLosses, MultiLossTrainer)
