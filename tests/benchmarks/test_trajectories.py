"""The batch of walkers of the trajectory table, and part of the table itself."""

import pytest
import torch

import mtopt
from benchmarks.toy.trajectories import RULES, walk


def test_walkers_walk_alone():
    """A batch of rules and starts is the same as each rule and start in an ordinary loop."""
    problem = mtopt.problems.CAGradToy(0.1)
    together = walk(problem, [RULES["mgda"].make, RULES["famo"].make], rate=1e-2, steps=15)
    for row, name in enumerate(("mgda", "famo")):
        for column, start in enumerate(problem.starts):
            if (name, column) == ("famo", 1):
                # from (0, 0) its slopes in x1 cancel to 1e-19, and Adam turns the sign of that rounding into a step
                continue
            rule, x = RULES[name].make(), start.clone().requires_grad_()
            optimizer = torch.optim.Adam([x], lr=1e-2)
            for _ in range(15):
                optimizer.zero_grad()
                mtopt.backward(list(problem(x)), [x], rule)
                optimizer.step()
                if rule.reevaluates:
                    rule.reevaluate(problem(x).detach())
            torch.testing.assert_close(together.ends[row, column], x.detach(), rtol=0, atol=1e-9)


def test_who_stays_on_the_set_has_arrived_and_is_left_alone():
    class Begun(mtopt.problems.CAGradToy):
        @property
        def starts(self):
            return self.pareto_set(3)

    walked = walk(Begun(), [RULES["mgda"].make], rate=1e-6, steps=1500)
    assert walked.arrivals.tolist() == [[0, 0, 0]]
    assert Begun().on_pareto_set(walked.ends).all()


def test_a_problem_without_published_starts_is_refused():
    with pytest.raises(ValueError, match=r"problem 'cagrad_toy' has no published starts at scale 0\.5"):
        walk(mtopt.problems.CAGradToy(0.5), [RULES["mgda"].make], rate=1e-3, steps=1)


@pytest.mark.long
def test_the_mean_is_stuck_from_9_9_and_nash_arrives_from_everywhere():
    problem = mtopt.problems.CAGradToy(0.1)
    walked = walk(problem, [RULES["linear"].make, RULES["nash_mtl"].make], rate=2e-3, steps=25_000)
    assert (walked.arrivals >= 0).tolist() == [[True, True, False, True, True], [True] * 5]
    assert float(walked.ends[0, 2, 1]) > 1.0  # on the ridge, more than nine units above the set
