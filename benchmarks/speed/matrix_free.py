"""What ``plan="matrix_free"`` costs at K = 40 beside a plain summed step, and where training with it ends.

    python -m mtopt_suites.speed.matrix_free [--tasks K] [--rounds N] [--seeds N] [--steps N]

Prints two tables. The first: steps of each rule by either product as ratios to a plain step (summed losses, one
backward, SGD) on one thread, in interleaved rounds; each ratio is the median over rounds of the ratio in a round, by
CPU time of the process and by wall time. The plain step has the K heads, too. The second: the end of training on the
synthetic multi-task regression, by the exact rule and by the followed weights, over seeds. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

import mtopt
from mtopt.problems.synthetic_regression import synthetic_regression

from .._command import run_command

RULES = ("mgda", "nash_mtl")
PRODUCTS = ("exact", "displacement")
TARGETS = {"exact": 2.5, "displacement": 1.7}
RATES = {"mgda": 0.2, "nash_mtl": 0.01}
"""Learning rates of the regression: MGDA's direction is shorter the more the tasks disagree, Nash-MTL's is sqrt(K)."""

BATCH = 64


class Shared(nn.Module):
    """A trunk and K linear heads of ten classes, with a batch to classify."""

    def __init__(self, trunk: nn.Module, width: int, tasks: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(tasks))
        self.inputs = torch.randn(*shape)
        self.targets = torch.randint(0, 10, (tasks, shape[0]))

    def losses(self) -> list[torch.Tensor]:
        features = self.trunk(self.inputs)
        features = features.mean(1) if features.ndim == 3 else features
        return [
            nn.functional.cross_entropy(head(features), target)
            for head, target in zip(self.heads, self.targets, strict=True)
        ]


def mlp(tasks: int) -> Shared:
    """256-1024-1024-1024-512, 2.89 M parameters, batch 128."""
    widths = (256, 1024, 1024, 1024, 512)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return Shared(nn.Sequential(*layers), 512, tasks, (128, 256))


def transformer(tasks: int) -> Shared:
    """Four pre-norm encoder layers of width 192 on 16 sequences of 48, 1.78 M parameters."""
    layer = nn.TransformerEncoderLayer(192, 6, 768, dropout=0.0, batch_first=True, norm_first=True)
    return Shared(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), 192, tasks, (16, 48, 192))


def time_model(build: Callable[[int], Shared], tasks: int, rounds: int) -> None:
    """Ratios of every rule's step to the plain one, printed."""
    torch.manual_seed(0)
    model = build(tasks)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def plain() -> None:
        optimizer.zero_grad()
        torch.stack(model.losses()).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def followed(name: str, product: str) -> Callable[[], None]:
        rule = mtopt.create_combiner(name)
        plan = mtopt.MatrixFree(product)  # type: ignore[arg-type]

        def step() -> None:
            optimizer.zero_grad()
            mtopt.backward(model.losses, model, rule, plan=plan)
            optimizer.step()

        return step

    sides = {(name, product): followed(name, product) for name in RULES for product in PRODUCTS}
    every = {("plain", ""): plain, **sides}
    times: dict[tuple[str, str], list[tuple[float, float]]] = {side: [] for side in every}
    for step in every.values():
        step()
        step()
    gc.collect()
    gc.disable()
    for number in range(rounds):
        for side, step in list(every.items())[:: 1 if number % 2 else -1]:
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            times[side].append((time.process_time() - cpu, time.perf_counter() - wall))
    gc.enable()
    base = times["plain", ""]
    print(f"\n{build.__name__}, K = {tasks}: a plain step takes {1e3 * statistics.median(c for c, _ in base):.1f} ms")
    for name, product in sides:
        cpu, wall = (
            statistics.median(
                mine[i] / plain_one[i] for mine, plain_one in zip(times[name, product], base, strict=True)
            )
            for i in (0, 1)
        )
        print(f"  {name:<9} {product:<13} CPU {cpu:.2f}   wall {wall:.2f}   (target {TARGETS[product]})")


def train(name: str, plan: mtopt.MatrixFree | None, *, tasks: int, steps: int, seed: int) -> tuple[float, float, float]:
    """Mean and largest loss over the tasks at the end, and the median error reported in the second half."""
    data = synthetic_regression(tasks, 0.3, spread=2.0, num_samples=512, seed=seed)
    model = data.model(hidden=32, seed=seed)
    rule = mtopt.create_combiner(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATES[name])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for step in range(steps):
        rows = torch.randint(0, 512, (BATCH,), generator=generator)
        optimizer.zero_grad()

        def losses(rows: torch.Tensor = rows) -> list[torch.Tensor]:
            return data.losses(model, rows)

        if plan is None:
            record = mtopt.backward(losses(), model, rule)
        else:
            record = mtopt.backward(losses, model, rule, plan=plan)
        if step >= steps // 2 and record.certificate is not None:
            errors.append(record.certificate.residual)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        ends = torch.stack(data.losses(model))
    return float(ends.mean()), float(ends.max()), statistics.median(errors)


def compare_ends(tasks: int, seeds: int, steps: int) -> None:
    """Losses at the end of training over seeds, printed."""
    print(f"\nSynthetic regression, {tasks} tasks, conflict 0.3, {steps} steps, {seeds} seeds: mean [least, largest]")
    ways = {"exact rule": None, **{f"followed, {p}": mtopt.MatrixFree(p) for p in PRODUCTS}}  # type: ignore[arg-type]
    for name in RULES:
        for way, plan in ways.items():
            found = [train(name, plan, tasks=tasks, steps=steps, seed=seed) for seed in range(seeds)]
            means, worst, errors = zip(*found, strict=True)
            print(
                f"  {name:<9} {way:<23} mean loss {_spread(means)}   largest loss {_spread(worst)}   "
                f"residual {statistics.median(errors):.1e}"
            )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.4f} [{min(values):.4f}, {max(values):.4f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both parts; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.matrix_free", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=40, metavar="K", help="tasks (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="timed rounds (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="trainings a way (%(default)s)")
    parser.add_argument("--steps", type=int, default=250, metavar="N", help="steps a training (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for build in (mlp, transformer):
        time_model(build, options.tasks, options.rounds)
    compare_ends(options.tasks, options.seeds, options.steps)
    return 0


if __name__ == "__main__":
    run_command(main)
