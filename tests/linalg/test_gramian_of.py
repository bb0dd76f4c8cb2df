"""The Gramian is right at model scale, whatever the dtype, the blocks, and the precision the user allows the model."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mtopt.linalg import Gradients, gramian_of
from tests.combiners.helpers import drawn_jacobian


def exact(jacobian: torch.Tensor) -> torch.Tensor:
    """J Jᵀ in float64, a slice at a time."""
    pieces = [piece.double() for piece in torch.split(jacobian, 1_000_000, dim=1)]
    return sum((piece @ piece.T for piece in pieces), torch.zeros(len(jacobian), len(jacobian), dtype=torch.float64))


def error(found: torch.Tensor, jacobian: torch.Tensor) -> float:
    """The largest error, relative to the product of the two norms."""
    truth = exact(jacobian)
    norms = truth.diagonal().sqrt()
    return float(((found - truth).abs() / norms / norms[:, None]).max())


@pytest.mark.parametrize("rows", [2, 5])
def test_rows_of_lengths_a_thousand_times_apart_are_multiplied_in_float64(rows: int) -> None:
    """What a loss of a large gradient can tell of one of a small gradient is lost in products that are off by 1e-7."""
    jacobian = torch.randn(rows, 300, generator=torch.Generator().manual_seed(0))
    assert error(gramian_of(jacobian), jacobian) > 1e-12
    jacobian[0] *= 2e3
    assert error(gramian_of(jacobian), jacobian) <= 1e-15


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "all_positive"])
@pytest.mark.parametrize(("rows", "columns"), [(8, 1_000_000), (2, 10_000_000)])
def test_float32_is_exact_at_model_scale(rows: int, columns: int, positive: bool) -> None:
    jacobian = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    if positive:  # sums that only grow: where one float32 product loses most
        jacobian.abs_()
    gramian = gramian_of(jacobian)
    assert gramian.dtype == torch.float64
    assert gramian.device.type == "cpu"
    assert error(gramian, jacobian) <= 4.0 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("columns", [1, 1023, 1024, 1025, 65_536, 65_537, 70_000, 135_169])
def test_no_column_is_lost_or_counted_twice_at_the_edges_of_the_blocks(columns: int) -> None:
    jacobian = drawn_jacobian(0, 3, columns, torch.float32)
    assert error(gramian_of(jacobian), jacobian) <= 4.0 * torch.finfo(torch.float32).eps
    assert error(Gradients([[row] for row in jacobian]).gramian, jacobian) <= 4.0 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_rows_lose_nothing(dtype: torch.dtype) -> None:
    jacobian = drawn_jacobian(0, 4, 300_000, dtype)
    assert error(gramian_of(jacobian), jacobian) <= 5e-7


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-12, 1e12, 1e20, 1e30])
@pytest.mark.parametrize("columns", [5, 100_000])
def test_tiny_and_huge_float32_rows_neither_underflow_nor_overflow(scale: float, columns: int) -> None:
    jacobian = drawn_jacobian(0, 3, columns, torch.float32) * scale
    assert error(gramian_of(jacobian), jacobian) <= 4.0 * torch.finfo(torch.float32).eps


def test_one_tiny_row_among_large_ones_keeps_its_digits() -> None:
    jacobian = drawn_jacobian(0, 3, 1000, torch.float32) * torch.tensor([[1e15], [1.0], [1e-22]])
    assert error(gramian_of(jacobian), jacobian) <= 4.0 * torch.finfo(torch.float32).eps


def test_a_zero_row_is_zero_and_a_broken_row_is_not_finite() -> None:
    jacobian = drawn_jacobian(0, 4, 1000, torch.float32)
    jacobian[0] = 0.0
    jacobian[1, 7] = torch.inf
    jacobian[2, 9] = torch.nan
    diagonal = gramian_of(jacobian).diagonal()
    assert diagonal[0] == 0.0
    assert diagonal.isfinite().tolist() == [True, False, False, True]


def test_a_transposed_view_is_read_by_its_values() -> None:
    jacobian = drawn_jacobian(0, 70_000, 3, torch.float32).T
    assert error(gramian_of(jacobian), jacobian) <= 4.0 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 2, 2)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"jacobian must have shape \(K, D\)"):
        gramian_of(torch.ones(shape))


# -- many tensors ------------------------------------------------------------------------------------------------


def _cut(jacobian: torch.Tensor, sizes: list[int]) -> list[list[torch.Tensor]]:
    return [list(torch.split(row, sizes)) for row in jacobian]


@given(st.lists(st.sampled_from([0, 1, 2, 17, 300, 4096, 40_000, 65_536, 65_537, 150_000]), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_the_cut_into_tensors_does_not_matter(sizes: list[int]) -> None:
    if sum(sizes) == 0:
        return
    jacobian = drawn_jacobian(sum(sizes), 3, sum(sizes), torch.float32)
    gradients = Gradients(_cut(jacobian, sizes))
    assert error(gradients.gramian, jacobian) <= 4.0 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(gradients.jacobian(), jacobian, rtol=0, atol=0)


def test_thousands_of_small_tensors_of_mixed_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(), (3,), (2, 5), (1, 4, 2), (0,)] * 600
    rows = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(3)]
    flat = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    assert error(Gradients(rows).gramian, flat) <= 4.0 * torch.finfo(torch.float32).eps


def test_tensors_of_mixed_dtypes() -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.float16, torch.bfloat16, torch.float32]
    rows = [[drawn_jacobian(9 * k + p, 40, 70, t) for p, t in enumerate(dtypes)] for k in range(3)]
    flat = torch.stack([torch.cat([g.double().reshape(-1) for g in row]) for row in rows])
    assert error(Gradients(rows).gramian, flat) <= 4.0 * torch.finfo(torch.float32).eps


def test_expanded_and_strided_gradients_are_read_by_their_values() -> None:
    rows = [
        [torch.tensor(2.0).expand(300, 300), drawn_jacobian(0, 50, 40, torch.float32).T],
        [drawn_jacobian(1, 300, 300, torch.float32), torch.tensor([[1.0], [2.0]]).expand(2, 1000).reshape(40, 50)],
    ]
    flat = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    assert error(Gradients(rows).gramian, flat) <= 4.0 * torch.finfo(torch.float32).eps


def test_the_factor_of_a_grad_scaler_is_taken_out() -> None:
    jacobian = drawn_jacobian(0, 3, 500, torch.float32)
    gradients = Gradients([[row * 65536.0] for row in jacobian], scale=65536.0)
    assert error(gradients.gramian, jacobian) <= 4.0 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(gradients.jacobian(), jacobian)


# -- the precision that the user allows the model ------------------------------------------------------------------


class MatrixProducts(TorchDispatchMode):
    """Records the dtypes of the matrix products that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket.__name__ in ("mm", "bmm", "addmm", "matmul"):
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def settings_restored() -> Iterator[None]:
    modules = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends]
    before = [module.fp32_precision for module in modules]
    yield
    torch.set_float32_matmul_precision("highest")
    for module, precision in zip(modules, before, strict=True):
        module.fp32_precision = precision


def _set_legacy(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)


def _set_one_backend(precision: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = precision


def _set_all_backends(precision: str) -> None:
    torch.backends.fp32_precision = precision


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize(
    ("choose", "precision"),
    [(_set_legacy, "high"), (_set_legacy, "medium"), (_set_one_backend, "bf16"), (_set_one_backend, "tf32")],
)
def test_tf32_and_bfloat16_products_are_for_the_model_alone(choose, precision: str) -> None:  # type: ignore[no-untyped-def]
    jacobian = drawn_jacobian(0, 4, 100_000, torch.float32)
    with MatrixProducts() as by_default:
        gramian_of(jacobian)
    assert torch.float32 in by_default.dtypes  # float64 for everybody would be slow: the test would prove nothing
    choose(precision)
    with MatrixProducts() as products:
        gramian = gramian_of(jacobian)
    assert set(products.dtypes) == {torch.float64}
    assert error(gramian, jacobian) <= 4.0 * torch.finfo(torch.float32).eps


@pytest.mark.usefixtures("settings_restored")
def test_before_pytorch_2_9_the_one_setting_there_is_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends, "mkldnn", SimpleNamespace())  # as it was: without settings of its own
    jacobian = drawn_jacobian(0, 4, 1000, torch.float32)
    for precision, dtype in (("highest", torch.float32), ("high", torch.float64)):
        _set_legacy(precision)
        with MatrixProducts() as products:
            gramian_of(jacobian)
        assert set(products.dtypes) == {dtype}


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_no_mixture_of_old_and_new_precision_settings_is_in_the_way(precision: str) -> None:
    """PyTorch's own getter raises on some mixtures."""
    jacobian = drawn_jacobian(0, 4, 1000, torch.float32)
    _set_legacy("high")
    _set_all_backends(precision)
    torch.backends.cuda.matmul.fp32_precision = precision
    assert error(gramian_of(jacobian), jacobian) <= 4.0 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_gramian(dtype: torch.dtype) -> None:
    jacobian = drawn_jacobian(0, 4, 100_000, torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        assert error(gramian_of(jacobian), jacobian) <= 4.0 * torch.finfo(torch.float32).eps
