"""Multi-normalised gradients: row and column norms, the fixed point, and NGDiff with this normaliser."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.combiners import Linear, NGDiff, create_combiner, multi_normalized
from mtopt.combiners.sinkhorn import MultiNormalized, sinkhorn_normalized
from mtopt.training import SinkGD


def random_matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 5), (7, 2), (4, 4), (20, 30)])
def test_rows_and_columns_have_their_norms(shape):
    rows, columns = shape
    given_matrix = random_matrix(*shape)
    five = sinkhorn_normalized(given_matrix)
    np.testing.assert_allclose(five.norm(dim=0), math.sqrt(rows), rtol=1e-12)
    assert float(five.norm()) == pytest.approx(math.sqrt(rows * columns))
    many = sinkhorn_normalized(given_matrix, 2000)
    np.testing.assert_allclose(many.norm(dim=1), math.sqrt(columns), rtol=1e-6)
    np.testing.assert_allclose(many.norm(dim=0), math.sqrt(rows), rtol=1e-12)
    assert torch.equal(many.sign(), given_matrix.sign())
    # Sinkhorn's theorem: it is diag(r) X diag(c), so all 2 x 2 cross ratios are those of X
    ratio = many / given_matrix
    torch.testing.assert_close(ratio * ratio[0, 0], ratio[:, :1] * ratio[:1, :], rtol=1e-9, atol=0)


def test_one_iteration_by_hand():
    found = sinkhorn_normalized(torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64), 1)
    half = np.array([[0.6, 0.8], [0.0, 1.0]]) * math.sqrt(2)
    np.testing.assert_allclose(found, half / np.linalg.norm(half, axis=0) * math.sqrt(2), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-30, 30), st.integers(2, 5), st.integers(2, 5))
def test_factors_do_not_matter(seed, decades, rows, columns):
    matrix = random_matrix(rows, columns, seed).float()
    scaled = (matrix.double() * 10.0**decades).float()
    torch.testing.assert_close(sinkhorn_normalized(scaled), sinkhorn_normalized(matrix), rtol=1e-4, atol=1e-5)


def test_zeros_vectors_and_other_shapes():
    matrix = random_matrix(3, 4)
    matrix[1] = 0
    matrix[:, 2] = 0
    found = sinkhorn_normalized(matrix)
    assert bool(found.isfinite().all())
    assert not found[1].any()
    assert not found[:, 2].any()
    assert not sinkhorn_normalized(torch.zeros(3, 4)).any()
    assert sinkhorn_normalized(torch.zeros(0, 3)).shape == (0, 3)
    for shape in [(6,), (6, 1), (1, 6)]:
        vector = torch.arange(1.0, 7.0).reshape(shape)
        expected = vector / vector.norm() * math.sqrt(6)
        torch.testing.assert_close(sinkhorn_normalized(vector), expected)
    assert float(sinkhorn_normalized(torch.tensor(-3.0))) == -1.0
    kernel = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sinkhorn_normalized(kernel).reshape(5, 18), sinkhorn_normalized(kernel.reshape(5, 18)))
    assert sinkhorn_normalized(kernel.bfloat16()).dtype == torch.float32


def two_losses(model, scale=1.0):
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    out = model(inputs)
    return [out.square().mean() * scale, (out[:, 0] - 1.0).square().mean()]


def gradients_after(rule, scale=1.0):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    record = mtopt.backward(two_losses(model, scale), model, rule, private="combined")
    return model, [p.grad for p in model.parameters()], record


def test_ngdiff_with_this_normaliser_is_the_sum_of_the_multi_normalised_gradients():
    model, found, record = gradients_after(MultiNormalized(Linear(reduction="sum")))
    params = list(model.parameters())
    rows = [torch.autograd.grad(loss, params, retain_graph=True) for loss in two_losses(model)]
    for index, piece in enumerate(found):
        torch.testing.assert_close(piece, sum(sinkhorn_normalized(row[index]) for row in rows))
    assert record.weights is None
    _, shorter, _ = gradients_after(MultiNormalized(NGDiff()))
    root = math.sqrt(sum(p.numel() for p in params))
    torch.testing.assert_close([piece * root for piece in shorter], found)


@pytest.mark.parametrize("rule", ["mgda", "pcgrad", "upgrad", "graddrop"])
def test_any_rule_sees_the_normalised_gradients(rule):
    rule = mtopt.create_combiner(rule)
    model, found, _ = gradients_after(MultiNormalized(rule.fresh()))
    params = list(model.parameters())
    rows = [torch.autograd.grad(loss, params, retain_graph=True) for loss in two_losses(model)]
    matrix = torch.stack([torch.cat([sinkhorn_normalized(g).reshape(-1) for g in row]) for row in rows])
    torch.testing.assert_close(torch.cat([g.reshape(-1) for g in found]), rule.fresh()(matrix), rtol=1e-6, atol=1e-9)
    _, scaled, _ = gradients_after(MultiNormalized(rule.fresh()), scale=1e9)
    torch.testing.assert_close(scaled, found, rtol=1e-6, atol=1e-9)


def test_it_keeps_every_promise_of_a_rule():
    mtopt.testing.check_combiner(MultiNormalized(NGDiff()))
    assert repr(MultiNormalized(NGDiff(), 3)) == "MultiNormalized(NGDiff(), iterations=3)"


def test_wrong_arguments():
    with pytest.raises(ValueError, match="iterations must be a positive int, found 0"):
        MultiNormalized(NGDiff(), 0)
    with pytest.raises(ValueError, match="weighs a draw it has not seen"):
        MultiNormalized(mtopt.create_combiner("modo"))


# -- other norms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["row", "column", "spectral", "max", "frobenius"])
def test_each_norm_is_maximised_over_its_ball(norm: str) -> None:
    """``X <- argmax <G, U>`` over the ball that the answer is on: no other point of it has a larger product with G."""
    matrix = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = multi_normalized(matrix, [norm], 1)  # type: ignore[list-item]
    assert float(found.norm()) == pytest.approx(24**0.5)
    measures = {
        "row": lambda m: m.norm(dim=1).max(),
        "column": lambda m: m.norm(dim=0).max(),
        "spectral": lambda m: torch.linalg.matrix_norm(m, 2),
        "max": lambda m: m.abs().max(),
        "frobenius": lambda m: m.norm(),
    }
    size = measures[norm](found)
    for seed in range(200):
        other = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        other = found + 0.3 * other
        other *= size / measures[norm](other)
        assert float((other * matrix).sum()) <= float((found * matrix).sum()) + 1e-9


def test_swan_is_whitening_of_normalised_rows() -> None:
    matrix = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = matrix / matrix.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    white = vectors @ torch.diag(values.rsqrt()) @ vectors.T @ rows  # (X X')^(-1/2) X
    torch.testing.assert_close(multi_normalized(matrix, ("row", "spectral"), 1), white * 5**0.5)


def test_sinkhorn_is_the_instance_of_rows_and_columns() -> None:
    matrix = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(sinkhorn_normalized(matrix, 4), multi_normalized(matrix, ("row", "column"), 4))


def test_degenerate_matrices_have_answers_in_every_norm() -> None:
    for matrix in (torch.zeros(3, 4), torch.ones(3, 4), torch.full((2, 2), 1e-30), torch.full((2, 2), 1e30)):
        for norm in ("spectral", "max", "frobenius"):
            found = multi_normalized(matrix, [norm], 2)  # type: ignore[list-item]
            assert bool(found.isfinite().all())
            assert bool(found.any()) == bool(matrix.any())


def test_rules_and_the_optimizer_take_other_norms() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 4))
    weight.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    SinkGD([weight], lr=1.0, norms=("row", "spectral"), iterations=1).step()
    torch.testing.assert_close(-weight.detach(), multi_normalized(weight.grad, ("row", "spectral"), 1))
    rule = MultiNormalized(create_combiner("mgda"), 1, norms=("row", "spectral"))
    assert repr(rule) == "MultiNormalized(MGDA(), iterations=1, norms=('row', 'spectral'))"
    with pytest.raises(ValueError, match="norms must hold one or more of"):
        MultiNormalized(create_combiner("mgda"), norms=("rows",))  # type: ignore[arg-type]
