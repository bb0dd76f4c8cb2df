"""Time of a step over one loss per sample, side by side with TorchJD in one run.

    python -m mtopt_suites.speed.instances [--out DIR] [--models NAME ...] [--sizes B ...] [--rounds N] [--threads N]

Every side does a whole forward and backward of the same model on the same batch, in turns, and CPU time counts; a ratio
is of medians, over a plain step on the mean loss. "Gramian" is the forward and the inner products of the samples'
gradients alone; "step" is all of it, with UPGrad's weights and the direction in ``.grad``; "weights" is the
rule's part of it. Prints a table, and writes ``instances.json``. Without TorchJD, mtopt is timed alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

import mtopt
from mtopt.files import write_text

from .._command import folder, run_command
from ._timing import Side, interleave

SIZES = (16, 64)
CLASSES = 10

Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A model, and the shape of one of its samples."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


class _Transformer(nn.Module):
    """Two encoder layers on 16 positions of 64 numbers, and a mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True) for _ in range(2))
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(given).mean(1))  # type: ignore[no-any-return]


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.GroupNorm(4, 64),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, CLASSES),
    )


CASES = {
    "mlp": Case(_mlp, (64,)),
    "conv": Case(_conv, (3, 16, 16)),
    "transformer": Case(_Transformer, (16, 64)),
}


def sides_of(case: Case, batch: int, peer: bool) -> dict[str, Side]:
    """The steps to be timed, by name; each has a model of its own with the same start."""
    generator = torch.Generator().manual_seed(batch)
    inputs = [torch.randn(batch, *case.shape, generator=generator) for _ in range(4)]
    labels = torch.randint(CLASSES, (batch,), generator=generator)
    steps: dict[str, Callable[[nn.Module, torch.Tensor], Step]] = {
        "plain": _plain,
        "mtopt, Gramian": _own_gramian,
        "mtopt, step": _own_step,
    }
    if peer:
        steps.update({"autogram, Gramian": _autogram, "autogram, step": _autogram_step, "autojac, step": _autojac_step})
    sides = {}
    for name, make in steps.items():
        torch.manual_seed(0)
        model = case.make()
        sides[name] = Side(_clearing(model, make(model, labels)), inputs)
    sides["mtopt, weights"] = _own_weights(model, labels, inputs)
    return sides


def _clearing(model: nn.Module, step: Step) -> Step:
    def call(given: torch.Tensor) -> torch.Tensor:
        for param in model.parameters():
            param.grad = None
        return step(given)

    return call


def _losses(model: nn.Module, given: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(given), labels, reduction="none")


def _written(model: nn.Module) -> torch.Tensor:
    """What a step left in ``.grad`` of the last parameter, as its answer."""
    *_, last = model.parameters()
    assert last.grad is not None
    return last.grad


def _plain(model: nn.Module, labels: torch.Tensor) -> Step:
    def step(given: torch.Tensor) -> torch.Tensor:
        _losses(model, given, labels).mean().backward()  # type: ignore[no-untyped-call]
        return _written(model)

    return step


def _own_gramian(model: nn.Module, labels: torch.Tensor) -> Step:
    def step(given: torch.Tensor) -> torch.Tensor:
        with mtopt.per_instance(model) as instances:
            losses = _losses(model, given, labels)
        return instances.gramian(losses)

    return step


def _own_step(model: nn.Module, labels: torch.Tensor) -> Step:
    combiner = mtopt.create_combiner("upgrad")

    def step(given: torch.Tensor) -> torch.Tensor:
        with mtopt.per_instance(model) as instances:
            losses = _losses(model, given, labels)
        instances.backward(losses, combiner)
        return _written(model)

    return step


def _own_weights(model: nn.Module, labels: torch.Tensor, inputs: Sequence[torch.Tensor]) -> Side:
    """UPGrad's weights alone: what a step spends on the rule and not on gradients."""
    gramian = _own_gramian(model, labels)
    return Side(mtopt.create_combiner("upgrad").weights, [gramian(given) for given in inputs])  # type: ignore[attr-defined]


def _autogram(model: nn.Module, labels: torch.Tensor) -> Step:
    engine = importlib.import_module("torchjd.autogram").Engine(model, batch_dim=0)

    def step(given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = engine.compute_gramian(_losses(model, given, labels))
        return found

    return step


def _autogram_step(model: nn.Module, labels: torch.Tensor) -> Step:
    engine = importlib.import_module("torchjd.autogram").Engine(model, batch_dim=0)
    weighting = importlib.import_module("torchjd.aggregation").UPGradWeighting()

    def step(given: torch.Tensor) -> torch.Tensor:
        losses = _losses(model, given, labels)
        weights = weighting(engine.compute_gramian(losses))
        losses.backward(weights)  # type: ignore[no-untyped-call]
        return _written(model)

    return step


def _autojac_step(model: nn.Module, labels: torch.Tensor) -> Step:
    autojac = importlib.import_module("torchjd.autojac")
    aggregator = importlib.import_module("torchjd.aggregation").UPGrad()

    def step(given: torch.Tensor) -> torch.Tensor:
        autojac.backward(_losses(model, given, labels))
        autojac.jac_to_grad(model.parameters(), aggregator)
        return _written(model)

    return step


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    options = _parser().parse_args(arguments)
    peer = importlib.util.find_spec("torchjd") is not None
    if not peer:
        print(
            'TorchJD is not installed, so mtopt is timed alone; to compare: pip install "mtopt[speed]"', file=sys.stderr
        )
    torch.set_num_threads(options.threads)
    results = []
    with threadpool_limits(options.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's deprecations
        for name in options.models:
            size = sum(param.numel() for param in CASES[name].make().parameters())
            for batch in options.sizes:
                sides = sides_of(CASES[name], batch, peer)
                interleave(list(sides.values()), rounds=options.rounds, seconds=options.seconds)
                medians = {title: side.median for title, side in sides.items()}
                results.append({"model": name, "parameters": size, "batch": batch, "seconds": medians})
    _print(results)
    out = Path(options.out) / "instances.json"
    settings = {
        "clock": f"CPU time of the process, {options.threads} threads",
        "rounds": options.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mtopt": mtopt.__version__,
        "torchjd": importlib.metadata.version("torchjd") if peer else "absent",
    }
    write_text(out, json.dumps({"settings": settings, "cells": results}, indent=1) + "\n")
    print(f"raw: {out}")
    return 0


def _print(results: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    titles = [title for title in results[0]["seconds"] if title != "plain"]
    table = Table(
        title="One loss per sample: CPU time of a step over a plain step on the mean loss", title_justify="left"
    )
    for heading in ("model", "parameters", "B", "plain, ms", *titles):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=False)
    for cell in results:
        plain = cell["seconds"]["plain"]
        ratios = (f"{cell['seconds'][title] / plain:.1f}" for title in titles)
        size = f"{cell['parameters'] / 1e6:.2f} M"
        table.add_row(cell["model"], size, str(cell["batch"]), f"{1e3 * plain:.2f}", *ratios)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.instances",
        description="Time a step over one loss per sample, beside a plain step and TorchJD.",
    )
    parser.add_argument(
        "--out", type=folder, default="mtopt-results/speed", metavar="DIR", help="folder of results (%(default)s)"
    )
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES), help="default: all")
    parser.add_argument("--sizes", nargs="+", type=_positive, default=list(SIZES), metavar="B", help="%(default)s")
    parser.add_argument("--rounds", type=_positive, default=15, metavar="N", help="samples of each side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="stop a cell after (%(default)s)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of torch (%(default)s)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, found {text!r}")
    return int(text)


if __name__ == "__main__":
    run_command(main)
