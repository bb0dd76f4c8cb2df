"""Hooks: their order, their state, and the callbacks that come with the package."""

import pytest
import torch

from mtopt.training import Callback, CheckpointWarning, Evaluator, ProgressBar
from tests.training.support import Probe, loader, point, two_losses


def test_order_of_the_hooks():
    notes = []
    callbacks = [Probe("1 ", notes), Evaluator(loader(), every=4, split="test"), Probe("2 ", notes)]
    two_losses(callbacks=callbacks).fit(loader(), steps=7)
    both = [f"{name} {hook}" for hook in ("start 0", "step 1", "step 2", "step 3") for name in (1, 2)]
    # the evaluation comes within the second callback's hook, and all are told
    both += ["1 step 4", "1 evaluate test ['left', 'right']", "2 evaluate test ['left', 'right']", "2 step 4"]
    both += [f"{name} {hook}" for hook in ("step 5", "step 6", "epoch 1", "step 7", "end 7") for name in (1, 2)]
    assert notes == both


def test_all_started_are_told_of_the_end_whatever_happens():
    notes = []

    class Fails(Probe):
        def on_step_end(self, trainer, record):
            raise KeyboardInterrupt

        def on_fit_end(self, trainer):
            super().on_fit_end(trainer)
            raise RuntimeError("a callback that fails at the end, too")

    class NeverStarts(Probe):
        def on_fit_start(self, trainer):
            raise OSError("no")

    with pytest.raises(RuntimeError, match="at the end, too"):
        point(callbacks=[Probe("1 ", notes), Fails("2 ", notes), Probe("3 ", notes)]).fit(steps=5)
    assert notes[-3:] == ["1 end 1", "2 end 1", "3 end 1"]

    notes.clear()
    with pytest.raises(OSError, match="no"):
        point(callbacks=[Probe("1 ", notes), NeverStarts("2 ", notes), Probe("3 ", notes)]).fit(steps=5)
    assert notes == ["1 start 0", "1 end 0", "2 end 0"]


def test_epochs_end_with_their_last_step_whatever_fit_is_told():
    for limits in ({"steps": 12}, {"epochs": 2}):
        probe = Probe()
        two_losses(callbacks=[probe]).fit(loader(), **limits)
        assert [note for note in probe.notes if note.startswith("epoch")] == ["epoch 1", "epoch 2"]
        assert probe.notes[-3:] == ["step 12", "epoch 2", "end 12"]


def test_evaluator_at_the_end_of_each_epoch():
    trainer = two_losses(callbacks=[Evaluator(loader())])
    history = trainer.fit(loader(), steps=15)
    assert history.splits == ["validation"]
    assert history.evaluations("validation")[0].tolist() == [6, 12]


def test_evaluating_changes_nothing():
    plain, watched = two_losses(), two_losses(callbacks=[Evaluator(loader(), every=2)])
    plain.fit(loader(), steps=9)
    watched.fit(loader(), steps=9)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert a.equal(b)


def test_evaluator_refuses_a_wrong_interval():
    with pytest.raises(ValueError, match="every must be a positive int or None, found 0"):
        Evaluator(None, every=0)


class Best(Callback):
    """Remembers the lowest first loss and stops when it has not fallen for a while."""

    def __init__(self):
        self.lowest = float("inf")

    def on_step_end(self, trainer, record):
        self.lowest = min(self.lowest, record.losses["loss_0"])

    def state_dict(self):
        return {"lowest": self.lowest}

    def load_state_dict(self, state_dict):
        self.lowest = state_dict["lowest"]


def test_state_of_callbacks_resumes_among_others_that_come_and_go(tmp_path):
    first = [Best(), Best()]
    point(callbacks=first).fit(steps=5, checkpoint_dir=tmp_path)
    first[1].lowest = -1.0
    callbacks = [Probe(), Best(), ProgressBar(), Best()]
    trainer = point(callbacks=callbacks)
    trainer.fit(steps=5, checkpoint_dir=tmp_path)
    assert trainer.step == 5
    assert callbacks[1].lowest == callbacks[3].lowest == first[0].lowest


def test_a_state_without_its_callback_is_dropped_with_a_warning(tmp_path):
    point(callbacks=[Best(), Best()]).fit(steps=5, checkpoint_dir=tmp_path)
    with pytest.warns(CheckpointWarning, match="'Best 2', which is not among the callbacks"):
        point(callbacks=[Best()]).fit(steps=6, checkpoint_dir=tmp_path)


def test_progress_bar_is_silent_where_there_is_no_terminal(capfd):
    point(callbacks=[ProgressBar()]).fit(steps=5)
    assert capfd.readouterr() == ("", "")


def test_progress_bar_shows_losses_steps_and_skips(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    class SevenLosses(type(point())):
        def losses(self, batch):
            first, second = super().losses(batch)
            return [first * (float("nan") if self.step == 1 else 1.0), *[second] * 6]

    trainer = two_losses(callbacks=[ProgressBar(force=True)])
    trainer.fit(loader(), steps=8)
    shown = capfd.readouterr().err
    assert "epoch 2" in shown
    assert "8/8" in shown
    assert f"left {trainer.history[-1].losses['left']:.4g}" in shown.replace("\n", " ")

    model = point().model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    SevenLosses(model, optimizer, "linear", callbacks=[ProgressBar(force=True)]).fit(steps=3)
    shown = " ".join(capfd.readouterr().err.split())
    assert "and 1 more" in shown
    assert "(1 skipped)" in shown
