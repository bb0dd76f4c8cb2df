"""What a step on several ranks sends and holds, computed from its parts: for models that are not there to be measured.

    python -m mtopt_suites.speed.ranks [--billions N ...] [--ranks N ...] [--objectives K]

A step of K objectives on W ranks, with D parameters, gathers numbers of p bytes and reduces numbers of r (bfloat16 and
float32: 2 and 4). The whole tensors that enter its collectives have these bytes:

============================  ==============  ==========  =================
a step                        gathered        reduced     passes
============================  ==============  ==========  =================
plain, or a rule on losses
    DDP                       none            r D         forward, 1 back
    FSDP2                     p (2 D - R)     r D         forward, 1 back
rows
    DDP                       none            K r D       forward, K back
    FSDP2                     p (2 D - R)     K r D       forward, K back
    FSDP2, freed by each pass p (D + K E)     K r D       forward, K back
    FSDP2, freed by the last  p D             K r D       forward, K back
rows of losses as callables
    FSDP2                     K p (2 D - R)   K r D       K forward, K back
============================  ==============  ==========  =================

R are the parameters of the root's group, which torch keeps gathered after the forward, and E = D - R the others; R is 0
where the root, too, has ``reshard_after_forward=True``, by which layers are freed by the forward and by each pass. With
False they are freed by the last pass alone. A ring sends the share (W - 1) / W of what is gathered or reduce-scattered,
and twice that of what is all-reduced. ``Every(rule, n)`` takes rows in one step of n and a pass of the weighted sum in
the others.

A rank holds weights, Adam's two moments and the gradient in float32, K rows, of all these a W-th part under FSDP2, and
what is gathered at once: the whole model between the passes of one graph, unless each of them frees it, else two of its
layers. Activations come on top; they are those of plain training, since passes run one after the other.

A step takes at least the longer of computing (6 D operations per token, of which a pass back takes two thirds) and of
sending, and at most their sum.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

WAYS = ("plain", "rows", "rows, freed", "callables")
"""Ways of a step; the first is that of a rule on losses, too. The table leaves out ``"rows, kept"``, which holds what
``"rows"`` does and sends less."""

GIB = float(1 << 30)


@dataclass(frozen=True)
class Sent:
    """Bytes of the whole tensors in the collectives of a step, by kind."""

    gathered: float = 0.0
    scattered: float = 0.0
    reduced: float = 0.0

    def by_rank(self, ranks: int) -> float:
        """Bytes that each of them sends, by rings."""
        return (self.gathered + self.scattered + 2.0 * self.reduced) * (ranks - 1) / ranks


@dataclass(frozen=True)
class Machine:
    """One GPU of many, as its makers describe it, and the shares of that which trainings reach.

    Attributes:
        operations: of a matrix product in bfloat16, in a second.
        reached: share of them.
        bandwidth: bytes that it sends in a second to the others.
        memory: its bytes.
    """

    operations: float = 989e12
    reached: float = 0.4
    bandwidth: float = 50e9
    memory: float = 80 * GIB


@dataclass(frozen=True)
class Model:
    """A network, as far as a step's cost depends on it.

    Attributes:
        parameters: D.
        layers: groups of parameters of about one size that are gathered one by one.
        root: R, parameters of the group that stays gathered after the forward, and between passes.
        tokens: in the part of the batch of one rank.
        gathered, reduced: bytes of a number that is gathered, and of one that is reduced.
    """

    parameters: float
    layers: int
    root: float = 0.0
    tokens: float = 4096.0
    gathered: int = 2
    reduced: int = 4


def sent(model: Model, objectives: int, way: str, sharded: bool) -> Sent:
    """What a step puts into collectives; the small exchanges of numbers are not counted."""
    passes = 1 if way == "plain" else objectives
    reduced = model.reduced * model.parameters * passes
    if not sharded:
        return Sent(reduced=reduced)
    forwards = objectives if way == "callables" else 1
    again = {"rows": 1, "rows, kept": 0}.get(way, passes)  # passes back that gather what the one before has freed
    numbers = forwards * model.parameters + again * (model.parameters - model.root)
    return Sent(gathered=model.gathered * numbers, scattered=reduced)


def held(model: Model, objectives: int, way: str, ranks: int, sharded: bool) -> float:
    """Bytes that a rank holds, without activations."""
    share = ranks if sharded else 1
    numbers = 16.0 * model.parameters / share  # weights, two moments, gradient
    rows = 0 if way == "plain" else objectives
    numbers += rows * 4.0 * model.parameters / share
    if not sharded:
        return numbers + model.gathered * model.parameters
    layers = model.root + 2.0 * (model.parameters - model.root) / model.layers
    return numbers + model.gathered * (model.parameters if way in ("rows", "rows, kept") else layers)


def computing(model: Model, objectives: int, way: str, machine: Machine) -> float:
    """Seconds of a rank's forwards and backwards."""
    forwards = objectives if way == "callables" else 1
    backwards = 1 if way == "plain" else objectives
    operations = (2.0 * forwards + 4.0 * backwards) * model.parameters * model.tokens
    return operations / (machine.operations * machine.reached)


def seconds(
    model: Model, objectives: int, way: str, ranks: int, sharded: bool, machine: Machine
) -> tuple[float, float]:
    """Bounds on a step: computing and sending at the same time, and one after the other."""
    work = computing(model, objectives, way, machine)
    wire = sent(model, objectives, way, sharded).by_rank(ranks) / machine.bandwidth
    return max(work, wire), work + wire


def plan(billions: Sequence[float], ranks: Sequence[int], objectives: int = 2) -> list[list[str]]:
    """A table, with its head: for each model, number of ranks and way what a rank holds and sends, and the time.

    Replicas are in it where a GPU can hold one.
    """
    machine = Machine()
    head = ["parameters", "ranks", "engine", "step", "GiB held", "GiB sent", "seconds", "over plain"]
    table = [head]
    for size in billions:
        model = model_of(size)
        for count in ranks:
            for sharded in (False, True):
                plainly = seconds(model, objectives, "plain", count, sharded, machine)
                for way in WAYS if sharded else WAYS[:2]:
                    memory = held(model, objectives, way, count, sharded)
                    if not sharded and memory > machine.memory:
                        continue
                    least, most = seconds(model, objectives, way, count, sharded, machine)
                    fits = "" if memory < machine.memory else " (more than there is)"
                    bytes_sent = sent(model, objectives, way, sharded).by_rank(count) / GIB
                    over = f"{least / plainly[0]:.2f} to {most / plainly[1]:.2f}"
                    cells = [f"{size:g}B", str(count), "FSDP2" if sharded else "DDP", way]
                    cells += [f"{memory / GIB:.0f}{fits}", f"{bytes_sent:.0f}", f"{least:.2f} to {most:.2f}", over]
                    table.append(cells)
    return table


def model_of(billions: float) -> Model:
    """A Llama of this size: 32 layers at 7, 80 at 70, and embedding and head of a 32000-word vocabulary in the root."""
    layers, width = (80, 8192) if billions > 20 else (32, 4096)
    return Model(billions * 1e9, layers, root=2.0 * 32000 * width)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan as a table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--billions", nargs="+", type=float, default=[7.0, 70.0], help="parameters")
    parser.add_argument("--ranks", nargs="+", type=int, default=[8, 64, 512])
    parser.add_argument("--objectives", type=int, default=2)
    options = parser.parse_args(arguments)
    head, *rows = plan(options.billions, options.ranks, options.objectives)
    for line in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(line)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
