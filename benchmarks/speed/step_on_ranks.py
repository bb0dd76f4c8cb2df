"""Time and memory of a step on two ranks of this machine, over the same step on one process with half the batch.

    python -m mtopt_suites.speed.step_on_ranks [--objectives 2 8] [--rounds 9]

Two processes, each with one thread on a core of its own. In each round both first step alone, at the same time, so that
the cores are as busy as they are later; then they join a gloo group and step as replicas (DDP) and sharded (FSDP2), and
at last they send what such steps send and do nothing else. A step is a forward, the passes back and SGD. ``wire`` are
the collectives of as many bytes as :func:`ranks.sent` counts, one layer's at a time, none hidden behind computing.
Ratios are taken round by round, so that what else the machine does falls on both sides, and medians of them shown: of
wall time, which says little where other processes want the same cores, and of CPU time, which leaves out all waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import mtopt

from .._command import run_command
from ._memory import MIB, peak_tensor_bytes
from .ranks import Model, sent

RANKS = 2
LAYERS, WIDTH, BATCH = 8, 512, 256
STEPS = 3

ENGINES = ("alone", "DDP", "FSDP2")
WAYS = ("plain", "rows")


class Net(nn.Module):
    """Layers of one size, and an output for each objective."""

    def __init__(self, objectives: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.heads = nn.Linear(WIDTH, objectives)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            inputs = layer(inputs).tanh()
        return self.heads(inputs)  # type: ignore[no-any-return]


class Sample(NamedTuple):
    """Seconds of a step, and the share of them that this process was computing."""

    wall: float
    cpu: float


Step = Callable[[], None]


def step_of(objectives: int, engine: str, way: str) -> Step:
    """A training step on half the batch, of a model that is made here."""
    model: Any = Net(objectives)
    if engine == "DDP":
        model = DistributedDataParallel(model)
    if engine == "FSDP2":
        mesh = init_device_mesh("cpu", (RANKS,))
        for part in (*model.layers, model):
            fully_shard(part, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rule = mtopt.create_combiner("mgda")
    inputs, targets = torch.randn(BATCH // RANKS, WIDTH), torch.randn(BATCH // RANKS, objectives)

    def step() -> None:
        optimizer.zero_grad()
        losses = (model(inputs) - targets).square().mean(0)
        if way == "plain":
            losses.sum().backward()
        else:
            mtopt.backward(list(losses), model, rule)
        optimizer.step()

    return step


def wires() -> Iterator[tuple[str, Step]]:
    """By kind, all parameters in one collective per layer."""
    whole = torch.zeros(WIDTH * (WIDTH + 1))
    part = torch.zeros(whole.numel() // RANKS)

    def each(collective: Callable[[], Any]) -> Step:
        def step() -> None:
            for _ in range(LAYERS):
                collective()

        return step

    yield "reduced", each(lambda: distributed.all_reduce(whole))
    yield "gathered", each(lambda: distributed.all_gather_into_tensor(whole, part))
    yield "scattered", each(lambda: distributed.reduce_scatter_tensor(part, whole))


def timed(step: Step, together: Callable[[], Any]) -> Sample:
    step()
    step()  # torch sets itself up in the first, and DDP orders its buckets after it
    together()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(STEPS):
        step()
    return Sample((time.perf_counter() - wall) / STEPS, (time.process_time() - cpu) / STEPS)


def _rank(rank: int, folder: str, objectives: int, rounds: int, barrier: Any, results: Any) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    found: list[dict[str, Sample]] = []
    weights: dict[str, float] = {}
    for turn in range(rounds):
        samples: dict[str, Sample] = {}
        for way in WAYS:
            samples[f"alone {way}"] = timed(step_of(objectives, "alone", way), barrier.wait)
        barrier.wait()
        distributed.init_process_group("gloo", f"file://{folder}/store-{turn}", rank=rank, world_size=RANKS)
        cases = [(engine, way) for engine in ENGINES[1:] for way in WAYS]
        for engine, way in cases if turn % 2 else reversed(cases):
            samples[f"{engine} {way}"] = timed(step_of(objectives, engine, way), barrier.wait)
        samples |= {kind: timed(wire, barrier.wait) for kind, wire in wires()}
        if turn == 0:
            weights = {f"{e} {w}": peak_tensor_bytes(_third(step_of(objectives, e, w))) / MIB for e, w in cases}
        barrier.wait()
        distributed.destroy_process_group()
        if turn == 0:
            weights |= {f"alone {w}": peak_tensor_bytes(_third(step_of(objectives, "alone", w))) / MIB for w in WAYS}
        found.append(samples)
    results.put((rank, found, weights))
    barrier.wait()  # a queue's process must not end before it is read


def _third(step: Step) -> Step:
    step()
    step()
    return step


def measure(objectives: int, rounds: int) -> tuple[list[dict[str, Sample]], dict[str, float]]:
    """Of each round a step of every kind, which takes as long as on its slower rank; and MiB that a step allocates."""
    context = torch.multiprocessing.get_context("spawn")
    results, barrier = context.SimpleQueue(), context.Barrier(RANKS)
    with tempfile.TemporaryDirectory() as folder:
        given = folder, objectives, rounds, barrier, results
        processes = [context.Process(target=_rank, args=(rank, *given)) for rank in range(RANKS)]
        for process in processes:
            process.start()
        (_, first, weights), (_, second, _) = sorted(results.get() for _ in processes)
        for process in processes:
            process.join()
    slower = [
        {name: Sample(*map(max, one[name], other[name])) for name in one}
        for one, other in zip(first, second, strict=True)
    ]
    return slower, weights


def wire_of(samples: dict[str, Sample], objectives: int, engine: str, way: str) -> Sample:
    """Seconds of the collectives of a step and of nothing else, in this round."""
    numbers = float(sum(param.numel() for param in Net(objectives).parameters()))
    root = float(WIDTH * objectives + objectives)
    bytes_of = sent(Model(numbers, LAYERS, root=root, gathered=4), objectives, way, engine == "FSDP2")
    once = 4.0 * LAYERS * WIDTH * (WIDTH + 1)  # what was sent to be timed
    times = {kind: getattr(bytes_of, kind) / once for kind in ("reduced", "gathered", "scattered")}
    return Sample(*(sum(times[kind] * samples[kind][clock] for kind in times) for clock in (0, 1)))


def line_of(rounds: Sequence[dict[str, Sample]], objectives: int, engine: str, way: str) -> list[str]:
    """Of one engine and way: milliseconds by both clocks, and ratios to the step alone, and with the wire added."""
    steps, alone = ([samples[f"{name} {way}"] for samples in rounds] for name in (engine, "alone"))
    cells = [str(objectives), way, engine, *(f"{1e3 * _middle(each[clock] for each in steps):.0f}" for clock in (0, 1))]
    if engine == "alone":
        return [*cells, *[""] * 4]
    wires = [wire_of(samples, objectives, engine, way) for samples in rounds]
    cells.append(f"{1e3 * _middle(wire.wall for wire in wires):.0f}")
    cells.append(f"{_middle(step.wall / one.wall for step, one in zip(steps, alone, strict=True)):.2f}")
    for clock in (0, 1):
        each = zip(steps, alone, wires, strict=True)
        cells.append(f"{_middle(step[clock] / (one[clock] + wire[clock]) for step, one, wire in each):.2f}")
    return cells


def _middle(values: Iterable[float]) -> float:
    return statistics.median(values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--objectives", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    if len(os.sched_getaffinity(0)) < RANKS:
        parser.error(f"needs {RANKS} cores, found {len(os.sched_getaffinity(0))}")
    head = ["K", "step", "engine", "ms", "ms of CPU", "ms of wire", "over alone"]
    head += ["over alone and wire", "the same, CPU", "MiB"]
    for line in (head, ["---"] * len(head)):
        print(f"| {' | '.join(line)} |")
    for objectives in options.objectives:
        rounds, weights = measure(objectives, options.rounds)
        for way in WAYS:
            for engine in ENGINES:
                cells = [*line_of(rounds, objectives, engine, way), f"{weights[f'{engine} {way}']:.0f}"]
                print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
