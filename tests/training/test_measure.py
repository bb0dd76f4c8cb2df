"""Steps that are measured: as another rule's record has it, and without a trace in the training."""

import numpy as np
import pytest
import torch

from mtopt.training import Monitor, SetTrainer
from tests.training.support import Point, PointTrainer, loader, point, two_losses

RULES = ("linear", "rlw", "uw", "famo", "ngdiff", "mgda", "graddrop", "modo", "moco_plus")


def bits(trainer):
    return [parameter.detach().clone() for parameter in trainer.model.state_dict().values()]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("through", ["trainer", "monitor"])
def test_training_goes_on_as_if_nothing_had_been_measured(rule, through, capfd):
    plain = two_losses(rule)
    plain.fit(loader(), steps=7)
    how = {"measure_every": 2} if through == "trainer" else {"callbacks": [Monitor(every=2)]}
    measured = two_losses(rule, **how)
    measured.fit(loader(), steps=7)
    capfd.readouterr()
    assert all(torch.equal(a, b) for a, b in zip(bits(plain), bits(measured), strict=True))
    np.testing.assert_array_equal(plain.history.losses["left"], measured.history.losses["left"])
    seen = np.isfinite(measured.history.cosines["left", "right"])
    assert seen[1::2].all()
    assert (seen == np.isfinite(plain.history.cosines.get(("left", "right"), np.full(7, np.nan))))[::2].all()


def test_a_measured_step_has_what_a_rule_on_gradients_records():
    linear, mgda = (two_losses(rule, dropout=0.0, measure_every=1) for rule in ("linear", "mgda"))
    for trainer in (linear, mgda):
        trainer.fit(loader(), steps=1)
    ours, theirs = linear.history[0], mgda.history[0]
    assert ours.norms == pytest.approx(theirs.norms, rel=1e-5)
    np.testing.assert_allclose(ours.cosines, theirs.cosines, atol=1e-6)
    assert ours.conflicts == theirs.conflicts
    assert mgda.measured.norms == pytest.approx(theirs.norms, rel=1e-5)


def test_accumulated_batches_tell_the_noise():
    trainer = two_losses("linear", measure_every=1, accumulate=3)
    trainer.fit(loader(), steps=1)
    assert trainer.measured.batches == 3
    assert trainer.measured.noise is not None


def test_a_step_that_cannot_be_measured_is_none():
    class Sometimes(PointTrainer):
        def losses(self, batch):
            first, second = super().losses(batch)
            return [first, second if self.step % 2 else None]

    model = Point()
    trainer = Sometimes(model, torch.optim.SGD(model.parameters(), lr=0.01), "linear", measure_every=1)
    trainer.fit(steps=4)
    assert [record.cosines is None for record in trainer.history] == [True, False, True, False]


def test_skipped_steps_are_not_measured():
    class Broken(PointTrainer):
        def losses(self, batch):
            return [loss * float("nan") for loss in super().losses(batch)]

    model = Point()
    trainer = Broken(model, torch.optim.SGD(model.parameters(), lr=0.01), "linear", measure_every=1)
    trainer.fit(steps=2)
    assert trainer.history.skipped == 2
    assert trainer.measure(None) is None


def test_what_is_measured_survives_a_checkpoint_and_is_drawn(tmp_path):
    trainer = two_losses("linear", measure_every=2)
    trainer.fit(loader(), steps=5, checkpoint_dir=tmp_path)
    again = two_losses("linear", measure_every=2)
    again.fit(loader(), steps=5, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(trainer.history.cosines["left", "right"], again.history.cosines["left", "right"])
    labels = [ax.get_ylabel() for ax in trainer.history.plot().axes]
    assert {"cosine of gradients", "gradient norm"} <= set(labels)


def test_a_set_of_models_is_measured():
    class Pair(SetTrainer):
        def member_losses(self, member, batch):
            return {"sum": member.x.sum(), "square": member.x.square().sum()}

    models = torch.nn.ModuleList([Point(), Point()])
    trainer = Pair(models, torch.optim.SGD(models.parameters(), lr=0.01), "linear", measure_every=1)
    trainer.fit(steps=1)
    cosines = trainer.measured.cosines
    assert cosines[0, 2] == 0.0  # losses of one model and of another have nothing in common
    expected = 10 / (2**0.5 * 2 * 13**0.5)
    assert cosines[0, 1] == pytest.approx(expected)


def test_the_monitor_tells_what_it_found(capfd):
    trainer = point("linear", callbacks=[monitor := Monitor(every=2, lines=0)])
    trainer.fit(steps=3)
    lines = capfd.readouterr().err.splitlines()
    assert "cosines" not in lines[0]
    assert "step 2: The gradients of 'loss_0' and 'loss_1'" in lines[1]
    assert "cosines loss_0,loss_1" in lines[1]
    assert "step 2: The gradients" in lines[2]
    assert monitor.diagnosis.batches == 1


@pytest.mark.parametrize("make", [lambda: two_losses("linear", measure_every=0), lambda: Monitor(every=0)])
def test_every_is_a_count(make):
    with pytest.raises(ValueError, match="every must be a positive int"):
        make()


def test_half_precision_is_scaled():
    trainer = two_losses("linear", dropout=0.0, measure_every=1, autocast=torch.bfloat16)
    trainer.fit(loader(), steps=1)
    exact = two_losses("linear", dropout=0.0, measure_every=1)
    exact.fit(loader(), steps=1)
    assert trainer.measured.norms == pytest.approx(exact.measured.norms, rel=0.1)
