"""The automatic rate of NGDiff: one algorithm by its name, and what its parts do."""

import pytest
import torch

import mtopt
from benchmarks.unlearning.automatic_rate import VARIANTS, AutomaticRate
from benchmarks.unlearning.methods import METHODS, create_trainer
from tests.benchmarks.unlearning.steps import batches, flat, model_of
from tests.benchmarks.unlearning.tiny import PAD, rows_of


def test_names_say_what_differs_from_the_papers_reading():
    assert AutomaticRate() == AutomaticRate(every=10, smoothing=0.0, startup=0, fresh=False)
    assert [rate.suffix for rate in VARIANTS] == [
        "",
        "(fresh)",
        "(smoothed)",
        "(fresh, smoothed)",
        "(fresh, smoothed, searched)",
    ]
    for rate in VARIANTS:
        assert METHODS[f"NGDiff+GeN{rate.suffix}"].automatic_rate == rate
    assert METHODS["NGDiff"].automatic_rate is None


def test_the_rate_is_the_lowest_point_of_the_parabola_within_half_and_twice_the_old_one():
    """Measured anew by hand: the retain loss at ``w - eta d``, ``w`` and ``w + eta d`` of the step's own batch."""
    for first in (1e-4, 0.3):
        model = model_of(0, dtype=torch.float64)
        trainer = create_trainer("NGDiff+GeN", model, torch.optim.SGD(model.parameters(), lr=first), seed=0)
        batch = next(iter(batches()))
        before = flat(model).clone()
        trainer.training_step(batch)
        rate = trainer.optimizer.param_groups[0]["lr"]
        direction = (before - flat(model)) / rate

        def retain_loss(eta, model=model, batch=batch, before=before, direction=direction, trainer=trainer):
            torch.nn.utils.vector_to_parameters(before - eta * direction, model.parameters())
            return trainer.loss_values(batch)[mtopt.Objective("retain")]

        minus, zero, plus = retain_loss(-first), retain_loss(0.0), retain_loss(first)
        curvature = plus - 2.0 * zero + minus
        expected = first
        if minus > plus and curvature > 0:
            expected = min(max(first / 2.0 * (minus - plus) / curvature, first / 2.0), 2.0 * first)
        assert rate == pytest.approx(expected, rel=1e-6)


def test_probes_come_every_ten_steps():
    model = model_of(0)
    trainer = create_trainer("NGDiff+GeN", model, torch.optim.SGD(model.parameters(), lr=1e-3), seed=0)
    history = trainer.fit(batches(), steps=12)
    assert [place for place, record in enumerate(history) if record.probe is not None] == [0, 10]


def test_fresh_rows_are_disjoint_batches_of_the_steps_size():
    rows = rows_of(3, 11)
    fresh = AutomaticRate(fresh=True)
    probes = fresh.probe_batches(rows, batch_size=4, pad_id=PAD)
    assert [len(probe["retain"]["input_ids"]) for probe in probes] == [4, 4]
    assert len(fresh.probe_batches(rows, batch_size=4, pad_id=PAD, count=1)) == 1
    assert len(fresh.probe_batches(rows, batch_size=99, pad_id=PAD)[0]["retain"]["input_ids"]) == 11
    assert AutomaticRate().probe_batches(rows, batch_size=4, pad_id=PAD) is None


def test_fresh_rows_must_be_given():
    model = model_of(0)
    with pytest.raises(ValueError, match="probe_batches is None"):
        create_trainer("NGDiff+GeN(fresh)", model, torch.optim.SGD(model.parameters(), lr=1e-3))
