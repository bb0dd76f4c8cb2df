"""Rows of which only some columns are at hand."""

from __future__ import annotations

import torch

from mtopt.linalg import Gradients, columns_in_parts, gramian_of, multiply_gradients, sum_parts


def _rows(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes] for _ in "ab"]


def test_products_are_those_of_all_columns() -> None:
    jacobian = torch.cat([torch.stack([row[0] for row in _rows((7,))]), torch.tensor([[3.0], [-2.0]])], 1)
    other = gramian_of(jacobian[:, 5:])
    with columns_in_parts(lambda table: table + other):
        found = gramian_of(jacobian[:, :5])
        with columns_in_parts(None):
            torch.testing.assert_close(gramian_of(jacobian), jacobian @ jacobian.T)
    torch.testing.assert_close(found, jacobian @ jacobian.T)


def test_whether_products_are_exact_enough_is_decided_on_all_columns() -> None:
    here = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-5]])  # nearly dependent, where alone
    other = torch.diag(torch.tensor([4.0, 4.0], dtype=torch.float64))
    asked = []

    def add(table: torch.Tensor) -> torch.Tensor:
        asked.append(table)
        return table + other

    with columns_in_parts(add):
        gramian_of(here)
    assert len(asked) == 1
    with columns_in_parts(lambda table: asked.append(table) or table):  # type: ignore[func-returns-value]
        gramian_of(here)
    assert len(asked) == 3  # once more, in float64


def test_where_nothing_is_at_hand_the_sum_is_that_of_the_others() -> None:
    other = torch.eye(2, dtype=torch.float64)
    for rows in (_rows((0,)), _rows((0, 3), (0,))):
        with columns_in_parts(lambda table: table + other):
            torch.testing.assert_close(Gradients(rows).gramian, other)
    assert gramian_of(torch.zeros(2, 0)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_products_of_two_batches_are_summed_once() -> None:
    first, second = Gradients(_rows((4,))), Gradients(_rows((4,), (2,)))
    second = Gradients([row[:1] for row in second.rows])
    expected = multiply_gradients(first, second)
    with columns_in_parts(lambda table: 3.0 * table):
        torch.testing.assert_close(multiply_gradients(Gradients(first.rows), Gradients(second.rows)), 3.0 * expected)


def test_a_sum_is_itself_where_all_columns_are_at_hand() -> None:
    table = torch.ones(3)
    assert sum_parts(table) is table
