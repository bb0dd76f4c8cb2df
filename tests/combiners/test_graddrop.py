"""GradDrop: one sign a coordinate, drawn as the paper says."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mtopt.combiners import Context
from mtopt.combiners.graddrop import GradDrop


def rows(seed: int, count: int, columns: int) -> torch.Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_each_coordinate_keeps_the_sum_of_one_sign(seed, count):
    jacobian = rows(seed, count, 40)
    direction = GradDrop(seed=seed)(jacobian)
    positive, negative = jacobian.clamp(min=0).sum(0), jacobian.clamp(max=0).sum(0)
    up = torch.isclose(direction, positive, rtol=1e-12, atol=0)
    down = torch.isclose(direction, negative, rtol=1e-12, atol=0)
    assert bool((up | down).all())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_share_of_positive_outcomes_is_the_purity(scale):
    columns = 20_000
    jacobian = torch.tensor([[3.0], [-1.0]], dtype=torch.float64).expand(2, columns) * scale
    direction = GradDrop(seed=3)(jacobian)
    up = (direction > 0).double().mean()
    assert abs(float(up) - 0.75) < 4 * (0.75 * 0.25 / columns) ** 0.5
    assert set(direction.unique().tolist()) == {3.0 * scale, -1.0 * scale}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_without_a_conflict_it_is_the_sum(dtype):
    signs = torch.tensor([1.0, -1.0, 0.0]).repeat(100)
    jacobian = (rows(1, 3, 300).abs() * signs).to(dtype)
    expected = jacobian.double().sum(0).to(dtype)
    direction = GradDrop()(jacobian)
    assert direction.dtype == dtype
    torch.testing.assert_close(direction, expected)


def test_even_the_smallest_number_is_kept_without_a_conflict():
    jacobian = torch.full((1, 100_000), 1e-45)
    assert bool((GradDrop()(jacobian) == jacobian[0]).all())


def test_leak_passes_that_share_through():
    jacobian = rows(2, 3, 500)
    torch.testing.assert_close(GradDrop(leak=1.0)(jacobian), jacobian.sum(0))
    dropped, total = GradDrop(seed=5)(jacobian), jacobian.sum(0)
    torch.testing.assert_close(GradDrop(leak=0.3, seed=5)(jacobian), 0.3 * total + 0.7 * dropped)
    # an objective that leaks wholly is always there; the draw is the same, for it looks at the gradients themselves
    one = GradDrop(leak=[1.0, 0.0, 0.0], seed=5)(jacobian)
    kept = torch.where(dropped > 0, jacobian.clamp(min=0)[1:].sum(0), jacobian.clamp(max=0)[1:].sum(0))
    torch.testing.assert_close(one, jacobian[0] + kept)


def test_leaks_belong_to_objectives_not_to_rows():
    rule = GradDrop(leak=[0.0, 0.0, 1.0])
    jacobian = torch.tensor([[1.0, -1.0], [-5.0, 5.0]])
    leaked = jacobian[1]
    with rule.tell(Context((0, 2), 3)):
        assert bool(((rule.direction(jacobian) - leaked).abs() <= jacobian[0].abs()).all())
        assert bool(((rule.direction(jacobian) - leaked) * jacobian[0] >= 0).all())


def test_draws_repeat_under_a_seed_and_continue_after_a_resume():
    jacobian = rows(4, 2, 200)
    first, second = GradDrop(seed=9), GradDrop(seed=9)
    torch.manual_seed(0)
    before = [first(jacobian) for _ in range(3)]
    torch.manual_seed(1)
    torch.rand(7)
    assert all(torch.equal(a, second(jacobian)) for a in before)
    assert not torch.equal(before[0], before[1])
    resumed = GradDrop(seed=0)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(first(jacobian), resumed(jacobian))


def test_permuting_the_objectives_changes_nothing():
    jacobian = rows(6, 4, 100)
    torch.testing.assert_close(GradDrop(seed=1)(jacobian), GradDrop(seed=1)(jacobian[[2, 0, 3, 1]]))


def test_opposite_and_zero_rows():
    row = torch.tensor([1.0, -2.0, 0.0])
    direction = GradDrop(seed=2)(torch.stack([row, -row]))
    assert direction.abs().tolist() == [1.0, 2.0, 0.0]
    assert GradDrop()(torch.zeros(3, 4)).tolist() == [0.0] * 4


@pytest.mark.parametrize("leak", [-0.1, 1.5, [0.5, 2.0], [[0.5]], float("nan")])
def test_bad_leaks_are_refused(leak):
    with pytest.raises(ValueError, match="leak must be"):
        GradDrop(leak=leak)


def test_a_leak_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="leak has 2 entries for 3 objectives"):
        GradDrop(leak=[0.1, 0.2])(torch.ones(3, 2))


@pytest.mark.parametrize("leak", [0.0, 0.3, [0.0, 1.0, 0.5]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_many_columns_are_those_of_the_formula_on_all_of_them(dtype: torch.dtype, leak: Any) -> None:
    columns = 3 * 32_768 + 5
    jacobian = torch.randn(3, columns, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = GradDrop(seed=2, leak=leak).direction(jacobian)
    words = torch.empty(columns // 4 + 1, dtype=torch.int64).random_(
        -(2**63), None, generator=torch.Generator().manual_seed(2)
    )
    drawn = 1.0 - torch.from_numpy((words.numpy().view(np.int16)[:columns] + (2**15 + 0.5)) / 2**16)
    rows = jacobian.double()
    chance = 0.5 * (1 + rows.sum(0) / rows.abs().sum(0))
    kept = torch.where(chance >= drawn, rows > 0, rows < 0)
    leaks = torch.as_tensor(leak, dtype=torch.float64).expand(3)[:, None]
    expected = ((leaks + (1 - leaks) * kept) * rows).sum(0)
    off = (found.double() - expected).abs() > 8 * torch.finfo(dtype).eps * rows.abs().sum(0)
    assert int(off.sum()) <= 2  # a coin may fall otherwise where the chance is rounded
    assert found.dtype == dtype


def test_no_temporary_is_as_large_as_a_gradient() -> None:
    class Largest(TorchDispatchMode):
        sizes: list[int] = []  # noqa: RUF012

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            made = [found] if isinstance(found, torch.Tensor) and not found._is_view() else []
            self.sizes.extend(tensor.numel() for tensor in made)
            return found

    jacobian = torch.randn(4, 1 << 20)
    rule = GradDrop()
    with Largest() as seen:
        direction = rule.direction(jacobian)
    assert sorted(seen.sizes)[-2:] != [len(direction)] * 2
    assert sum(size >= len(direction) // 4 for size in set(seen.sizes)) == 1  # the direction itself
