"""What two objectives on separate rows of one batch cost over a plain step on that batch.

    python -m mtopt_suites.speed.groups [--rounds N] [--seconds N]

NGDiff on one thread, in interleaved rounds of one process: by ``per_instance(model).backward(groups=)``, one pass for
both; and by the loop written by hand, a batch after the other. Ratios are medians over rounds of CPU times.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch

import mtopt

from .._command import run_command
from ._floor import Step, concatenated, descent, separate
from ._timing import Side, interleave
from .models import MODELS, Shared, build

TARGETS = {"mlp": 1.10, "transformer": 1.05}


def by_groups(model: Shared, other: torch.Tensor) -> Step:
    """Forward and one pass of the concatenated batch, which falls apart into both gradients."""
    optimizer, rule = descent(model), mtopt.NGDiff()
    instances = mtopt.per_instance(model)
    retain, forget = mtopt.Objective("retain"), mtopt.Objective("forget", "max")
    groups = {retain: slice(0, len(other)), forget: slice(len(other), None)}

    def step() -> None:
        optimizer.zero_grad()
        with instances:
            found = model.heads[0](model.features(torch.cat([model.inputs, other])))  # type: ignore[list-item]
        errors = (found - model.targets[0].repeat(2, 1)).square().mean(1)  # type: ignore[index]
        instances.backward(errors, rule, groups=groups)
        optimizer.step()

    return step


def ratios(name: str, rounds: int, seconds: float) -> dict[str, float]:
    """Of each step to the plain one on the concatenated batch."""
    makes = {"plain": concatenated, "groups": by_groups, "by hand": separate}
    sides = {}
    for title, make in makes.items():
        model, generator = build(name, 1), torch.Generator().manual_seed(1)
        other = torch.randn(model.inputs.shape, generator=generator)  # type: ignore[arg-type]
        step = make(model, other)
        sides[title] = Side(lambda _, step=step: step(), [torch.empty(0)])  # type: ignore[misc]
    interleave(list(sides.values()), rounds=rounds, seconds=seconds, collecting=True)
    base = sides.pop("plain").seconds
    return {
        title: statistics.median(mine / plain for mine, plain in zip(side.seconds, base, strict=True))
        for title, side in sides.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.groups", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*TARGETS], help="(mlp transformer)")
    parser.add_argument("--rounds", type=int, default=41, metavar="N", help="timed rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="at most for each model (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| model | target | groups | two batches by hand |\n|---|--:|--:|--:|")
    for name in options.models:
        found = ratios(name, options.rounds, options.seconds)
        print(f"| {name} | {TARGETS.get(name, '')} | {found['groups']:.2f} | {found['by hand']:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
