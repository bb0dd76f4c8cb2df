"""Warnings of what goes wrong without an error: once each, and never where nothing does."""

import warnings

import pytest
import torch

import mtopt
from mtopt.diagnosis import StarvationWarning, Watch
from tests.training.support import Point, PointTrainer


def record(weights, norms, **others):
    names = [f"loss {k}" for k in range(len(weights))]
    return mtopt.StepRecord(
        losses=dict.fromkeys(names, 1.0),
        weights=dict(zip(names, weights, strict=True)),
        norms=None if norms is None else dict(zip(names, norms, strict=True)),
        **others,
    )


def test_it_names_the_line_that_asked():
    with pytest.warns(UserWarning, match="skipped") as found:
        Watch(skips=1).see(record([1.0], [1.0], skipped=True))
    assert found[0].filename == __file__


def told(watch, records):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for one in records:
            watch.see(one)
    return [str(warning.message) for warning in found]


def test_a_loss_that_starves_is_told_once_after_so_many_steps_in_a_row():
    starving, fed = record([1.0, 1e-4], [1.0, 1.0]), record([1.0, 1.0], [1.0, 1.0])
    assert told(Watch(steps=5), [starving] * 4 + [fed] + [starving] * 4) == []
    (message,) = told(Watch(steps=5), [starving] * 20)
    assert "'loss 1' had less than 0.001 of each of the last 5 steps" in message


def test_the_share_counts_and_not_the_weight():
    # weights of one over the norm: a thousandth of the weight, and half of the step
    assert told(Watch(steps=2), [record([1e-4, 1.0], [1e4, 1.0])] * 10) == []
    assert "'loss 0'" in told(Watch(steps=2), [record([1.0, 1.0], [1.0, 1e4])] * 10)[0]


def test_steps_without_norms_tell_nothing():
    starving, unknown = record([1.0, 0.0], [1.0, 1.0]), record([1.0, 0.0], None)
    assert told(Watch(steps=5), [unknown] * 50) == []
    assert len(told(Watch(steps=5), [starving, unknown] * 5)) == 1


def test_losses_may_starve_on_purpose():
    assert told(Watch(steps=5, shares=False), [record([1.0, 0.0], [1.0, 1.0])] * 50) == []


def test_skips_in_a_row():
    skip, done = record([1.0], [1.0], skipped=True, reason="it is NaN"), record([1.0], [1.0])
    assert told(Watch(skips=3), [skip, skip, done] * 5) == []
    (message,) = told(Watch(skips=3), [skip] * 10)
    assert "the last 3 steps were all skipped" in message
    assert "it is NaN" in message


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"skips": 0}])
def test_its_arguments_are_checked(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        Watch(**arguments)


class Divergence(mtopt.MultiLossTrainer):
    """A task beside the divergence from the model as it was: zero at first, but for rounding."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.before = self.model(self.x).log_softmax(1).double().float()

    def losses(self, batch):
        now = self.model(self.x)
        task = torch.nn.functional.cross_entropy(now, torch.arange(64) % 5)
        return {"task": task, "kl": torch.nn.functional.kl_div(now.log_softmax(1), self.before.exp(), reduction="sum")}


def test_ngdiff_on_a_divergence_of_zero_is_told_on_the_first_step():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # a task with gradients that are large
    trainer = Divergence(model, torch.optim.SGD(model.parameters(), lr=1e-3), "ngdiff")
    with pytest.warns(StarvationWarning, match="gradient of loss 'kl' has norm .* no more than rounding") as found:
        trainer.fit(steps=1)
    record = trainer.history[0]
    assert 0 < record.norms["kl"] < 4e-6 * record.norms["task"]
    assert record.weights["kl"] > 1e4
    assert found[0].filename == __file__


def test_without_a_gradient_of_rounding_nothing_is_told():
    point = Point()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PointTrainer(point, torch.optim.SGD(point.parameters(), lr=0.01), "ngdiff").fit(steps=5)


class Uneven(PointTrainer):
    """The first gradient is inside the hull's shortest vector always: MGDA gives the second no weight."""

    def losses(self, batch):
        return {"near": self.model.x[0] * 1.0, "far": self.model.x[0] * 10.0 + self.model.x[1]}


def uneven(rule, **options):
    point = Point()
    return Uneven(point, torch.optim.SGD(point.parameters(), lr=1e-3), rule, **options)


def test_a_trainer_tells_of_a_loss_that_its_rule_starves():
    with pytest.warns(StarvationWarning, match="loss 'far' had less than 0.001") as found:
        uneven("mgda").fit(steps=120)
    assert len(found) == 1


@pytest.mark.parametrize(
    "rule",
    [
        mtopt.create_combiner("linear", preference=[1.0, 0.0]),
        mtopt.Every(mtopt.create_combiner("linear", preference=[1.0, 0.0]), 2),
        mtopt.create_combiner("gem"),
    ],
)
def test_a_trainer_says_nothing_where_a_loss_is_to_get_nothing(rule):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uneven(rule, measure_every=1).fit(steps=120)


def test_a_rule_on_losses_is_watched_where_it_is_measured():
    class Scaled(PointTrainer):
        def losses(self, batch):
            return {"small": 1e-5 * self.model.x.sum(), "large": self.model.x.prod()}

    point = Point()
    trainer = Scaled(point, torch.optim.SGD(point.parameters(), lr=1e-4), "linear", measure_every=1)
    with pytest.warns(StarvationWarning, match="'small' had less than"):
        trainer.fit(steps=101)


def test_a_loss_that_comes_to_its_minimum_under_weights_that_sum_to_one_is_not_blown_up():
    watch = Watch()
    near = mtopt.StepRecord(
        losses={"done": 2e-8, "other": 2.0}, weights={"done": 1.0, "other": 1e-2}, norms={"done": 3e-4, "other": 2.8}
    )
    assert told(watch, [near] * 10) == []


def test_of_many_losses_each_has_a_small_share():
    norms = [1.0 + k for k in range(60)]
    assert told(Watch(steps=2), [record([1.0] * 60, norms)] * 10) == []
    (message,) = told(Watch(steps=2), [record([1.0] * 60, [1e-3, *norms[1:]])] * 10)
    assert "'loss 0' had less than 3.3e-05" in message
