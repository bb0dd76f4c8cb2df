"""What ``plan="layers"`` costs beside the loop written by hand, and beside rows that are kept.

    python -m mtopt_suites.speed.layers [--rounds N] [--seconds N] [--only WORD]

Steps of MGDA (forward, passes, rule, SGD) on one thread, in interleaved rounds of one process; a ratio is the median
over rounds of the ratio of CPU times in a round. ``loop`` is the step of :func:`._floor.hand_written`, ``rows`` is
``plan="loop"``, ``auto`` the default, ``recompute`` is ``store="recompute"``, with losses as a callable. Memory is
what is allocated for tensors at once, less that of the plain step, over the (K, D) Jacobian.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import mtopt

from .._command import run_command
from ._floor import Step, descent, hand_written, plain
from ._memory import peak_tensor_bytes
from ._timing import Side, interleave
from .models import Shared, dense, transformer

PLANS: dict[str, dict[str, Any]] = {
    "layers": {"plan": "layers"},
    "auto": {},
    "rows": {"plan": "loop"},
    "recompute": {"store": "recompute"},
}


@dataclass(frozen=True)
class Case:
    """A model at one K.

    Attributes:
        title: in the table.
        make: the model for K.
        tasks: K.
        target: the most that the step by layers may take of the hand-written loop; None where nothing was said.
    """

    title: str
    make: Callable[[int], Shared]
    tasks: int
    target: float | None = None


def mlp(rows: int) -> Callable[[int], Shared]:
    """256-1024-1024-1024-512 on a batch of so many."""
    return lambda tasks: Shared(dense((256, 1024, 1024, 1024, 512)), 512, tasks, (rows, 256))


class Llama(nn.Module):
    """The decoder of a Llama of two layers, width 512, on embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel  # an extra, and seconds that the other models need not wait

        sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 2, "num_attention_heads": 8}
        self.model = LlamaModel(LlamaConfig(vocab_size=8, **sizes))
        del self.model.embed_tokens

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return states


def llama(tokens: int) -> Callable[[int], Shared]:
    """Width 512, two layers, on four sequences of so many tokens."""
    return lambda tasks: Shared(Llama(), 512, tasks, (4, tokens, 512))


class Block(nn.Module):
    """Two convolutions with batch normalisation, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3, stride, 1), nn.Conv2d(after, after, 3, 1, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inside = self.norms[0](self.first(inputs)).relu()
        found: torch.Tensor = (self.norms[1](self.second(inside)) + self.shortcut(inputs)).relu()
        return found


def resnet(tasks: int) -> Shared:
    """Four blocks of 32 to 256 channels on 32 images of 32 x 32."""
    widths = (3, 32, 64, 128, 256)
    blocks = [Block(before, after, 2) for before, after in itertools.pairwise(widths)]
    return Shared(nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 256, tasks, (32, 3, 32, 32))


CASES = (
    Case("mlp, batch 16", mlp(16), 8, 0.35),
    Case("mlp, batch 128", mlp(128), 8, 0.62),
    Case("mlp, batch 512", mlp(512), 8, 1.0),
    Case("mlp, batch 128", mlp(128), 40, 0.55),
    Case("mlp, batch 128", mlp(128), 2, 0.82),
    Case("Llama, 4 x 32", llama(32), 8, 0.65),
    Case("Llama, 4 x 32", llama(32), 2, 0.82),
    Case("Llama, 4 x 64", llama(64), 8),
    Case("transformer, width 192, 16 x 48", transformer, 8, 1.03),
    Case("ResNet, 32 images", resnet, 8, 1.05),
)


def step_of(model: Shared, plan: str) -> Step:
    """MGDA with losses as a callable, by this plan."""
    optimizer = descent(model)
    params, rule = list(model.parameters()), mtopt.MGDA()

    def step() -> None:
        optimizer.zero_grad()
        mtopt.backward(model.losses, params, rule, **PLANS[plan])
        optimizer.step()

    return step


def built(case: Case) -> Shared:
    """The model, with the same numbers in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return case.make(case.tasks)


def ratios(case: Case, rounds: int, seconds: float) -> dict[str, float]:
    """Of each plan to the loop written by hand."""
    steps = {"hand": hand_written(built(case), mtopt.MGDA().weights)}
    steps.update({plan: step_of(built(case), plan) for plan in PLANS})
    nothing = [torch.empty(0)]
    sides = {name: Side(lambda _, step=step: step(), nothing) for name, step in steps.items()}  # type: ignore[misc]
    interleave(list(sides.values()), rounds=rounds, seconds=seconds, collecting=True)
    base = sides.pop("hand").seconds
    return {
        name: statistics.median(mine / other for mine, other in zip(side.seconds, base, strict=True))
        for name, side in sides.items()
    }


def jacobians(case: Case, plan: str) -> float:
    """Tensors of a step by this plan beyond those of the plain one, in Jacobians."""
    peaks = []
    for make in (lambda model: step_of(model, plan), plain):
        step = make(built(case))
        step()
        peaks.append(peak_tensor_bytes(step))
    return (peaks[0] - peaks[1]) / (4 * case.tasks * built(case).shared_size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.layers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="timed rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="at most for each model (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="models whose title holds it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"| model | K | target | {' | '.join(PLANS)} | Jacobians, layers | recompute |\n|---{'|--:' * 8}|")
    for case in CASES:
        if options.only not in case.title:
            continue
        found = ratios(case, options.rounds, options.seconds)
        cells = " | ".join(f"{found[plan]:.2f}" for plan in PLANS)
        target = "" if case.target is None else case.target
        memory = " | ".join(f"{jacobians(case, plan):.2f}" for plan in ("layers", "recompute"))
        print(f"| {case.title} | {case.tasks} | {target} | {cells} | {memory} |", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
