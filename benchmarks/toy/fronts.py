"""Fronts of VLMOP2 found in six ways with 20 preferences or 20 points: ``python -m mtopt_suites.toy.fronts``.

Prints the hypervolume that each covers and draws ``fronts.png``. VLMOP2 is taken as the registry has it:
two variables, the box [-2, 2]^2, hypervolume at (1.1, 1.1). All use Adam with a learning rate that falls linearly to
zero, each with its own rate and number of steps, chosen by hand (`SETUPS`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch

import mtopt
from mtopt.pareto import hypervolume, moo_svgd, trace_front, uniform_preferences

from .._command import run_command

COUNT = 20
REFERENCE = (1.1, 1.1)
BEST = 0.5296
"""The largest hypervolume of 20 points, up to its last digit; 0.5521 is that of the whole front."""

FIGURE = Path("fronts")


@dataclass(frozen=True)
class Setup:
    """How one way of finding a front is trained.

    Attributes:
        rule: its registry name, for one training a preference; None for the sets.
        learning_rate: Adam's first one.
        steps: of each training; with ``warm`` the first one takes four times as many.
        warm: start each training where that of the preference before ended; otherwise each has a start of its own.
        minimum: the least entry of a preference.
        options: hyper-parameters.
    """

    rule: str | None
    learning_rate: float
    steps: int
    warm: bool = False
    minimum: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)


SETUPS = {
    "linear scalarization": Setup("linear", 0.05, 150),
    # rules that follow a ray need positive preferences
    "EPO": Setup("epo", 0.05, 40, warm=True, minimum=0.02),
    "PMGDA": Setup("pmgda", 0.05, 40, warm=True, minimum=0.02),
    "STCH": Setup("stch", 0.05, 40, warm=True),
    "hypervolume gradient": Setup(None, 0.05, 200),
    "MOO-SVGD": Setup(None, 0.05, 200, options={"repulsion": 0.01}),
}


def problem() -> mtopt.problems.Problem:
    """VLMOP2, as the registry has it."""
    return mtopt.problems.create_problem("vlmop2")


def find(name: str, *, seed: int = 0) -> torch.Tensor:
    """The points (20, 2) that the setup of that name ends on, from starts drawn with ``seed``."""
    setup = SETUPS[name]
    if setup.rule is not None:
        return _traced(setup, seed)
    step = _hypervolume_step if name == "hypervolume gradient" else partial(_svgd_step, **setup.options)
    return _set(setup, step, seed)


def _traced(setup: Setup, seed: int) -> torch.Tensor:
    vlmop2 = problem()
    starts = vlmop2.sample_starts(COUNT, seed=seed)
    preferences = uniform_preferences(2, COUNT, minimum=setup.minimum)
    fresh = iter(starts)

    def train(preference: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        first = state is None
        x = torch.nn.Parameter(next(fresh).clone() if state is None else state.clone())
        rule = mtopt.create_combiner(str(setup.rule), preference=preference.tolist(), **setup.options)
        for _ in _descend(vlmop2, x, setup.learning_rate, setup.steps * (4 if setup.warm and first else 1)):
            mtopt.backward(list(vlmop2(x)), [x], rule)
        return x.detach()

    if not setup.warm:
        return trace_front(lambda p: vlmop2(train(p)), preferences).points

    def go_on(preference: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        end = train(preference, state)
        return vlmop2(end), end

    return trace_front(go_on, preferences, warm_start=True).points


def _set(setup: Setup, step: Callable[[mtopt.problems.Problem, torch.nn.Parameter], None], seed: int) -> torch.Tensor:
    vlmop2 = problem()
    x = torch.nn.Parameter(vlmop2.sample_starts(COUNT, seed=seed))
    for _ in _descend(vlmop2, x, setup.learning_rate, setup.steps):
        step(vlmop2, x)
    return vlmop2(x.detach())


def _hypervolume_step(vlmop2: mtopt.problems.Problem, x: torch.nn.Parameter) -> None:
    values = vlmop2(x)
    (mtopt.pareto.hypervolume_weights(values, REFERENCE) * values).sum().backward()  # type: ignore[no-untyped-call]


def _svgd_step(vlmop2: mtopt.problems.Problem, x: torch.nn.Parameter, *, repulsion: float) -> None:
    values = vlmop2(x)
    # row i of x makes row i of the values alone: the gradient of a column's sum holds the gradients of all rows
    rows = [torch.autograd.grad(values[:, k].sum(), x, retain_graph=k == 0)[0] for k in range(2)]
    x.grad = moo_svgd(values, torch.stack(rows, dim=1), repulsion=repulsion)


def _descend(vlmop2: mtopt.problems.Problem, x: torch.nn.Parameter, learning_rate: float, steps: int) -> Iterator[None]:
    """Yields once a step, for the caller to fill ``x.grad``."""
    optimizer = torch.optim.Adam([x], lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / steps, total_iters=steps - 1)
    for _ in range(steps):
        optimizer.zero_grad()
        yield
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            x.copy_(vlmop2.project(x))


def draw(found: dict[str, torch.Tensor], path: Path) -> list[Path]:
    """One panel for each way, the true front in all of them."""
    import matplotlib.pyplot as plt

    front = problem().pareto_front(400).numpy()
    with mtopt.plotting.style():
        fig, axes = plt.subplots(2, 3, figsize=(8.4, 5.8), sharex=True, sharey=True, layout="constrained")
    rules = {name: SETUPS[name].rule or name for name in found}
    looks = mtopt.plotting.rule_styles(rules.values())
    for ax, (name, points) in zip(axes.flat, found.items(), strict=True):
        share = hypervolume(points, REFERENCE) / BEST
        mtopt.plotting.plot_front(
            {name: points.numpy()},
            true_front=front,
            labels=("$f_1$", "$f_2$"),
            limits=((-0.04, 1.06), (-0.04, 1.06)),
            styles={name: looks[rules[name]]},
            legend=None,
            title=f"{name}: {100 * share:.1f} %",
            ax=ax,
        )
        ax.label_outer()
    written = mtopt.plotting.save(fig, path)
    plt.close(fig)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Find all fronts, print what they cover, draw them."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the starts (default: 0)")
    parser.add_argument(
        "--figure", type=Path, default=FIGURE, help="where to draw, without suffix (default: %(default)s, here)"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {}
    print(
        f"VLMOP2 at reference {REFERENCE}: the whole front {problem().hypervolume:.4f}, the best {COUNT} points {BEST}"
    )
    print(f"{'':22}{'hypervolume':>12}{'of the best':>13}{'non-dominated':>15}{'CPU seconds':>13}")
    for name in SETUPS:
        begun = process_time()
        found[name] = find(name, seed=options.seed)
        seconds = process_time() - begun
        volume = hypervolume(found[name], REFERENCE)
        kept = int(mtopt.pareto.is_nondominated(found[name]).sum())
        print(f"{name:22}{volume:12.4f}{100 * volume / BEST:11.2f} %{kept:15d}{seconds:13.1f}", flush=True)
    for file in draw(found, options.figure):
        print(f"wrote {file}")


if __name__ == "__main__":
    run_command(main)
