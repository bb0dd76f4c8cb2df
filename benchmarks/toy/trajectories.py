"""Who reaches the Pareto set of the trajectory problem, and from which start.

    python -m mtopt_suites.toy.trajectories                      # some minutes
    python -m mtopt_suites.toy.trajectories --rate 1e-3          # the papers' rate: twice the steps
    python -m mtopt_suites.toy.trajectories --rules mgda linear

All starts of all rules walk together: one evaluation of the problem and its gradients a step for the whole batch, then
each rule, an object of its own for each start, weighs the gradients, and one Adam, which works coordinate by
coordinate, steps for all. A walker that stays on the set for 1,000 steps has arrived, and is taken out of the batch.

The papers take Adam at 1e-3 for 50,000 steps (100,000 for the three starts of CAGrad). Adam moves a coordinate by about
its rate a step, so the budget is kept as rate times steps: 50 and 100 units. Rates much above 2e-3 are another
experiment: at 8e-3 most rules have fewer arrivals. The published numbers count who is on the set at the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

import mtopt

from .._command import run_command

RATE = 2e-3
STAY = 1000


@dataclass(frozen=True)
class Column:
    """A rule of the published table."""

    title: str
    make: Callable[[], mtopt.Combiner]
    reference: dict[float, int]
    """By scale of the first loss: the number of starts from which an independent computation saw it arrive."""


RULES = {
    "linear": Column("LS", lambda: mtopt.create_combiner("linear"), {0.1: 4, 1.0: 1}),
    "mgda": Column("MGDA", lambda: mtopt.create_combiner("mgda"), {0.1: 5, 1.0: 3}),
    "pcgrad": Column("PCGrad", lambda: mtopt.create_combiner("pcgrad"), {0.1: 4, 1.0: 3}),
    "cagrad": Column("CAGrad .4", lambda: mtopt.create_combiner("cagrad", c=0.4), {0.1: 4, 1.0: 3}),
    "imtl_g": Column("IMTL-G", lambda: mtopt.create_combiner("imtl_g"), {0.1: 5, 1.0: 3}),
    "nash_mtl": Column("Nash-MTL", lambda: mtopt.create_combiner("nash_mtl"), {0.1: 5}),
    "config": Column("ConFIG", lambda: mtopt.create_combiner("config"), {0.1: 3}),
    "aligned_mtl": Column("Aligned-MTL", lambda: mtopt.create_combiner("aligned_mtl"), {0.1: 5}),
    "fairgrad": Column("FairGrad 2", lambda: mtopt.create_combiner("fairgrad", alpha=2.0), {0.1: 5}),
    "famo": Column("FAMO", lambda: mtopt.create_combiner("famo", min_losses=(-2.1, -21.0), gamma=0.0), {0.1: 5}),
}
UNITS = {0.1: 50.0, 1.0: 100.0}


@dataclass(frozen=True)
class Walk:
    """Where walkers end, and when they arrived: both by rule and start."""

    ends: torch.Tensor
    """(rules, starts, 2)."""

    arrivals: torch.Tensor
    """(rules, starts): the step from which a walker stayed on the Pareto set, or -1."""


def walk(
    problem: mtopt.problems.CAGradToy, rules: Sequence[Callable[[], mtopt.Combiner]], *, rate: float, steps: int
) -> Walk:
    """At most ``steps`` of Adam from each of the problem's starts with each rule."""
    starts = problem.starts
    if starts is None:
        raise ValueError(f"problem '{problem.name}' has no published starts at scale {problem.scale}")
    combiners = [make() for make in rules for _ in starts]
    x = starts.repeat(len(rules), 1)
    optimizer = torch.optim.Adam([x], lr=rate)
    ends, arrivals = x.clone(), torch.full((len(x),), -1)
    stayed = torch.zeros(len(x), dtype=torch.int64)
    active = torch.arange(len(x))
    for step in range(steps):
        here = x[active].requires_grad_()
        values = problem.evaluate(here)
        gradients = [torch.autograd.grad(column, here, retain_graph=True)[0] for column in values.sum(dim=0)]
        jacobians = torch.stack(gradients, dim=1)
        weights = _weights([combiners[i] for i in active], jacobians, values.detach())
        x.grad = torch.zeros_like(x)
        x.grad[active] = torch.einsum("ik,ikd->id", weights, jacobians)
        optimizer.step()
        _reevaluate([combiners[i] for i in active], problem, x[active])

        there = problem.on_pareto_set(x)
        stayed = torch.where(there, stayed + 1, 0)
        ends[active] = x[active]
        arrived = active[stayed[active] >= STAY]
        arrivals[arrived] = step + 1 - STAY
        active = active[stayed[active] < STAY]
        if len(active) == 0:
            break
    shape = (len(rules), len(starts))
    return Walk(ends.reshape(*shape, -1), arrivals.reshape(shape))


def _weights(combiners: list[mtopt.Combiner], jacobians: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    gramians = jacobians @ jacobians.mT
    rows = []
    for combiner, gramian, values in zip(combiners, gramians, losses, strict=True):
        if isinstance(combiner, mtopt.LossCombiner):
            rows.append(combiner.weights(values))
        elif isinstance(combiner, mtopt.GramianCombiner):
            rows.append(combiner.weights(gramian, values))
        else:
            raise TypeError(f"{combiner!r} gives no weights for a Gramian")
    return torch.stack(rows)


def _reevaluate(combiners: list[mtopt.Combiner], problem: mtopt.problems.CAGradToy, x: torch.Tensor) -> None:
    waiting = [i for i, combiner in enumerate(combiners) if combiner.reevaluates]
    if waiting:
        for i, losses in zip(waiting, problem.evaluate(x[waiting]), strict=True):
            combiners[i].reevaluate(losses)


def main() -> None:
    """Print the table: for each rule how many starts arrive, the published number, and where and when each ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=RATE, help="of Adam; steps are the units over it")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for scale, units in UNITS.items():
        columns = [RULES[name] for name in options.rules if scale in RULES[name].reference]
        if not columns:
            continue
        steps, begun = round(units / options.rate), time.process_time()
        walked = walk(
            mtopt.problems.CAGradToy(scale), [column.make for column in columns], rate=options.rate, steps=steps
        )
        seconds = time.process_time() - begun
        total = walked.arrivals.shape[1]
        print(f"\nscale {scale}, {total} starts, Adam {options.rate:g}, at most {steps} steps; {seconds:.0f} s of CPU")
        print("each start: where it ends, and the step from which it is on the set (-: never)")
        for column, ends, arrivals in zip(columns, walked.ends.tolist(), walked.arrivals.tolist(), strict=True):
            each = [f"({a:.2f}, {b:.2f}) {'-' if at < 0 else at}" for (a, b), at in zip(ends, arrivals, strict=True)]
            found, reference = sum(at >= 0 for at in arrivals), column.reference[scale]
            print(f"{column.title:12} {found}/{total} reference {reference}/{total}  {';  '.join(each)}", flush=True)


if __name__ == "__main__":
    run_command(main)
