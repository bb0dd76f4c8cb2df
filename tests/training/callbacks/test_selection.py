"""The best checkpoint, early stopping, the average of the weights."""

import copy
import math

import pytest
import torch

import mtopt
from mtopt.training import BestCheckpoint, Callback, EarlyStopping, Evaluator, WeightAverage
from tests.training.support import PointTrainer, fingerprint, interrupted, loader, point, two_losses


class Scripted(Callback):
    """Gives the evaluations of ``validation`` after each step: made up, but never more than there are."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_step_end(self, trainer, record):
        values = {"score": self.values[record.step - 1]}
        for callback in trainer.callbacks:
            callback.on_evaluate(trainer, "validation", values)
            callback.on_evaluate(trainer, "other", {"score": -100.0 * record.step})


@pytest.mark.parametrize(("mode", "step"), [("min", 4), ("max", 3)])
def test_the_best_evaluation_is_kept(mode, step, tmp_path):
    best = BestCheckpoint("validation", "score", mode, path=tmp_path / "best.pt")
    trainer = point(callbacks=[Scripted(math.nan, 2.0, 7.0, 1.0, 7.0, 1.0), best])
    trainer.fit(steps=6)
    assert (best.step, best.best) == (step, {"min": 1.0, "max": 7.0}[mode])
    expected = point()
    expected.fit(steps=step)
    trainer.load(best.path)
    assert trainer.step == step
    assert torch.equal(trainer.model.x, expected.model.x)


def test_the_best_of_a_real_evaluation_lies_beside_the_checkpoints(tmp_path):
    def build():
        return two_losses(callbacks=[Evaluator(loader(), every=2), BestCheckpoint("validation", "right")])

    whole = build()
    whole.fit(loader(), steps=14, checkpoint_dir=tmp_path / "whole")
    steps, values = whole.history.evaluations("validation")
    best = whole.callbacks[1]
    assert best.path == tmp_path / "whole" / "best.pt"
    assert (best.best, best.step) == (values["right"].min(), steps[values["right"].argmin()])
    resumed = interrupted(build, loader, tmp_path / "cut", [3, 9], steps=14)
    assert resumed.callbacks[1].state_dict() == best.state_dict()
    loaded = []
    for directory in ("whole", "cut"):
        trainer = build()
        trainer.load(tmp_path / directory / "best.pt")
        assert trainer.evaluate(loader())["right"] == pytest.approx(best.best, rel=1e-4)  # in another order
        loaded.append(fingerprint(trainer))
    assert loaded[0] == loaded[1]


def test_nowhere_to_write_and_nothing_to_look_at(tmp_path):
    with pytest.raises(ValueError, match="nowhere to write: give it path="):
        point(callbacks=[BestCheckpoint("validation", "score")]).fit(steps=1)
    with pytest.raises(ValueError, match="mode must be 'min' or 'max', found 'most'"):
        BestCheckpoint("validation", "score", "most")
    for callback in (BestCheckpoint("validation", "scor", path=tmp_path / "b"), EarlyStopping("validation", "scor")):
        with pytest.raises(mtopt.UnknownNameError, match="unknown metric 'scor': did you mean 'score'"):
            point(callbacks=[Scripted(1.0), callback]).fit(steps=1)


@pytest.mark.parametrize(
    ("options", "values", "stops"),
    [
        ({"patience": 2}, [5.0, 4.0, 4.0, 3.0, 3.0, 3.5, 0.0], 6),
        ({"patience": 2, "mode": "max"}, [5.0, 4.0, 4.0, 9.0], 3),
        ({"patience": 1, "min_delta": 0.5}, [5.0, 4.0, 3.6, 1.0], 3),
        ({"patience": 3, "min_delta": 0.5}, [5.0, 4.8, 4.6, 4.4, 4.2, 4.0], 6),  # 4.4 is 0.6 below 5
        ({"patience": 2}, [math.nan, 5.0, math.nan, math.nan, 0.0], 4),
    ],
)
def test_early_stopping(options, values, stops):
    trainer = point(callbacks=[Scripted(*values), EarlyStopping("validation", "score", **options)])
    trainer.fit(steps=len(values))
    assert trainer.step == stops


def test_a_run_that_stopped_early_stays_stopped_and_one_that_did_not_remembers(tmp_path):
    values = [5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5]

    def build(patience):
        return point(callbacks=[Scripted(*values), EarlyStopping("validation", "score", patience=patience)])

    build(3).fit(steps=4, checkpoint_dir=tmp_path)  # two of three are gone
    for _ in range(2):
        trainer = build(3)
        trainer.fit(steps=8, checkpoint_dir=tmp_path)
        assert trainer.step == 5
    patient = build(5)
    patient.fit(steps=8, checkpoint_dir=tmp_path)
    assert patient.step == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be a positive int"),
        ({"patience": None}, "patience must be a positive int, found None"),
        ({"min_delta": -1.0}, "min_delta must be non-negative, found -1.0"),
        ({"mode": "up"}, "mode must be"),
    ],
)
def test_wrong_patience(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping("validation", "score", **options)


# -- averages ---------------------------------------------------------------------------------------------------


class Noisy(PointTrainer):
    """Skips its third step."""

    def losses(self, batch):
        first, second = super().losses(batch)
        return [first * (math.nan if self.step == 2 else 1.0), second]


def test_the_average_is_that_of_a_loop_of_ones_own():
    average = WeightAverage(0.8)
    base = point()
    seen = []

    class Notes(Callback):
        def on_step_end(self, trainer, record):
            if not record.skipped:
                seen.append(trainer.model.x.detach().double().clone())

    trainer = Noisy(base.model, base.optimizer, "mgda", callbacks=[average, Notes()])
    trainer.fit(steps=8)
    assert len(seen) == 7
    expected = seen[0]
    for x in seen[1:]:
        expected = 0.8 * expected + 0.2 * x
    averaged = point().model
    average.copy_to(averaged)
    torch.testing.assert_close(averaged.x.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_the_averaged_weights_are_evaluated_and_kept_and_the_training_knows_nothing_of_it(tmp_path):
    def build():
        average = WeightAverage(0.9)
        callbacks = [average, Evaluator(loader(), every=3, split="averaged", average=average)]
        return two_losses(callbacks=[*callbacks, BestCheckpoint("averaged", "left")])

    plain, whole = two_losses(), build()
    plain.fit(loader(), steps=14)
    whole.fit(loader(), steps=14, checkpoint_dir=tmp_path / "whole", checkpoint_every=5)
    assert fingerprint(plain) == fingerprint(whole)

    best = whole.callbacks[2]
    trainer = build()
    trainer.load(best.path)
    assert trainer.evaluate(loader())["left"] == pytest.approx(best.best, rel=1e-4)  # in another order
    raw = two_losses()
    raw.fit(loader(), steps=best.step)
    assert raw.evaluate(loader())["left"] != pytest.approx(best.best, rel=1e-2)

    resumed = interrupted(build, loader, tmp_path / "cut", [4, 7], steps=14)
    assert fingerprint(resumed) == fingerprint(whole)
    assert str(resumed.callbacks[0].state_dict()) == str(whole.callbacks[0].state_dict())
    assert resumed.callbacks[2].state_dict() == best.state_dict()


def test_applied_gives_the_own_weights_back_whatever_happens():
    average = WeightAverage(0.5)
    trainer = two_losses(callbacks=[average])
    trainer.fit(loader(), steps=4)
    own = copy.deepcopy(trainer.model.state_dict())

    def fails():
        with average.applied(trainer):
            assert not torch.equal(trainer.model.left.weight, own["left.weight"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert all(torch.equal(value, own[name]) for name, value in trainer.model.state_dict().items())


def test_an_average_can_be_loaded_before_there_is_a_fit(tmp_path):
    trained = two_losses(callbacks=[WeightAverage(0.9)])
    trained.fit(loader(), steps=5)
    trained.save(tmp_path / "a.pt")
    loaded = two_losses(callbacks=[WeightAverage(0.9)])
    loaded.load(tmp_path / "a.pt")
    loaded.save(tmp_path / "b.pt")
    again = two_losses(callbacks=[WeightAverage(0.9)])
    again.load(tmp_path / "b.pt")
    expected, found = (two_losses().model for _ in range(2))
    trained.callbacks[0].copy_to(expected)
    again.callbacks[0].copy_to(found)
    assert str(expected.state_dict()) == str(found.state_dict())


class Counting(torch.nn.Module):
    """A point among buffers of all kinds."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
        self.register_buffer("positions", torch.arange(512))
        self.register_buffer("seen", torch.zeros(4, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("hidden", torch.zeros((), dtype=torch.int32), persistent=False)
        self.extra = 0

    def get_extra_state(self):
        return {"extra": self.extra}

    def set_extra_state(self, state):
        self.extra = state["extra"]

    def move(self):
        self.steps += 1
        self.hidden += 1
        self.extra += 1
        self.seen[int(self.steps) % 4] = True
        self.running.copy_(self.x.detach())


class CountingTrainer(PointTrainer):
    def after_step(self):
        self.model.move()


def test_what_is_no_floating_point_number_is_taken_over_and_not_averaged(tmp_path):
    average = WeightAverage(0.9)
    best = BestCheckpoint("averaged", "loss_0", path=tmp_path / "best.pt")
    callbacks = [average, Evaluator(None, every=3, split="averaged", average=average), best]
    model = Counting()
    trainer = CountingTrainer(model, torch.optim.SGD(model.parameters(), lr=0.05), "mgda", callbacks=callbacks)
    trainer.fit(steps=3)
    assert best.step == 3
    loaded, copied = Counting(), Counting()
    loaded.load_state_dict(mtopt.training.read_checkpoint(best.path)["model"])
    average.copy_to(copied)
    with average.applied(trainer):
        within = copy.deepcopy(model)
    for found in (loaded, copied, within):
        assert torch.equal(found.positions, torch.arange(512))
        assert found.seen.tolist() == [False, True, True, True]
        assert int(found.steps) == found.extra == 3
        assert found.mask.tolist() == [0.0, -math.inf]
        assert torch.equal(found.running, found.x)  # copies of one path have one average
        assert not torch.equal(found.x, model.x)
    assert int(copied.hidden) == int(within.hidden) == int(model.hidden) == 3


def test_the_batches_that_a_norm_has_tracked_are_those_of_the_training():
    average = WeightAverage(0.9)
    trainer = two_losses(callbacks=[average])
    trainer.fit(loader(), steps=7)
    averaged = two_losses().model
    average.copy_to(averaged)
    assert int(averaged.trunk[1].num_batches_tracked) == 7


def test_applied_gives_back_buffers_that_no_state_dict_holds():
    average = WeightAverage(0.9)
    model = Counting()
    trainer = CountingTrainer(model, torch.optim.SGD(model.parameters(), lr=0.05), "mgda", callbacks=[average])
    trainer.fit(steps=2)
    model.hidden += 5
    with average.applied(trainer):
        assert int(model.hidden) == 2
    assert int(model.hidden) == 7


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_wrong_decay(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        WeightAverage(decay)
