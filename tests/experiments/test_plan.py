"""The grid: equal budgets, unseen seeds, keys that tell runs apart."""

from dataclasses import replace

import pytest

import mtopt
from mtopt.experiments import Budget
from mtopt.experiments._plan import TUNING_SEED, final_runs
from tests.experiments.tiny import ParabolasTask, suite, tuning_runs

BUDGET = Budget(steps=10, points=1, trials=6, seeds=3)


@pytest.mark.parametrize("rule", ["linear", "mgda", "pcgrad", "moco", "ngdiff"])
def test_every_rule_tries_the_same_number_of_configurations(rule):
    runs = tuning_runs(suite, suite.tasks[0], rule, BUDGET)
    low, high = ParabolasTask.learning_rates
    assert len({run.key for run in runs}) == BUDGET.trials
    assert all(low <= run.learning_rate <= high for run in runs)
    assert {run.seed for run in runs} == {TUNING_SEED}
    for run in runs:  # what the plan draws, the rule accepts
        mtopt.create_combiner(rule, **run.hyperparameters)


def test_first_trial_is_the_middle_with_the_defaults():
    run = tuning_runs(suite, suite.tasks[0], "moco", BUDGET)[0]
    low, high = ParabolasTask.learning_rates
    assert run.hyperparameters == {}
    assert run.learning_rate == pytest.approx((low * high) ** 0.5, rel=1e-2)


def test_static_scalarization_tunes_its_weights_where_a_run_is_one_training():
    preferences = [
        run.hyperparameters.get("preference") for run in tuning_runs(suite, suite.tasks[0], "linear", BUDGET)
    ]
    assert preferences[0] is None
    assert all(abs(sum(p) - 1) < 1e-6 and min(p) >= 0 for p in preferences[1:])
    several = tuning_runs(suite, suite.tasks[0], "linear", replace(BUDGET, points=4))
    assert all("preference" not in run.hyperparameters for run in several)


def test_seeds_of_the_comparison_are_not_the_tuning_seed():
    best = tuning_runs(suite, suite.tasks[0], "mgda", BUDGET)[2]
    finals = final_runs(best, 3)
    assert [run.seed for run in finals] == [0, 1, 2]
    assert all(run.learning_rate == best.learning_rate for run in finals)
    assert TUNING_SEED not in {run.seed for run in finals}


def test_key_depends_on_the_result_and_not_on_the_stage():
    run = tuning_runs(suite, suite.tasks[0], "mgda", BUDGET)[0]
    assert replace(run, stage="final", trial=9).key == run.key
    for change in ({"seed": 1}, {"learning_rate": 0.5}, {"combiner": "linear"}, {"steps": 11}, {"points": 2}):
        assert replace(run, **change).key != run.key
    other = tuning_runs(suite, suite.tasks[1], "mgda", BUDGET)[0]
    assert other.key != run.key
