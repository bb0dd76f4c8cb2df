"""Unlearning from recent gradients against training again without the forgotten rows, on problems that are convex."""

import pytest
import torch

from benchmarks.unlearning.mini_unlearning import descend, mini_unlearn

N, M, RATE, STEPS = 60, 9, 0.4, 120


@pytest.fixture(scope="module")
def data():
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(N, 4, generator=random, dtype=torch.float64)
    noise = torch.randn(N, generator=random, dtype=torch.float64)
    return inputs, inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64) + noise


def least_squares(inputs, targets):
    """The gradient of the sum of ``(x.w - y)² / 2`` over rows."""
    return lambda w: inputs.T @ (inputs @ w - targets)


def logistic(inputs, labels, decay=0.05):
    """The gradient of the sum of ``log(1 + exp(-y x.w)) + decay ||w||² / 2`` over rows, and its Hessian's product."""

    def gradient(w):
        return -inputs.T @ (labels * torch.sigmoid(-labels * (inputs @ w))) + len(inputs) * decay * w

    def product(w, v):
        p = torch.sigmoid(inputs @ w)
        return inputs.T @ (p * (1 - p) * (inputs @ v)) + len(inputs) * decay * v

    return gradient, product


def retrained(gradient, *, steps=STEPS):
    """Without the first M rows, from the same start."""
    point, _ = descend(
        gradient, torch.zeros(4, dtype=torch.float64), examples=N - M, learning_rate=RATE, steps=steps, keep=1
    )
    return point


def unlearned(full, forget, product, keep):
    _, history = descend(
        full, torch.zeros(4, dtype=torch.float64), examples=N, learning_rate=RATE, steps=STEPS, keep=keep
    )
    return mini_unlearn(history, forget, forgotten=M, curvature=product), history


def test_the_error_on_a_quadratic_contracts(data):
    """``||u - w_retrained|| <= rho^k ||w_{T-k} - (w_retrained)_{T-k}||``, with the spectral norm of the map."""
    inputs, targets = data
    kept = inputs[M:]
    hessian = kept.T @ kept / (N - M)
    rho = torch.linalg.matrix_norm(torch.eye(4, dtype=torch.float64) - RATE * hessian, 2).item()
    assert rho < 1
    goal = retrained(least_squares(kept, targets[M:]))
    errors = []
    for keep in (1, 5, 10, 20):
        found, history = unlearned(
            least_squares(inputs, targets),
            least_squares(inputs[:M], targets[:M]),
            lambda w, v: inputs.T @ (inputs @ v),
            keep,
        )
        before = retrained(least_squares(kept, targets[M:]), steps=STEPS - keep)
        error = (found - goal).norm().item()
        assert error <= rho**keep * (history.points[0] - before).norm().item() * (1 + 1e-9) + 1e-13
        errors.append(error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < rho**15 * errors[0]


def test_the_whole_history_is_retraining_on_a_quadratic(data):
    inputs, targets = data
    found, _ = unlearned(
        least_squares(inputs, targets),
        least_squares(inputs[:M], targets[:M]),
        lambda w, v: inputs.T @ (inputs @ v),
        STEPS,
    )
    torch.testing.assert_close(found, retrained(least_squares(inputs[M:], targets[M:])), rtol=1e-10, atol=1e-12)


def test_a_logistic_model_comes_nearer_to_retraining_with_more_history(data):
    inputs, targets = data
    labels = torch.where(targets > 0, 1.0, -1.0).double()
    labels[:M] *= -1  # mislabelled rows, which matter
    full, product = logistic(inputs, labels)
    forget, _ = logistic(inputs[:M], labels[:M])
    goal = retrained(logistic(inputs[M:], labels[M:])[0])
    target, _ = descend(full, torch.zeros(4, dtype=torch.float64), examples=N, learning_rate=RATE, steps=STEPS, keep=1)
    errors = [(unlearned(full, forget, product, keep)[0] - goal).norm().item() for keep in (5, 20, 60)]
    assert (target - goal).norm().item() > errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.3 * (target - goal).norm().item()


def test_one_step_without_curvature_is_the_same(data):
    """The term is zero in the first step, where u is w."""
    inputs, targets = data
    parts = least_squares(inputs, targets), least_squares(inputs[:M], targets[:M])
    with_term, _ = unlearned(*parts, lambda w, v: inputs.T @ (inputs @ v), 1)
    torch.testing.assert_close(unlearned(*parts, None, 1)[0], with_term)


def test_wrong_counts_are_named(data):
    gradient = least_squares(*data)
    start = torch.zeros(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="keep must be between 1 and steps=3, got 4"):
        descend(gradient, start, examples=N, learning_rate=RATE, steps=3, keep=4)
    _, history = descend(gradient, start, examples=N, learning_rate=RATE, steps=3, keep=2)
    with pytest.raises(ValueError, match="forgotten must be between 1 and 59, got 60"):
        mini_unlearn(history, gradient, forgotten=N)
