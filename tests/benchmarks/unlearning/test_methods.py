"""The published methods as recipes: each one trains, and is what its recipe says."""

import pytest
import torch

import mtopt
from benchmarks.unlearning import losses
from benchmarks.unlearning.methods import METHODS, Recipe, create_trainer
from benchmarks.unlearning.trainer import FORGET_LOSSES, RETAIN_LOSSES
from tests.benchmarks.unlearning.steps import adam, batches, flat, model_of
from tests.benchmarks.unlearning.tiny import PAD, rows_of


@pytest.mark.parametrize("name", METHODS)
def test_every_method_steps(name):
    model = model_of(0)
    before = flat(model)
    recipe = METHODS[name]
    probes = None
    if recipe.automatic_rate is not None:
        probes = recipe.automatic_rate.probe_batches(rows_of(5, 6), batch_size=3, pad_id=PAD)
    trainer = create_trainer(name, model, adam(model), steps_per_epoch=3, probe_batches=probes, seed=0)
    history = trainer.fit(batches(), steps=2)
    assert not any(record.skipped for record in history)
    assert not torch.equal(flat(model), before)
    assert list(history[0].losses) == (["forget"] if recipe.retain is None else ["retain", "forget"])


def test_a_method_under_another_rule():
    model = model_of(0)
    trainer = create_trainer("simnpo", model, adam(model), combiner="mgda", forget_options={"delta": 1.0})
    batch = next(iter(batches()))
    record = trainer.training_step(batch)
    assert type(trainer.combiner).__name__ == "MGDA"
    expected = losses.simnpo(model_of(0), batch["forget"], beta=4.5, delta=1.0)
    assert record.losses["forget"] == pytest.approx(expected.item(), rel=1e-5)


def test_recipes_are_plain_data():
    for name, recipe in METHODS.items():
        assert isinstance(recipe, Recipe), name
        assert recipe.forget in FORGET_LOSSES
        assert recipe.retain is None or recipe.retain in RETAIN_LOSSES
        assert recipe.rule == "primal_dual" or recipe.rule in mtopt.list_combiners()
