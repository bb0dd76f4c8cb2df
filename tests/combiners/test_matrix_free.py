"""Weights that are followed by products of the Gramian with a vector, against the exact ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.combiners import create_combiner
from mtopt.combiners._matrix_free import FollowsWeights
from mtopt.combiners._secant import SecantGramian

RULES = ("mgda", "nash_mtl", "fairgrad")

Array = np.ndarray


def rule_of(name: str, **hyperparameters: float) -> FollowsWeights:
    rule = create_combiner(name, **hyperparameters)
    assert isinstance(rule, FollowsWeights)
    return rule


def rows_of(count: int, *, conflict: float, spread: float, seed: int) -> Array:
    """K rows with a share of their mean taken out, and norms that differ by about ``exp(2 spread)``."""
    generator = np.random.default_rng(seed)
    jacobian = generator.standard_normal((count, 3 * count + 2))
    jacobian -= conflict * jacobian.mean(0)
    return np.asarray(jacobian * np.exp(spread * generator.uniform(-1.0, 1.0, (count, 1))))


def followed(rule: FollowsWeights, jacobian: Array, steps: int, objectives: list[int] | None = None) -> Array:
    """The direction of the last of ``steps`` steps at fixed gradients."""
    chosen = list(range(len(jacobian))) if objectives is None else objectives
    for _ in range(steps):
        weights = rule.weights_to_follow(chosen).numpy()
        direction = weights @ jacobian
        factor, _ = rule.follow(chosen, jacobian @ direction, float(direction @ direction), rate=0.5)
    return np.asarray(factor * direction)


def exact(name: str, jacobian: Array, **hyperparameters: float) -> Array:
    return create_combiner(name, **hyperparameters)(torch.from_numpy(jacobian)).numpy()


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=12)
@example(5, 0.005989830198851388, 0.3247052032965769, 464)  # rounding taken for curvature sent it astray at step 78
@given(st.sampled_from([2, 3, 5, 9]), st.floats(0.0, 0.95), st.floats(0.0, 0.7), st.integers(0, 1000))
def test_at_fixed_gradients_the_direction_becomes_the_exact_one(
    name: str, count: int, conflict: float, spread: float, seed: int
) -> None:
    jacobian = rows_of(count, conflict=conflict, spread=spread, seed=seed)
    rule = rule_of(name)
    found, wanted = followed(rule, jacobian, 40 + 10 * count), exact(name, jacobian)
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)
    assert rule.certificate is not None
    assert rule.certificate.residual <= 1e-5
    assert rule.certificate.method == "matrix-free"


@pytest.mark.parametrize("name", RULES)
def test_gradients_in_float32_do_not_send_weights_astray_that_have_settled(name: str) -> None:
    for seed in (15, 30, 31, 39, 51, 55):
        rows = torch.from_numpy(rows_of([2, 3, 5, 9][seed % 4], conflict=0.3, spread=0.3, seed=seed)).float()
        objectives = list(range(len(rows)))
        rule, wanted = rule_of(name), exact(name, rows.double().numpy())
        for step in range(200):
            direction = rule.weights_to_follow(objectives).float() @ rows
            products, square = (rows @ direction).double().numpy(), float(direction.double() @ direction.double())
            factor, _ = rule.follow(objectives, products, square, rate=0.5)
            if step >= 100:
                error = np.linalg.norm(factor * direction.double().numpy() - wanted)
                assert error <= 1e-5 * np.linalg.norm(wanted), (seed, step)


@pytest.mark.parametrize("name", RULES)
def test_forty_conflicting_gradients_take_some_tens_of_steps(name: str) -> None:
    jacobian = rows_of(40, conflict=0.9, spread=0.5, seed=1)
    wanted = exact(name, jacobian)
    found = followed(rule_of(name), jacobian, 60)
    assert np.linalg.norm(found - wanted) <= 0.01 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", RULES)
def test_the_default_rate_goes_a_fifth_of_the_way_a_step(name: str) -> None:
    jacobian = rows_of(5, conflict=0.8, spread=0.5, seed=9)
    rule, wanted = rule_of(name), exact(name, jacobian)
    errors = []
    for _ in range(100):
        direction = rule.weights_to_follow(range(5)).numpy() @ jacobian
        factor, _ = rule.follow(range(5), jacobian @ direction, float(direction @ direction))
        errors.append(float(np.linalg.norm(factor * direction - wanted) / np.linalg.norm(wanted)))
    assert errors[-1] < 1e-6
    assert 0.75 < (errors[80] / errors[60]) ** (1 / 20) < 0.85, "near the solution it is the model's answer that counts"


@settings(max_examples=40)
@given(st.sampled_from([2, 3, 8]), st.floats(0.0, 0.99), st.integers(0, 1000), st.integers(1, 20))
def test_the_gap_of_mgda_bounds_how_far_the_direction_is_from_the_exact_one(
    count: int, conflict: float, seed: int, steps: int
) -> None:
    jacobian = rows_of(count, conflict=conflict, spread=0.5, seed=seed)
    rule = rule_of("mgda")
    found, wanted = followed(rule, jacobian, steps), exact("mgda", jacobian)
    error = rule.certificate.residual  # type: ignore[union-attr]
    square = found @ found
    assert error == pytest.approx((square - (jacobian @ found).min()) / square, rel=1e-9, abs=1e-12)
    assert np.linalg.norm(found - wanted) ** 2 <= (error + 1e-9) * square
    assert (error < 1.0) == bool((jacobian @ found).min() > 0.0)


@settings(max_examples=40)
@given(st.sampled_from([2, 3, 8]), st.floats(0.0, 0.9), st.integers(0, 1000), st.integers(1, 30))
def test_the_error_of_nash_mtl_bounds_how_far_the_direction_is_from_the_exact_one(
    count: int, conflict: float, seed: int, steps: int
) -> None:
    jacobian = rows_of(count, conflict=conflict, spread=0.5, seed=seed)
    rule = rule_of("nash_mtl")
    found, wanted = followed(rule, jacobian, steps), exact("nash_mtl", jacobian)
    assert found @ found == pytest.approx(count, rel=1e-9), "the length is the rule's from the first step on"
    delta = math.sqrt(count) * rule.certificate.residual  # type: ignore[union-attr]
    if delta < 1.0:
        assert np.linalg.norm(found - wanted) ** 2 <= -2.0 * delta - 2.0 * math.log1p(-delta) + 1e-8


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_unit_of_the_gradients_does_not_matter(name: str, scale: float) -> None:
    jacobian = rows_of(6, conflict=0.8, spread=0.5, seed=3)
    one, other = followed(rule_of(name), jacobian, 7), followed(rule_of(name), scale * jacobian, 7)
    power = {"mgda": 1.0, "nash_mtl": 0.0, "fairgrad": -1.0 / 3.0}[name]  # of the rule's length: see its docstring
    np.testing.assert_allclose(other, one * scale**power, rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_noise_of_a_mini_batch_is_averaged(name: str) -> None:
    """The followed direction is no further from that of the mean gradients than the exact one of a mini-batch."""
    generator = np.random.default_rng(0)
    mean = rows_of(8, conflict=0.5, spread=0.3, seed=2)
    wanted = exact(name, mean)
    rule = rule_of(name)
    errors: dict[str, list[float]] = {"followed": [], "exact": []}
    for step in range(150):
        batch = mean + 0.5 * generator.standard_normal(mean.shape) * mean.std()
        weights = rule.weights_to_follow(range(8)).numpy()
        factor, _ = rule.follow(range(8), batch @ (weights @ batch), float(np.sum((weights @ batch) ** 2)))
        if step >= 30:
            of_batch = create_combiner(name).weights(torch.from_numpy(batch @ batch.T)).numpy()  # type: ignore[operator]
            errors["followed"].append(float(np.linalg.norm(factor * weights @ mean - wanted)))
            errors["exact"].append(float(np.linalg.norm(of_batch @ mean - wanted)))
    assert np.mean(errors["followed"]) <= 1.1 * np.mean(errors["exact"])


@pytest.mark.parametrize("name", RULES)
def test_a_saved_rule_goes_on_bit_for_bit(name: str) -> None:
    jacobian = rows_of(5, conflict=0.9, spread=0.5, seed=4)
    rule, copy = rule_of(name), rule_of(name)
    assert "followed" not in rule.state_dict()
    followed(rule, jacobian, 4)
    followed(rule, jacobian[:3], 2, [0, 1, 2])
    copy.load_state_dict(rule.state_dict())
    for _ in range(5):
        assert torch.equal(rule.weights_to_follow(range(5)), copy.weights_to_follow(range(5)))
        assert np.array_equal(followed(rule, jacobian, 1), followed(copy, jacobian, 1))
    copy.load_state_dict(rule_of(name).state_dict())
    assert torch.equal(copy.weights_to_follow(range(5)), rule_of(name).weights_to_follow(range(5)))


def test_a_truncated_state_is_refused() -> None:
    rule = rule_of("mgda")
    followed(rule, np.eye(2), 1)
    state = rule.state_dict()
    del state["followed"]["model"]
    with pytest.raises(mtopt.CheckpointError, match="lack model"):
        rule.load_state_dict(state)


@pytest.mark.parametrize("name", RULES)
def test_an_absent_loss_keeps_its_weight(name: str) -> None:
    jacobian = rows_of(4, conflict=0.5, spread=0.5, seed=5)
    rule = rule_of(name)
    followed(rule, jacobian, 40)
    before = rule.weights_to_follow(range(4)).numpy()
    present = [0, 2, 3]
    found = followed(rule, jacobian[present], 60, present)
    wanted = exact(name, jacobian[present])
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)
    kept = rule._tracked_weights
    assert kept is not None
    if name == "mgda":
        assert kept.weights[1] == pytest.approx(before[1], rel=1e-9)
        assert kept.weights.sum() == pytest.approx(1.0)
    again = followed(rule, jacobian, 60)
    wanted = exact(name, jacobian)
    assert np.linalg.norm(again - wanted) <= 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", RULES)
def test_a_loss_that_comes_later_joins(name: str) -> None:
    jacobian = rows_of(4, conflict=0.5, spread=0.5, seed=6)
    rule = rule_of(name)
    followed(rule, jacobian[:2], 20, [0, 1])
    found, wanted = followed(rule, jacobian, 80), exact(name, jacobian)
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", RULES)
def test_a_product_that_is_not_finite_moves_nothing(name: str) -> None:
    jacobian = rows_of(3, conflict=0.5, spread=0.5, seed=7)
    rule = rule_of(name)
    followed(rule, jacobian, 3)
    before = rule.state_dict()
    _, error = rule.follow(range(3), np.array([1.0, math.nan, 1.0]), 1.0)
    assert error == math.inf
    assert rule.state_dict() == before


@pytest.mark.parametrize("name", RULES)
def test_zero_gradients_and_stationary_points_have_an_answer(name: str) -> None:
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    rule = rule_of(name)
    assert np.isfinite(followed(rule, opposite, 3)).all()
    assert np.isfinite(rule.weights_to_follow(range(2)).numpy()).all()
    one_zero = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    found = followed(rule_of(name), one_zero, 60)
    wanted = exact(name, one_zero)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["nash_mtl", "fairgrad"])
def test_a_model_that_rounding_has_spoilt_is_begun_again(name: str) -> None:
    """One in which some of the gradients cancel, so that no weights solve it, and which the next product leaves so."""
    jacobian = np.array([[1.0, 0.0, 0.0], [-3.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    rule = rule_of(name)
    assert rule.weights_to_follow(range(3)).tolist() == [1.0, 1.0, 1.0]
    followed(rule, jacobian, 1)  # whose product is (-2, 7, 1)
    tracked = rule._tracked_weights
    assert tracked is not None
    tracked.weights[:] = 1.0
    # zero on (7, 2, 0) + (1, 1, 1): an update that agrees with the product makes it zero on (7, 2, 0) itself
    null = np.array([8.0, 3.0, 1.0])
    tracked.model._last, tracked.model.matrix = None, np.eye(3) - np.outer(null, null / (null @ null))
    spoilt = tracked.model
    followed(rule, jacobian, 1)
    assert tracked.model is not spoilt
    found, wanted = followed(rule, jacobian, 100), exact(name, jacobian)
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


def test_one_loss_alone_has_the_rules_direction() -> None:
    for name in RULES:
        row = np.array([[3.0, 4.0]])
        np.testing.assert_allclose(followed(rule_of(name), row, 1), exact(name, row))


@pytest.mark.parametrize("name", ["nash_mtl", "fairgrad"])
def test_a_largest_norm_shortens_the_direction_and_not_what_is_followed(name: str) -> None:
    jacobian = rows_of(4, conflict=0.5, spread=0.5, seed=8)
    found = followed(rule_of(name, max_norm=0.1), jacobian, 60)
    np.testing.assert_allclose(found, exact(name, jacobian, max_norm=0.1), rtol=1e-6)


@given(st.integers(1, 8), st.integers(0, 1000))
def test_the_model_agrees_with_the_last_product_and_stays_positive(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    jacobian = generator.standard_normal((count, count + 1))
    gramian = jacobian @ jacobian.T
    model = SecantGramian()
    for _ in range(12):
        vector = generator.uniform(0.1, 1.0, count)
        model.learn(count, range(count), vector, gramian @ vector)
        np.testing.assert_allclose(model.block(range(count)) @ vector, gramian @ vector, rtol=1e-7, atol=1e-9)
        assert np.linalg.eigvalsh(model.block(range(count))).min() > 0.0
