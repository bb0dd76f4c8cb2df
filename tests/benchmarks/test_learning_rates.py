"""The script on learning rates: a run of each kind, the table's choice of a rate, the figure."""

from benchmarks.multitask import learning_rates
from benchmarks.multitask.learning_rates import GRID, SEEDS, STARTS, Run, draw, table, train


def test_a_run_of_each_kind():
    constant, automatic = train(False, 1e-5, 0, 3), train(True, 1e-5, 0, 3)
    assert constant.last_rate == 1e-5
    assert automatic.last_rate > 1e-3
    assert automatic.loss < constant.loss
    assert 0 <= constant.test <= 100
    assert learning_rates.PROBED * 6 == 6000


def test_the_rate_is_chosen_on_validation_and_judged_on_test(tmp_path):
    def run(automatic, start, seed):
        validation = 90.0 if start == 3e-3 else 80.0
        test = 75.0 + seed if automatic else 85.0 if start == 1e-2 else 70.0 + seed
        return Run(automatic, start, seed, validation, test, 0.5, 1e-3)

    runs = [run(False, start, seed) for start in GRID for seed in SEEDS]
    runs += [run(True, start, seed) for start in STARTS for seed in SEEDS]
    printed = table(runs)
    assert "| tuned: 3e-03 | 71.00 ± 1.00 | | |" in printed
    assert "| 1e-02 | 85.00 ± 0.00 | 76.00 ± 1.00 | 1.0e-03 |" in printed
    assert printed.endswith("+5.00 points.")
    assert draw(runs, tmp_path).stat().st_size > 10_000
