"""The script on models that take the preference: each trains, and its front is judged on both splits."""

import pytest

from benchmarks.multitask import one_model_fronts
from benchmarks.multitask.one_model_fronts import MODELS, train


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_something(name):
    few, more = train(name, 3e-3, 0, 1), train(name, 3e-3, 0, 60)
    assert 0 <= few.test < more.test < 1
    assert 1 <= more.points <= 11
    assert more.parameters > 9_000


def test_the_rate_is_chosen_on_validation(monkeypatch, capsys):
    def found(name, rate, seed, steps):
        tuning = seed == one_model_fronts.TUNING_SEED
        validation = 0.5 if rate == 3e-3 else 0.4
        return one_model_fronts.Found(validation, 0.9 if tuning else 0.1 * seed, 3, 0.2, 1.0, 5)

    monkeypatch.setattr(one_model_fronts, "train", found)
    one_model_fronts.main(["--steps", "1"])
    printed = capsys.readouterr().out
    assert printed.count("| 0.003 | 0.3000 (0.1000 to 0.5000) | 3.0 | 0.200 | 1 |") == len(MODELS)
