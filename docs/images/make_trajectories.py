"""Makes trajectories.png, the first picture of the README: a minute.

    python docs/images/make_trajectories.py [FOLDER]

Five rules from the three published starts of CAGrad's trajectory problem, with Adam, whose rate falls linearly to zero.
Rate and number of steps were chosen by hand, so that all rules but ``linear`` arrive or nearly do.
The picture goes to FOLDER; default: the folder of this file.
"""

import sys
from pathlib import Path

import torch

import mtopt

RULES = ("linear", "mgda", "pcgrad", "moco", "ngdiff")
RATE = 0.05
STEPS = 1500


def walk(problem: mtopt.problems.Problem, rule: str, start: torch.Tensor) -> torch.Tensor:
    """The path from a start, (STEPS + 1, 2)."""
    combiner = mtopt.create_combiner(rule)
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=RATE)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / STEPS, total_iters=STEPS)
    path = [x.detach().clone()]
    for _ in range(STEPS):
        optimizer.zero_grad()
        mtopt.backward(list(problem(x)), [x], combiner)
        optimizer.step()
        scheduler.step()
        path.append(x.detach().clone())
    return torch.stack(path)


def make(folder: Path) -> None:
    """Walk, and draw over the contours of the sum of both losses."""
    problem = mtopt.problems.create_problem("cagrad_toy")
    if problem.starts is None:
        raise ValueError("cagrad_toy has no published starts")
    ax = mtopt.plotting.plot_trajectories(
        {rule: [walk(problem, rule, start) for start in problem.starts] for rule in RULES},
        problem_levels=lambda x: problem(x).sum(dim=-1),
        pareto_set=problem.pareto_set(100),
        labels=("$x_1$", "$x_2$"),
        limits=((-11.5, 11.5), (-11.5, 11.5)),
        title="Five rules from three starts, on the trajectory problem of CAGrad and Nash-MTL",
    )
    mtopt.plotting.save(ax.figure, folder / "trajectories", ["png"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
