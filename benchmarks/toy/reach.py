"""How many random starts reach the front of each problem: python -m mtopt_suites.toy.reach [problem ...].

Linear scalarization with equal weights and MGDA, each with Adam and 500 steps from 10 starts drawn in the start region.
Objectives are divided by their ranges on the front, variables by the width of the region; the rate falls from .005
to zero, and every step is projected into the box. A start has reached the front if its end exceeds some point of it by
less than .02: that says nothing of which part of the front it reaches, nor whether all starts reach the same.
"""

from __future__ import annotations

import argparse

import torch

import mtopt

from .._command import run_command

STARTS, STEPS, RATE, NEAR = 10, 500, 0.005, 0.02


def excess(problem: mtopt.problems.Problem, combiner: mtopt.Combiner) -> torch.Tensor:
    """How far each start's end exceeds the nearest point of the front, (STARTS,), in ranges of the front."""
    lower, upper = problem.start_region
    front = problem.pareto_front(600)
    ranges = front.amax(dim=0) - front.amin(dim=0)
    ranges = torch.where(ranges > 0, ranges, front.abs().amax(dim=0))  # a front of one point
    unit = (problem.sample_starts(STARTS, seed=0) - lower) / (upper - lower)
    optimizer = torch.optim.Adam([unit], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, total_iters=STEPS)
    for _ in range(STEPS):
        leaf = unit.clone().requires_grad_()
        values = problem.evaluate(lower + (upper - lower) * leaf) / ranges
        gradients = [torch.autograd.grad(column, leaf, retain_graph=True)[0] for column in values.sum(dim=0)]
        jacobians = torch.stack(gradients, dim=1)
        unit.grad = torch.stack(
            [combiner(jacobian, losses) for jacobian, losses in zip(jacobians, values, strict=True)]
        )
        optimizer.step()
        schedule.step()
        unit.copy_((problem.project(lower + (upper - lower) * unit) - lower) / (upper - lower))
    ends = problem.evaluate(lower + (upper - lower) * unit) / ranges
    over: torch.Tensor = (ends[:, None] - front / ranges).clamp(min=0).norm(dim=-1)
    return over.amin(dim=1)


def main() -> None:
    """Print, for each problem whose front is known, the starts of ten that reach it by either rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", help="default: all whose fronts are known")
    names = parser.parse_args().problems or mtopt.problems.list_problems()
    torch.set_num_threads(1)
    for name in names:
        problem = mtopt.problems.create_problem(name)
        try:
            problem.pareto_set(1)
        except LookupError:
            continue
        cells = []
        for rule in ("linear", "mgda"):
            gaps = excess(problem, mtopt.create_combiner(rule))
            cells.append(f"{rule} {int((gaps < NEAR).sum())}/{STARTS}, median excess {float(gaps.median()):.1e}")
        print(f"{name:16} {';  '.join(cells)}", flush=True)


if __name__ == "__main__":
    run_command(main)
