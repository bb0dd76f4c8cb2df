"""What EPO, Pareto MTL, PMGDA and FERERO have in common: the protocol, absent losses, permutations, dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mtopt
from mtopt.combiners import Combiner
from mtopt.combiners.epo import EPO
from mtopt.combiners.ferero import FERERO
from mtopt.combiners.pareto_mtl import ParetoMTL
from mtopt.combiners.pmgda import PMGDA
from mtopt.linalg import Gradients
from tests.combiners.descents import drawn_losses, drawn_preference
from tests.combiners.helpers import drawn_jacobian

RULES = [EPO, ParetoMTL, PMGDA, FERERO]
PREFERENCE = [0.2, 0.3, 0.5]
LOSSES = torch.tensor([0.9, 0.4, 0.7], dtype=torch.float64)


@pytest.fixture(params=RULES, ids=lambda rule: rule.__name__)
def rule(request: pytest.FixtureRequest) -> type[Combiner]:
    return request.param


def test_is_registered_and_declares_what_it_needs(rule: type[Combiner]) -> None:
    assert mtopt.create_combiner(rule.name).__class__ is rule
    assert rule.needs == "gramian"
    assert rule.stateful == (rule is ParetoMTL)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_the_repr_evaluates_to_the_rule(rule: type[Combiner], kind: type) -> None:
    given = rule(preference=kind(PREFERENCE))  # type: ignore[call-arg]
    again = eval(repr(given))
    for made in (again, given.fresh()):
        torch.testing.assert_close(
            made(drawn_jacobian(0, 3, 5), LOSSES), given.fresh()(drawn_jacobian(0, 3, 5), LOSSES)
        )
    assert repr(rule()) == f"{rule.__name__}()"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(rule: type[Combiner], dtype: torch.dtype) -> None:
    jacobian = drawn_jacobian(0, 3, 50)
    direction = rule(preference=PREFERENCE)(jacobian.to(dtype), LOSSES.to(dtype))  # type: ignore[call-arg]
    assert direction.dtype == dtype
    expected = rule(preference=PREFERENCE)(jacobian, LOSSES)  # type: ignore[call-arg]
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-5, torch.float64: 0.0}[dtype]
    torch.testing.assert_close(direction.double(), expected, rtol=0, atol=tolerance * float(expected.norm()))
    gramian = (jacobian @ jacobian.T).to(dtype)
    assert rule().weights(gramian, LOSSES).dtype == dtype  # type: ignore[attr-defined]


def test_permuting_the_objectives_permutes_the_weights(rule: type[Combiner]) -> None:
    for seed in range(6):
        order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
        jacobian, preference = drawn_jacobian(seed, 4, 6), drawn_preference(seed, 4)
        for losses in (drawn_losses(seed, 4), torch.tensor(preference) * (1 + 1e-3 * drawn_losses(seed, 4))):
            there = rule(preference=preference)(jacobian, losses)  # type: ignore[call-arg]
            permuted = [preference[k] for k in order]
            back = rule(preference=permuted)(jacobian[order], losses[order])  # type: ignore[call-arg]
            torch.testing.assert_close(there, back, rtol=1e-7, atol=1e-7 * float(there.norm()))


@pytest.mark.parametrize("factor", [1e-20, 1e-6, 1e6, 1e20])
@pytest.mark.parametrize("relative", [EPO, ParetoMTL])
def test_the_common_size_of_the_losses_does_not_matter(relative: type[Combiner], factor: float) -> None:
    """For these two; h_eps of PMGDA and the correction of FERERO are in the losses' unit."""
    jacobian = drawn_jacobian(0, 3, 6)
    torch.testing.assert_close(relative()(jacobian, factor * LOSSES), relative()(jacobian, LOSSES))


@pytest.mark.parametrize("factor", [1e-20, 1e-6, 1e6, 1e20])
def test_the_common_size_of_the_gradients_scales_the_descent(rule: type[Combiner], factor: float) -> None:
    """On the ray; off it the corrections of PMGDA and FERERO have lengths of their own."""
    jacobian, losses = drawn_jacobian(0, 3, 6), torch.tensor(PREFERENCE, dtype=torch.float64)
    small, one = (rule(preference=PREFERENCE)(scale * jacobian, losses) for scale in (factor, 1.0))  # type: ignore[call-arg]
    torch.testing.assert_close(small / factor, one)
    off = rule(preference=PREFERENCE)(factor * jacobian, LOSSES)  # type: ignore[call-arg]
    assert bool(off.isfinite().all())


def test_an_absent_loss_leaves_the_rule_of_the_others(rule: type[Combiner]) -> None:
    jacobian, losses = drawn_jacobian(0, 2, 5), torch.tensor([0.9, 0.7], dtype=torch.float64)
    whole = rule(preference=PREFERENCE)  # type: ignore[call-arg]
    gradients = Gradients([[row] for row in jacobian], objectives=[0, 2], total=3)
    outcome = whole.combine(gradients, losses)
    assert outcome.weights is not None
    assert outcome.weights.shape == (2,)
    part = rule(preference=[0.2 / 0.7, 0.5 / 0.7])  # type: ignore[call-arg]
    if rule is not EPO:  # whose anchor has the size of 1 / p
        torch.testing.assert_close(outcome.weights, part.weights(jacobian @ jacobian.T, losses))  # type: ignore[attr-defined]
    single = whole.fresh().combine(Gradients([[jacobian[0]]], objectives=[1], total=3), losses[:1])
    assert single.weights is not None
    torch.testing.assert_close(single.weights, torch.ones(1, dtype=torch.float64))


def test_errors_say_what_is_missing(rule: type[Combiner]) -> None:
    with pytest.raises(ValueError, match=f"{rule.__name__} reads the loss values: give losses"):
        rule()(torch.eye(2))
    with pytest.raises(ValueError, match="preference has 3 entries for 2 objectives"):
        rule(preference=PREFERENCE)(torch.eye(2), torch.ones(2))  # type: ignore[call-arg]
    with pytest.raises(mtopt.NonFiniteError, match="losses hold NaN"):
        rule()(torch.eye(2), torch.tensor([1.0, float("nan")]))


def test_works_through_the_engine(rule: type[Combiner]) -> None:
    point = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    losses = list(mtopt.problems.create_problem("vlmop2")(point))
    rows = torch.stack([torch.autograd.grad(loss, point, retain_graph=True)[0] for loss in losses])
    record = mtopt.backward(losses, [point], rule(preference=[0.3, 0.7]))  # type: ignore[call-arg]
    expected = rule(preference=[0.3, 0.7])(rows, torch.stack(losses).detach())  # type: ignore[call-arg]
    torch.testing.assert_close(point.grad, expected)
    assert record.certificate is not None
