"""GradientHistory: what the rule is given."""

from __future__ import annotations

import pytest
import torch

from mtopt.combiners import Gradients, create_combiner
from mtopt.combiners.gradient_history import GradientHistory
from mtopt.testing import check_combiner
from tests.combiners.helpers import drawn_jacobian


@pytest.mark.parametrize("name", ["mgda", "trimmed_mean"])
def test_the_rule_is_given_the_mixture(name: str) -> None:
    rule, past = GradientHistory(create_combiner(name), length=3, slow=0.7), []
    for step in range(6):
        jacobian = drawn_jacobian(step, 3, 5)
        past = [*past, jacobian][-3:]
        expected = create_combiner(name)(0.7 * torch.stack(past).mean(0) + 0.3 * jacobian)
        torch.testing.assert_close(rule(jacobian), expected)


def test_a_loss_that_is_absent_keeps_its_history() -> None:
    rule, rows = GradientHistory(create_combiner("linear", reduction="sum"), slow=1.0), drawn_jacobian(0, 2, 4)
    rule(rows)
    rule.combine(Gradients.of(rows[:1] * 5, objectives=[0], total=2), None)
    found = rule.combine(Gradients.of(rows[1:] * 3, objectives=[1], total=2), None).direction
    torch.testing.assert_close(found, (rows[1] + 3 * rows[1]) / 2)


def test_it_conforms_around_rules() -> None:
    for name in ("mgda", "pcgrad"):
        check_combiner(GradientHistory(create_combiner(name)), objectives=(1, 2, 4), draws=1)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="length must be a whole number of at least 1"):
        GradientHistory(create_combiner("mgda"), length=0)
    with pytest.raises(ValueError, match=r"slow must be in \[0, 1\]"):
        GradientHistory(create_combiner("mgda"), slow=1.5)
    with pytest.raises(ValueError, match="weighs a draw it has not seen"):
        GradientHistory(create_combiner("modo"))
