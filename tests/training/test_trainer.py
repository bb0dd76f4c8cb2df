"""Training itself: what a step does, where fit ends, what it refuses."""

import numpy as np
import pytest
import torch

import mtopt
from mtopt.training import MultiLossTrainer, ProgressBar
from tests.training.support import (
    Point,
    PointTrainer,
    Probe,
    TwoLosses,
    data_set,
    fingerprint,
    loader,
    point,
    sgd,
    two_losses,
)


@pytest.mark.parametrize("combiner", ["linear", "mgda", "pcgrad", "moco", "ngdiff"])
def test_both_losses_fall(combiner):
    trainer = two_losses(combiner, dropout=0.0)
    history = trainer.fit(loader(), epochs=8)
    assert len(history) == trainer.step == 48
    for values in history.losses.values():
        assert values[-6:].mean() < 0.8 * values[:6].mean()


def test_equals_the_loop_by_hand():
    trainer = two_losses("pcgrad", seed=5)
    trainer.fit(loader(), epochs=2)

    other = two_losses("pcgrad")
    mtopt.training.seed_everything(5)
    rule = mtopt.create_combiner("pcgrad", seed=5)
    for _ in range(2):
        for batch in loader():
            other.optimizer.zero_grad()
            losses = other.losses(batch)
            mtopt.backward(losses, other.model.parameters(), rule, features=other.features)
            other.optimizer.step()
            other.scheduler.step()
    assert fingerprint(trainer) == fingerprint(other)


def test_a_rule_by_name_gets_the_seed_if_it_takes_one():
    assert two_losses("pcgrad", seed=7).combiner.seed == 7
    assert two_losses("pcgrad", seed=None).combiner.seed == 0
    assert isinstance(two_losses("mgda", seed=7).combiner, mtopt.Combiner)
    rule = mtopt.create_combiner("pcgrad", seed=3)
    assert two_losses(rule, seed=7).combiner is rule


def test_features_are_used_and_forgotten():
    trainer = two_losses("mgda")
    record = trainer.fit(loader(), steps=1)[-1]
    assert "features first" in record.plan
    assert trainer.features is None


def test_frozen_parameters_stay_and_get_no_gradient():
    trainer = two_losses("mgda")
    for param in trainer.model.right.parameters():
        param.requires_grad_(False)
    before = [p.detach().clone() for p in trainer.model.right.parameters()]
    trainer.fit(loader(), steps=5)
    for param, old in zip(trainer.model.right.parameters(), before, strict=True):
        assert torch.equal(param, old)
        assert param.grad is None


def test_parameters_that_the_optimizer_does_not_hold_stay():
    trainer = two_losses("mgda")
    model = trainer.model
    only_heads = TwoLosses(model, sgd([*model.left.parameters(), *model.right.parameters()]), "mgda", private="own")
    before = model.trunk[0].weight.detach().clone()
    only_heads.fit(loader(), steps=3)
    assert torch.equal(model.trunk[0].weight, before)
    assert model.trunk[0].weight.grad is None


def test_without_data_and_with_a_box():
    class Boxed(PointTrainer):
        def after_step(self):
            self.model.x.clamp_(min=0.8)

    model = Point()
    trainer = Boxed(model, torch.optim.SGD(model.parameters(), lr=0.1), "linear")
    history = trainer.fit(steps=200)
    assert torch.equal(model.x.detach(), torch.tensor([0.8, 0.8]))
    assert np.isnan(history["epoch"]).all()
    assert history[0].epoch is None


def test_scheduler_steps_once_a_step_and_the_record_has_the_rate_that_was_used():
    trainer = two_losses()
    other = sgd(two_losses().model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(other, T_max=40)
    rates = []
    for _ in range(10):
        rates.append(scheduler.get_last_lr()[0])
        other.step()
        scheduler.step()
    assert trainer.fit(loader(), steps=10).learning_rates.tolist() == rates


class Poisoned(PointTrainer):
    """Its losses are NaN in the steps that are named."""

    bad: tuple[int, ...] = (3,)

    def losses(self, batch):
        first, second = super().losses(batch)
        return [first * float("nan") if self.step + 1 in self.bad else first, second]


@pytest.mark.parametrize("combiner", mtopt.list_combiners())
def test_a_nan_step_is_skipped_and_touches_nothing(combiner):
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    trainer = Poisoned(model, optimizer, combiner, scheduler=scheduler)
    trainer.fit(steps=2)
    before = fingerprint(trainer), str(trainer.combiner.state_dict()), scheduler.get_last_lr()
    record = trainer.fit(steps=3)[-1]
    assert record.skipped
    assert "loss_0" in record.reason
    assert (fingerprint(trainer), str(trainer.combiner.state_dict()), scheduler.get_last_lr()) == before
    history = trainer.fit(steps=6)
    assert trainer.step == len(history) == 6
    assert history.skipped == 1
    assert history["skipped"].tolist() == [0, 0, 1, 0, 0, 0]
    assert np.isnan(history.losses["loss_0"]).tolist() == [False, False, True, False, False, False]
    assert fingerprint(trainer) != before[0]


def test_a_first_step_that_is_skipped_makes_no_warning_of_the_scheduler():
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Poisoned(model, optimizer, "mgda", scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))
    trainer.bad = (1,)
    assert trainer.fit(steps=3).skipped == 1


def test_strict_raises_with_the_name():
    model = Point()
    with pytest.raises(mtopt.NonFiniteError, match="loss_0"):
        Poisoned(model, torch.optim.SGD(model.parameters(), lr=0.1), "mgda", strict=True).fit(steps=5)


def test_tasks_may_come_and_go():
    class Sometimes(PointTrainer):
        def losses(self, batch):
            first, second = super().losses(batch)
            if self.step % 3 == 0:
                return {"a": first, "b": None}
            return {"a": first, "b": second} if self.step % 3 == 1 else {"b": second, "a": first, "c": lambda: second}

    model = Point()
    history = Sometimes(model, torch.optim.SGD(model.parameters(), lr=0.1), "mgda").fit(steps=6)
    assert np.isnan(history.losses["b"]).tolist() == [True, False, False, True, False, False]
    assert np.isnan(history.losses["c"]).tolist() == [True, True, False, True, True, False]
    assert list(history[2].losses) == ["b", "a", "c"]
    assert set(history[0].losses) == {"a"}


# -- where fit ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        ({"steps": 4}, 4, 0),
        ({"steps": 6}, 6, 1),
        ({"epochs": 2}, 12, 2),
        ({"steps": 8, "epochs": 2}, 8, 1),
        ({"steps": 80, "epochs": 2}, 12, 2),
    ],
)
@pytest.mark.parametrize("with_length", [True, False])
def test_limits_are_totals(limits, steps, epochs, with_length):
    class NoLength:
        def __iter__(self):
            return iter(loader())

    data = loader() if with_length else NoLength()
    trainer = two_losses()
    trainer.fit(data, **limits)
    if not with_length and limits.get("steps") == 6:
        epochs = 0  # nothing said that the epoch was over
    assert (trainer.step, trainer.epoch) == (steps, epochs)
    trainer.fit(data, **limits)
    assert (trainer.step, trainer.epoch) == (steps, epochs)


def test_fit_in_pieces_is_fit_at_once():
    whole, pieces = two_losses(), two_losses()
    whole.fit(loader(), steps=17)
    data = loader()
    for steps in (4, 5, 6, 12, 17):
        pieces.fit(data, steps=steps)
    assert fingerprint(whole) == fingerprint(pieces)
    assert whole.history["epoch"].tolist() == pieces.history["epoch"].tolist()


def test_other_data_begins_another_epoch():
    trainer = two_losses()
    trainer.fit(loader(), steps=4)
    history = trainer.fit(loader(), steps=8)
    assert history["epoch"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_length_that_is_too_low_loses_no_batch():
    class TooLow(list):
        def __len__(self):
            return 4

    trainer = two_losses()
    trainer.fit(TooLow(loader()), epochs=2)
    assert trainer.history["epoch"].tolist() == [1] * 6 + [2] * 6


def test_stop_ends_after_the_step():
    class StopsAt3(Probe):
        def on_step_end(self, trainer, record):
            super().on_step_end(trainer, record)
            if record.step == 3:
                trainer.stop()

    trainer = two_losses(callbacks=[StopsAt3()])
    trainer.fit(loader(), epochs=5)
    assert trainer.step == 3
    trainer.fit(loader(), steps=5)  # asked again, it goes on
    assert trainer.step == 5


def test_seed_fixes_the_run_whatever_came_before():
    runs = []
    for seed in (5, 5, 6):
        torch.rand(7)
        trainer = two_losses(seed=seed)
        trainer.fit(loader(), steps=8)
        runs.append(fingerprint(trainer))
    assert runs[0] == runs[1] != runs[2]


def test_train_mode_is_set_and_frozen_modules_keep_theirs():
    trainer = two_losses()
    trainer.model.trunk[1].eval()
    trainer.fit(loader(), steps=1)
    assert not trainer.model.trunk[1].training
    trainer.model.eval()
    trainer.fit(loader(), steps=2)
    assert all(module.training for module in trainer.model.modules())


def test_total_steps():
    trainer = two_losses()
    trainer.fit(loader(), steps=4)
    assert trainer.total_steps == 4
    trainer.fit(loader(), epochs=3)  # the epoch that was left counts as one
    assert trainer.total_steps == trainer.step == 16


# -- wrong use --------------------------------------------------------------------------------------------------


def test_it_is_abstract():
    with pytest.raises(TypeError, match="losses"):
        MultiLossTrainer(Point(), None, "mgda")


class AnyModel(PointTrainer):
    pass


def _sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda m: ([m.x], _sgd(m), "mgda"), TypeError, "model must be a torch.nn.Module, found list"),
        (lambda m: (m, torch.optim.SGD, "mgda"), TypeError, r"optimizer must be .* create one"),
        (lambda m: (m, _sgd(Point()), "mgda"), ValueError, "none of the model's parameters"),
        (lambda m: (m, _sgd(m), "mgdb"), mtopt.UnknownNameError, "did you mean 'mgda'"),
        (lambda m: (m, _sgd(m), 3), TypeError, "combiner must be a Combiner or the name of one, found 3"),
        (lambda m: (m, _sgd(m), type(mtopt.create_combiner("mgda"))), TypeError, r"create one: MGDA\(\)"),
    ],
)
def test_wrong_parts(arguments, error, message):
    with pytest.raises(error, match=message):
        AnyModel(*arguments(Point()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (lambda o: {"callbacks": [ProgressBar]}, TypeError, r"create one: ProgressBar\(\)"),
        (lambda o: {"callbacks": [print]}, TypeError, "callbacks must hold Callback objects"),
        (lambda o: {"scheduler": 0.9}, TypeError, "scheduler must be .* found float"),
        (lambda o: {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(o)}, ValueError, "on_evaluate"),
        (
            lambda o: {"scheduler": torch.optim.lr_scheduler.StepLR(_sgd(Point()), 1)},
            ValueError,
            "rates of another optimizer",
        ),
    ],
)
def test_wrong_options(options, error, message):
    model = Point()
    optimizer = _sgd(model)
    with pytest.raises(error, match=message):
        AnyModel(model, optimizer, "mgda", **options(optimizer))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs steps or epochs"),
        ({"epochs": 2}, "without data there are no epochs"),
        ({"steps": 0}, "steps must be a positive int or None, found 0"),
        ({"steps": 2.0}, "steps must be a positive int or None, found 2.0"),
        ({"steps": 2, "epochs": -1}, "epochs must be a positive int"),
        ({"steps": 2, "checkpoint_every": 1}, "checkpoint_every was given without checkpoint_dir"),
        ({"steps": 2, "checkpoint_every": 0}, "checkpoint_every must be a positive int"),
        ({"steps": 2, "data": []}, "gave no batch in epoch 1"),
    ],
)
def test_wrong_calls_of_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        point().fit(**arguments)


def test_data_that_is_no_iterable():
    with pytest.raises(TypeError, match=r"data must be an iterable of batches, .* found int"):
        point().fit(7, steps=2)


def test_an_iterator_runs_out():
    with pytest.raises(ValueError, match=r"no batch in epoch 2: .* an iterator that is used up"):
        two_losses().fit(iter(list(loader())), steps=20)


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        (lambda x: [x, x.sum()], ValueError, r"loss 'loss_0' must be a scalar, found shape \(2,\)"),
        (lambda x: [x.detach().sum()], ValueError, "has no graph"),
        (lambda x: x.sum(), TypeError, "losses must be a sequence or a mapping"),
        (lambda x: [None, None], ValueError, "holds no loss"),
    ],
)
def test_wrong_losses(losses, error, message):
    class Wrong(PointTrainer):
        def losses(self, batch):
            return losses(self.model.x)

    model = Point()
    with pytest.raises(error, match=message):
        Wrong(model, _sgd(model), "mgda").fit(steps=1)


def test_batches_reach_losses_as_the_data_gave_them():
    seen = []

    class Seeing(PointTrainer):
        def losses(self, batch):
            seen.append(batch)
            return super().losses(batch)

    model = Point()
    Seeing(model, _sgd(model), "mgda").fit([{"a": 1}, "two"], epochs=2)
    assert seen == [{"a": 1}, "two"] * 2
    assert len(data_set()) == 44
