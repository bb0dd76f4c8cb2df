"""The synthetic regression against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtopt.problems.synthetic_regression import synthetic_regression


@given(
    st.integers(2, 12),
    st.floats(0.0, 1.0),
    st.floats(1.0, 100.0),
    st.integers(0, 5),
    st.integers(0, 2**31),
)
def test_the_cosines_are_those_asked_for(tasks: int, conflict: float, spread: float, extra: int, seed: int) -> None:
    data = synthetic_regression(
        tasks, conflict, num_inputs=tasks + extra, num_samples=1, spread=spread, seed=seed, dtype=torch.float64
    )
    norms = data.teachers.norm(dim=1)
    torch.testing.assert_close(norms, data.scales)
    torch.testing.assert_close(norms.max() / norms.min(), torch.tensor(spread, dtype=torch.float64))
    cosines = data.teachers @ data.teachers.T / norms / norms[:, None]
    expected = torch.full((tasks, tasks), 1 - conflict * tasks / (tasks - 1), dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-12)


@given(st.integers(2, 9), st.floats(0.0, 1.0), st.floats(1.0, 10.0))
def test_conflict_is_the_share_that_no_common_function_explains(tasks: int, conflict: float, spread: float) -> None:
    data = synthetic_regression(tasks, conflict, num_samples=1, spread=spread, dtype=torch.float64)
    unit = data.teachers / data.scales[:, None]
    least = (unit - unit.mean(0)).square().sum(1).mean()
    assert float(least) == pytest.approx(conflict, abs=1e-12)


def test_full_conflict_adds_up_to_nothing() -> None:
    data = synthetic_regression(5, 1.0, spread=3.0, dtype=torch.float64)
    total = (data.teachers / data.scales[:, None]).sum(0)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)


def test_the_targets_are_the_teachers_answers_and_noise_of_the_size_asked_for() -> None:
    data = synthetic_regression(4, 0.5, num_samples=20_000, spread=10.0, noise=0.3, dtype=torch.float64)
    residuals = (data.targets - data.inputs @ data.teachers.T) / data.scales
    torch.testing.assert_close(residuals.std(0), torch.full((4,), 0.3, dtype=torch.float64), rtol=0.03, atol=0)
    torch.testing.assert_close(residuals.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=0.01)
    clean = synthetic_regression(4, 0.5, noise=0.0, dtype=torch.float64)
    torch.testing.assert_close(clean.targets, clean.inputs @ clean.teachers.T)


def test_the_same_seed_gives_the_same_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, other, third = (synthetic_regression(3, 0.5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.targets, other.targets)
    assert not torch.equal(one.targets, third.targets)
    models = [one.model(seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(models[0](one.inputs)[0], models[1](one.inputs)[0])
    assert not torch.equal(models[0](one.inputs)[0], models[2](one.inputs)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_with_one_head_losses_are_the_mean_squared_errors() -> None:
    data = synthetic_regression(3, 0.2, num_samples=50)
    model = data.model(hidden=8)
    expected = [((model(data.inputs[:10])[k] - data.targets[:10, k]) ** 2).mean() for k in range(3)]
    torch.testing.assert_close(data.losses(model, slice(10)), expected)


def test_losses_are_the_mean_squared_errors_and_each_reaches_its_own_head() -> None:
    data = synthetic_regression(3, 0.2, num_samples=50, dtype=torch.float32)
    model = data.model(hidden=8, depth=1, heads="own")
    rows = torch.arange(10)
    losses = data.losses(model, rows)
    for k, loss in enumerate(losses):
        by_hand = ((model(data.inputs[:10])[k] - data.targets[:10, k]) ** 2).mean()
        torch.testing.assert_close(loss, by_hand)
    found = torch.autograd.grad(losses[1], list(model.heads.parameters()), allow_unused=True)
    assert [gradient is not None for gradient in found] == [False, False, True, True, False, False]


def test_one_head_gives_all_tasks_the_same_answer() -> None:
    """Then the least mean loss is the conflict and the noise: a linear fit, which sees 2,000 draws, is close to it."""
    data = synthetic_regression(4, 0.3, num_samples=2000, noise=0.2, dtype=torch.float64)
    answers = data.model(hidden=8)(data.inputs.float())
    assert len(answers) == 4
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    common = torch.linalg.lstsq(data.inputs, data.targets.mean(1, keepdim=True)).solution
    least = (data.inputs @ common - data.targets).square().mean()
    assert float(least) == pytest.approx(0.3 + 0.2**2, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tasks": 1}, "num_tasks must be at least 2, found 1"),
        ({"conflict": 1.5}, r"conflict must be in \[0, 1\], found 1.5"),
        ({"num_inputs": 2}, "num_inputs must be at least 3, found 2"),
        ({"spread": 0.5}, "spread must be finite and at least 1"),
        ({"noise": -1.0}, "noise must be finite and non-negative"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic_regression(**{"num_tasks": 3, "conflict": 0.5, **arguments})  # type: ignore[arg-type]
