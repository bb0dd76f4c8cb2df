"""Delta_m against the NYUv2 row that papers print, and by hand."""

import numpy as np
import pytest
import torch

from mtopt.pareto import delta_m, mean_rank

# mIoU, pixel accuracy | absolute, relative error | angle mean, median, within 11.25, 22.5, 30 degrees
NYUV2_SINGLE_TASK = [38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15]
NYUV2_EQUAL_WEIGHTS = [39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08]
NYUV2_HIGHER_IS_BETTER = [True, True, False, False, False, False, True, True, True]
NYUV2_TASKS = ["segmentation"] * 2 + ["depth"] * 2 + ["normals"] * 5


def test_the_printed_numbers_of_equal_weights_on_nyuv2():
    arguments = (NYUV2_EQUAL_WEIGHTS, NYUV2_SINGLE_TASK, NYUV2_HIGHER_IS_BETTER)
    assert round(delta_m(*arguments), 2) == 5.59
    assert round(delta_m(*arguments, average="task", tasks=NYUV2_TASKS), 1) == -0.9


def test_signs():
    assert delta_m([0.9], [1.0], [False]) == pytest.approx(-10)
    assert delta_m([0.9], [1.0], [True]) == pytest.approx(10)
    assert delta_m([-1.1], [-1.0], [True]) == pytest.approx(10)


def test_equal_to_the_baselines_is_zero_and_inputs_may_be_tensors():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert delta_m(values, values.numpy(), [True, False, True]) == 0
    assert delta_m([torch.tensor(1.5)], torch.tensor([1.0]), np.array([False])) == pytest.approx(50)


def test_average_over_tasks_takes_labels_in_any_order():
    assert delta_m([2, 1, 3], [1, 1, 1], [False] * 3, "task", [7, "b", 7]) == pytest.approx(100 * (1.5 + 0) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1], [True, True]), r"baselines must have shape \(2,\)"),
        (([], [], []), r"values must have shape \(M,\) with M >= 1"),
        (([[1.0]], [[1.0]], [[True]]), r"values must have shape \(M,\)"),
        (([1, 2], [1, 0], [True, True]), r"baselines must not be zero \(entry 1 is\)"),
        (([1, np.nan], [1, 1], [True, True]), "values must be finite"),
        (([1, 2], [1, 1], [True]), "higher_is_better must be 2 booleans"),
        (([1, 2], [1, 1], [1, 0]), "higher_is_better must be 2 booleans"),
        (([1, 2], [1, 1], [True, True], "mean"), "average must be 'metric' or 'task', found 'mean'"),
        (([1, 2], [1, 1], [True, True], "task"), "tasks must name the task of each of the 2 metrics, found None"),
        (([1, 2], [1, 1], [True, True], "task", ["a"]), "found 1 entries"),
        (([1, 2], [1, 1], [True, True], "metric", ["a", "b"]), "tasks is used by average='task' only"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        delta_m(*arguments)


def test_mean_rank_by_hand():
    # accuracy (higher), error (lower), time (lower)
    table = [[0.9, 0.2, 3.0], [0.8, 0.1, 3.0], [0.9, 0.3, 1.0]]
    ranks = mean_rank(table, [True, False, False])
    assert ranks.tolist() == pytest.approx([(1.5 + 2 + 2.5) / 3, (3 + 1 + 2.5) / 3, (1.5 + 3 + 1) / 3])


def test_mean_rank_properties():
    values = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    directions = [True, False, True, False]
    ranks = mean_rank(values, directions)
    assert ranks.mean() == pytest.approx(3.5)  # the ranks of a metric are 1 .. 6
    # only the order counts
    np.testing.assert_allclose(mean_rank(values.double() ** 3, directions), ranks)
    np.testing.assert_allclose(mean_rank(-values, [not each for each in directions]), ranks)


def test_a_failed_run_ranks_last():
    assert mean_rank([[np.nan, 1.0], [5.0, 2.0], [3.0, np.nan]], [False, False]).tolist() == [2, 2, 2]
    assert mean_rank([[np.nan], [5.0]], [True]).tolist() == [2, 1]


def test_wrong_tables_are_named():
    with pytest.raises(ValueError, match=r"values must have shape \(methods, M\)"):
        mean_rank([1.0, 2.0], [True, False])
    with pytest.raises(ValueError, match="higher_is_better must be 2 booleans"):
        mean_rank([[1.0, 2.0]], [True])
