"""The example that every rule's page has: three gradients in a plane, and what the rule makes of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

import mtopt

EXAMPLE = torch.tensor([[2.0, 0.4], [-0.9, 0.8], [0.9, 0.7]], dtype=torch.float64)
"""The first two gradients conflict; their mean with the third would let the second loss rise."""

EXAMPLE_LOSSES = (1.0, 0.6, 0.8)


@cache
def example(rule: type[mtopt.Combiner]) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """The gradients that a rule is shown, its direction in a first step, and the losses' names.

    A rule for two objectives sees the first two. So does one whose direction for three gradients in a plane is zero.
    """
    count = rule.exact_objectives or len(EXAMPLE)
    direction = _direction(rule, count)
    if not direction.any():
        count = 2
        direction = _direction(rule, count)
    names = ("retain", "forget") if rule.exact_objectives == 2 else tuple(f"loss {k + 1}" for k in range(count))
    return EXAMPLE[:count], direction, names


def _direction(rule: type[mtopt.Combiner], count: int) -> torch.Tensor:
    gradients, losses = EXAMPLE[:count], torch.tensor(EXAMPLE_LOSSES[:count], dtype=torch.float64)
    draws = rule.draws
    return rule()(gradients if draws == 1 else gradients.expand(draws, -1, -1).clone(), losses)


def draw(rule: type[mtopt.Combiner], path: Path) -> None:
    """Draw the example as an SVG file."""
    gradients, direction, _ = example(rule)
    with mpl.rc_context({"svg.hashsalt": "mtopt"}):  # the same file from the same rule
        directions = {rule.name: direction.numpy()} if direction.any() else None
        ax = mtopt.plotting.plot_step_geometry(gradients.numpy(), directions, lengths="equal")
        mtopt.plotting.save(ax.figure, path.with_suffix(""), ["svg"])
    plt.close(ax.figure)
