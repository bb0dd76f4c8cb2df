"""What is added up of gradient rows, whose memory may be written over, and the rows as a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import create_combiner
from mtopt.combiners.normalized import Normalized
from mtopt.linalg import CHUNK, Gradients, PackedTensors, Place
from mtopt.linalg._ownership import is_held_alone
from tests.combiners.helpers import drawn_jacobian

Rows = list[list[torch.Tensor]]

BIG = CHUNK + 3


def rows_like(*shapes: Sequence[int], count: int = 3, dtype: torch.dtype = torch.float32) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(*shape, generator=generator).to(dtype) for shape in shapes] for _ in range(count)]


def added_up(rows: Rows, weights: Sequence[float]) -> list[torch.Tensor]:
    """In float64, one tensor at a time."""
    return [
        sum((w * tensor.double() for w, tensor in zip(weights, tensors, strict=True)), torch.zeros(()).double())
        for tensors in zip(*rows, strict=True)
    ]


def assert_sums(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], tolerance: float = 1e-6) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


WEIGHTS = [0.7, -1.3, 0.2]
SHAPES = {"small": [(5,), (2, 3)], "big": [(BIG,), (2, CHUNK)], "mixed": [(4,), (BIG,), (3, 2), (300, 400)]}


@pytest.mark.parametrize("spend", [False, True])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("factors", [None, [1.0, 1.0, 1.0], [2.0, 0.5, 1e-3]])
def test_rows_are_added_up(shapes: list[tuple[int, ...]], spend: bool, factors: list[float] | None) -> None:
    rows = rows_like(*shapes)
    weights = [w * f for w, f in zip(WEIGHTS, factors or [1.0] * 3, strict=True)]
    wanted, before = added_up(rows, weights), [[tensor.clone() for tensor in row] for row in rows]
    gradients = Gradients(rows, factors=factors)
    found = gradients.combined(torch.tensor(WEIGHTS, dtype=torch.float64), spend=spend)
    assert_sums(found, wanted)
    if spend:
        assert gradients.rows == [[], [], []]
    else:
        assert all(torch.equal(a, b) for pair in zip(rows, before, strict=True) for a, b in zip(*pair, strict=True))


def test_rows_in_any_memory_order_are_added_up() -> None:
    rows = [[tensor.t() for tensor in row] for row in rows_like((300, 400), (CHUNK, 2), (2, 2))]
    assert not rows[0][0].is_contiguous()
    wanted = added_up(rows, WEIGHTS)
    assert_sums(Gradients(rows).combined(WEIGHTS), wanted)
    assert_sums(Gradients(rows).combined(WEIGHTS, spend=True), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_rows_are_added_up_in_float32_and_come_in_the_parameters_dtype(dtype: torch.dtype) -> None:
    rows = rows_like((7,), (2, 3), dtype=dtype)
    wanted = added_up(rows, WEIGHTS)
    found = Gradients(rows).combined(WEIGHTS)
    assert [tensor.dtype for tensor in found] == [dtype, dtype]
    assert_sums(found, [tensor.to(dtype).double() for tensor in wanted], 2 * torch.finfo(dtype).eps)
    places = [Place(torch.zeros_like(tensor, dtype=torch.float32), k) for k, tensor in enumerate(rows[0])]
    found = Gradients(rows, places=places).combined(WEIGHTS)
    assert [tensor.dtype for tensor in found] == [torch.float32, torch.float32]
    assert_sums(found, wanted)


@given(st.integers(-40, 40))
@settings(max_examples=20)
def test_weights_that_float32_does_not_hold_meet_rows_that_make_up_for_them(decades: int) -> None:
    rows = [[drawn_jacobian(k, 1, 6)[0].to(torch.float32) * 10.0 ** (decades / 2)] for k in range(2)]
    weights = [10.0**-decades * 0.3, -(10.0**-decades)]
    unit = 10.0 ** (-decades / 2)
    wanted = [tensor / unit for tensor in added_up(rows, weights)]
    assert_sums([tensor.double() / unit for tensor in Gradients(rows).combined(weights)], wanted)
    (total,) = [torch.zeros(6)]
    Gradients(rows[:1]).add_to([total], weights[0])
    torch.testing.assert_close(total.double() / unit, weights[0] * rows[0][0].double() / unit, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factors", [None, [4.0]])
def test_a_row_is_added_to_what_is_there(factors: list[float] | None) -> None:
    rows, (total,) = rows_like((5,), (2, 3), count=1), rows_like((5,), (2, 3), count=1)
    (wanted,) = [added_up([total, rows[0]], [1.0, 0.3 * (factors or [1.0])[0]])]
    Gradients(rows, factors=factors).add_to(total, 0.3)
    assert_sums(total, wanted)


# -- memory that is written over --------------------------------------------------------------------------------------


def somebody_else_has_it(tensor: torch.Tensor) -> tuple[torch.Tensor, object]:
    return tensor, tensor


def somebody_else_has_its_memory(tensor: torch.Tensor) -> tuple[torch.Tensor, object]:
    return tensor, tensor.detach()


def a_part_of_something(tensor: torch.Tensor) -> tuple[torch.Tensor, object]:
    whole = torch.cat([tensor, tensor])
    return whole[: len(tensor)], whole


def one_number_many_times(tensor: torch.Tensor) -> tuple[torch.Tensor, object]:
    one = tensor[:1].clone()
    return one.expand(len(tensor)), one


SHARED: list[Callable[[torch.Tensor], tuple[torch.Tensor, object]]] = [
    somebody_else_has_it,
    somebody_else_has_its_memory,
    a_part_of_something,
    one_number_many_times,
]


@pytest.mark.parametrize("share", SHARED)
def test_spent_rows_are_written_over_only_where_nobody_else_sees_it(
    share: Callable[[torch.Tensor], tuple[torch.Tensor, object]],
) -> None:
    (row,) = rows_like((BIG,), count=1)
    first, other = share(row.pop())
    assert isinstance(other, torch.Tensor)
    before = other.clone()
    rows = [[first], *rows_like((BIG,), count=2)]
    del first
    wanted = added_up(rows, WEIGHTS)
    assert not is_held_alone(rows[0], 0)
    assert_sums(Gradients(rows).combined(WEIGHTS, spend=True), wanted)
    assert torch.equal(other, before)


def test_one_tensor_for_two_parameters_is_scaled_once_each() -> None:
    rows = rows_like((BIG,), count=3)
    rows = [[*row, *row] for row in rows]
    wanted = added_up(rows, WEIGHTS)
    assert_sums(Gradients(rows).combined(WEIGHTS, spend=True), wanted)


def test_a_row_of_ones_own_is_spent_without_a_copy() -> None:
    rows = rows_like((BIG,), (7,))
    places = [tensor.data_ptr() for tensor in rows[0]]
    assert is_held_alone(rows[0], 0)
    wanted = added_up(rows, WEIGHTS)
    found = Gradients(rows).combined(WEIGHTS, spend=True)
    assert_sums(found, wanted)
    assert found[0].data_ptr() == places[0]


# -- the matrix -------------------------------------------------------------------------------------------------------


def test_a_jacobian_is_not_copied() -> None:
    matrix = drawn_jacobian(0, 3, 10)
    gradients = Gradients.of(matrix)
    assert gradients.jacobian().data_ptr() == matrix.data_ptr()
    assert [len(row) for row in gradients.rows] == [1, 1, 1]
    torch.testing.assert_close(gradients.gramian, matrix @ matrix.T)
    for turned in (matrix.T.contiguous().T, matrix[:, ::2], matrix[::2]):
        assert torch.equal(Gradients.of(turned).jacobian(), turned)
        torch.testing.assert_close(Gradients.of(turned).gramian, turned @ turned.T)


def test_matrices_whose_columns_take_turns() -> None:
    rows = rows_like((3,), (2,), (4,), (1,))
    packed = [
        PackedTensors(
            positions,
            [rows[0][p].shape for p in positions],
            torch.stack([torch.cat([r[p] for p in positions]) for r in rows]),
        )
        for positions in ((0, 2), (1, 3))
    ]
    gradients = Gradients([[None] * 4 for _ in rows], packed=packed)
    assert torch.equal(gradients.jacobian(), Gradients(rows).jacobian())
    assert_sums(gradients.combined(WEIGHTS), added_up(rows, WEIGHTS))


@given(
    cut=st.lists(st.tuples(st.sampled_from([1, 3, 700, 1024, CHUNK, BIG]), st.booleans()), min_size=1, max_size=6),
    count=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    spend=st.booleans(),
    holes=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_tensors_that_lie_in_a_matrix_count_as_those_that_do_not(
    cut: list[tuple[int, bool]], count: int, dtype: torch.dtype, spend: bool, holes: bool
) -> None:
    rows = rows_like(*[(size,) for size, _ in cut], count=count, dtype=dtype)
    plain = Gradients([[tensor.clone() for tensor in row] for row in rows])
    positions = [p for p, (_, lies) in enumerate(cut) if lies]
    packed = []
    if positions:
        matrix = torch.stack([torch.cat([row[p] for p in positions]) for row in rows])
        packed = [PackedTensors(positions, [rows[0][p].shape for p in positions], matrix)]
    given = [[None if holes and p in positions else tensor for p, tensor in enumerate(row)] for row in rows]
    gradients = Gradients(given, packed=packed)
    torch.testing.assert_close(gradients.gramian, plain.gramian, rtol=0, atol=3e-7 * float(plain.gramian.max()))
    assert all(
        torch.equal(a, b)
        for one, two in zip(Gradients(given, packed=packed).rows, rows, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert torch.equal(Gradients(given, packed=packed).jacobian(), plain.jacobian())
    found = gradients.combined(WEIGHTS[:count], spend=spend)
    assert_sums(found, [tensor.double() for tensor in plain.combined(WEIGHTS[:count])])
    memories = {tensor.untyped_storage().data_ptr() for tensor in found}
    assert len(memories) == len(cut)


@pytest.mark.parametrize("factor", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize("size", [CHUNK + 1, CHUNK + 1024, 2 * CHUNK])
def test_two_rows_that_lie_apart(size: int, factor: float) -> None:
    """They are not copied to one block; where float32 squares do not do, float64 is used."""
    rows = [[tensor * factor for tensor in row] for row in rows_like((size,), count=2)]
    wide = torch.stack([row[0].double() for row in rows])
    torch.testing.assert_close(Gradients(rows).gramian, wide @ wide.T, rtol=1e-7, atol=1e-7 * size * factor**2)


@pytest.mark.parametrize("rule", ["trimmed_mean", "moco", "mgda"])
def test_factors_and_the_scale_are_the_rows(rule: str) -> None:
    """Rows kept in few bits with a factor each, of a scaled loss, are the rows that they stand for."""
    jacobian, losses = drawn_jacobian(0, 3, 7), torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    factors = [4.0, 0.25, 1.0]
    kept: Rows = [[8.0 * row / factor] for row, factor in zip(jacobian, factors, strict=True)]
    gradients = Gradients(kept, factors=factors, scale=8.0)
    torch.testing.assert_close(gradients.jacobian(), jacobian)
    torch.testing.assert_close(gradients.gramian, jacobian @ jacobian.T)
    plain = Gradients([[row] for row in jacobian])
    for make in (lambda: create_combiner(rule), lambda: Normalized(create_combiner(rule))):
        found, wanted = make().combine(gradients, losses), make().combine(plain, losses)
        for one, other in ((found.weights, wanted.weights), (found.direction, wanted.direction)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other)
