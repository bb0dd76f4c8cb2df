"""SCH, JOS1 and VLMOP1 against their definitions and the square-root front."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from mtopt.problems import create_problem


def test_definitions():
    x = np.random.default_rng(0).uniform(-1, 1, (20, 6))
    given = torch.from_numpy(x)
    sch = np.stack((x[:, 0] ** 2, (x[:, 0] - 2) ** 2), axis=1)
    np.testing.assert_allclose(create_problem("sch")(given[:, :1]).numpy(), sch, rtol=1e-14)
    jos1 = np.stack(((x**2).mean(1), ((x - 2) ** 2).mean(1)), axis=1)
    np.testing.assert_allclose(create_problem("jos1", num_variables=6)(given).numpy(), jos1, rtol=1e-14)
    vlmop1 = np.stack([((x - sign / math.sqrt(6)) ** 2).sum(1) / 4 for sign in (1, -1)], axis=1)
    np.testing.assert_allclose(create_problem("vlmop1", num_variables=6)(given).numpy(), vlmop1, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "parameters", "worst", "at_worst"),
    [("sch", {}, 4.0, 13.3333), ("jos1", {"num_variables": 7}, 4.0, 13.3333), ("vlmop1", {}, 1.0, 0.833333)],
)
def test_front_and_hypervolume(name, parameters, worst, at_worst):
    problem = create_problem(name, **parameters)
    front = problem.pareto_front(41)
    torch.testing.assert_close(front.sqrt().sum(1), torch.full((41,), math.sqrt(worst)).double())
    torch.testing.assert_close(front[[0, -1]], torch.tensor([[0, worst], [worst, 0]]).double(), atol=1e-14, rtol=0)
    covered, _ = quad(lambda f: worst - (math.sqrt(worst) - math.sqrt(f)) ** 2, 0, worst)
    assert covered == pytest.approx(at_worst, abs=5e-5)
    # from (worst, worst) to the reference point: an L of the width of the margin
    reference = problem.reference_point[0].item()
    assert reference == pytest.approx(1.1 * worst)
    assert problem.hypervolume == pytest.approx(covered + reference**2 - worst**2, rel=1e-9)
