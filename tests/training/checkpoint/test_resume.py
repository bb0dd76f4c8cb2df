"""A run that is interrupted and built anew ends as one that was not: the same bits."""

import random

import numpy as np
import pytest
import torch

import mtopt
from mtopt.training import Evaluator
from tests.training.support import (
    Point,
    PointTrainer,
    TwoLosses,
    adam,
    fingerprint,
    interrupted,
    loader,
    same_history,
    sgd,
    two_losses,
)

RULES = mtopt.list_combiners()


@pytest.mark.parametrize(("number", "rule"), list(enumerate(RULES)))
def test_every_rule(number, rule, tmp_path):
    """With momentum, a schedule, dropout, batch norm, evaluations and a shuffling loader, in the middle of epochs."""
    evaluated = loader()

    def build():
        make_optimizer = (sgd, adam)[number % 2]
        return two_losses(rule, make_optimizer=make_optimizer, callbacks=[Evaluator(evaluated, every=4)])

    whole = build()
    whole.fit(loader(), steps=15)
    next_draws = torch.rand(2), np.random.rand(), random.random()  # noqa: NPY002
    resumed = interrupted(build, loader, tmp_path, [3, 11], steps=15)
    assert fingerprint(resumed) == fingerprint(whole)
    assert str(resumed.combiner.state_dict()) == str(whole.combiner.state_dict())
    assert resumed.scheduler.state_dict() == whole.scheduler.state_dict()
    assert next_draws[0].equal(torch.rand(2))
    assert next_draws[1:] == (np.random.rand(), random.random())  # noqa: NPY002
    same_history(resumed, whole)


@pytest.mark.parametrize("rule", ["linear", "ngdiff", "pcgrad", "moco"])  # one of each kind
def test_without_data_and_with_skipped_steps(rule, tmp_path):
    class Poisoned(PointTrainer):
        def losses(self, batch):
            first, second = super().losses(batch)
            noise = torch.randn(())
            return [first * (float("nan") if self.step % 4 == 1 else 1.0), second * noise.exp()]

    def build():
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.7)
        return Poisoned(model, optimizer, rule, scheduler=schedule, seed=1)

    whole = build()
    whole.fit(steps=18)
    resumed = interrupted(build, lambda: None, tmp_path, [1, 2, 6, 9], steps=18)
    assert fingerprint(resumed) == fingerprint(whole)
    assert resumed.history.skipped == whole.history.skipped == 5


@pytest.mark.parametrize("schedule", ["onecycle", "sequential", "lambda"])
def test_schedulers(schedule, tmp_path):
    lr = torch.optim.lr_scheduler

    def build():
        trainer = two_losses("mgda", schedule=False)
        trainer.scheduler = {
            "onecycle": lambda o: lr.OneCycleLR(o, 0.1, total_steps=40),
            "sequential": lambda o: lr.SequentialLR(o, [lr.LinearLR(o), lr.ExponentialLR(o, 0.9)], [5]),
            "lambda": lambda o: lr.LambdaLR(o, lambda step: 1 / (1 + step)),
        }[schedule](trainer.optimizer)
        return trainer

    whole = build()
    whole.fit(loader(), steps=15)
    resumed = interrupted(build, loader, tmp_path, [4, 9], steps=15)
    assert fingerprint(resumed) == fingerprint(whole)


def test_save_and_load_by_hand(tmp_path):
    whole, first = two_losses("moco"), two_losses("moco")
    whole.fit(loader(), steps=14)
    first.fit(loader(), steps=9)
    first.save(tmp_path / "here.pt")
    second = two_losses("moco")
    second.load(tmp_path / "here.pt")
    assert (second.step, second.epoch) == (9, 1)
    second.save(tmp_path / "again.pt")  # before any step: still the same place
    third = two_losses("moco")
    third.load(tmp_path / "again.pt")
    third.fit(loader(), steps=14)
    assert fingerprint(third) == fingerprint(whole)


def test_state_of_a_subclass(tmp_path):
    class Counting(TwoLosses):
        seen = 0

        def losses(self, batch):
            self.seen += len(batch[0])
            return super().losses(batch)

        def state_dict(self):
            return {**super().state_dict(), "seen": self.seen}

        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            self.seen = state_dict["seen"]

    def build():
        base = two_losses()
        return Counting(base.model, base.optimizer, "mgda", seed=1)

    assert interrupted(build, loader, tmp_path, [3, 7], steps=12).seen == 88
