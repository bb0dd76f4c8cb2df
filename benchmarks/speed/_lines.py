"""The steps that are timed and weighed, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

import mtopt

from . import _floor, _own, _peers
from ._floor import Step
from .models import Shared

Kind = Literal["plain", "floor", "own", "TorchJD", "LibMTL", "part"]

PEERS: tuple[Kind, ...] = ("TorchJD", "LibMTL")


@dataclass(frozen=True)
class Line:
    """One kind of step.

    Attributes:
        name: unique.
        kind: whose it is; a ``"part"`` is no step, but what the cost model is made of.
        make: the step on a model of its own.
        steps: how many make a cycle: one sample is their mean.
        weighed: whether its memory is measured.
        only: the K it is for; None for any.
    """

    name: str
    kind: Kind
    make: Callable[[Shared], Step]
    steps: int = 1
    weighed: bool = True
    only: int | None = None


def _weights(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return mtopt.create_combiner(name).weights  # type: ignore[attr-defined,no-any-return]


def _hand(name: str) -> Callable[[Shared], Step]:
    return lambda model: _floor.hand_written(model, _weights(name))


def _own_line(name: str, **options: object) -> Callable[[Shared], Step]:
    return lambda model: _own.named(model, name, **options)


def _two_batches(make: Callable[[Shared, torch.Tensor], Step]) -> Callable[[Shared], Step]:
    def made(model: Shared) -> Step:
        generator = torch.Generator().manual_seed(1)
        given = torch.randn(model.inputs.shape, generator=generator)  # type: ignore[arg-type]
        return make(model, given.to(model.inputs.device))  # type: ignore[arg-type]

    return made


def _forward(model: Shared) -> Step:
    def part() -> None:
        model.losses()

    return part


def _forward_only(model: Shared) -> Step:
    def part() -> None:
        with torch.no_grad():
            model.losses()

    return part


def _trunk_backward(model: Shared) -> Step:
    """One backward from the trunk's output, on a graph that stays."""
    features, trunk = model.features(), list(model.trunk.parameters())
    cotangent = torch.full_like(features, 1e-3)

    def part() -> None:
        torch.autograd.grad(features, trunk, cotangent, retain_graph=True)

    return part


def _rule(name: str) -> Callable[[Shared], Step]:
    """What the rule itself does to a (K, D) Jacobian: inner products, weights, combination."""

    def made(model: Shared) -> Step:
        rule = mtopt.create_combiner(name)
        generator = torch.Generator().manual_seed(1)
        jacobian = torch.randn(len(model.heads), model.shared_size, generator=generator).to(model.inputs.device)  # type: ignore[arg-type]
        losses = torch.ones(len(model.heads), dtype=torch.float64)

        def part() -> None:
            rule(jacobian, losses)

        return part

    return made


_PARTS = (
    Line("forward", "part", _forward, weighed=False),
    Line("forward without a graph", "part", _forward_only, weighed=False),
    Line("trunk backward", "part", _trunk_backward, weighed=False),
    Line("rule: mgda", "part", _rule("mgda"), weighed=False),
)

_OWN = (
    Line("linear", "own", _own_line("linear")),
    Line("uw", "own", _own_line("uw"), weighed=False),
    Line("mgda", "own", _own_line("mgda")),
    Line("mgda, rows", "own", _own_line("mgda", plan="loop")),
    Line("upgrad", "own", _own_line("upgrad")),
    Line("mgda, batched", "own", _own_line("mgda", plan="batched")),
    Line("mgda, features first", "own", lambda model: _own.features_first(model, "mgda")),
    Line("mgda, recompute", "own", _own_line("mgda", store="recompute")),
    Line("mgda, bfloat16", "own", _own_line("mgda", store=torch.bfloat16)),
    Line("mgda_ub", "own", _own.representation),
    Line("ngdiff", "own", _own_line("ngdiff")),
    Line("Every(mgda, 10)", "own", lambda model: _own.every_tenth(model, "mgda"), steps=10),
    Line("mgda, matrix-free exact", "own", lambda model: _own.matrix_free(model, "mgda", "exact")),
    Line("mgda, matrix-free displacement", "own", lambda model: _own.matrix_free(model, "mgda", "displacement")),
    Line(
        "nash_mtl, matrix-free exact", "own", lambda model: _own.matrix_free(model, "nash_mtl", "exact"), weighed=False
    ),
    Line(
        "nash_mtl, matrix-free displacement",
        "own",
        lambda model: _own.matrix_free(model, "nash_mtl", "displacement"),
        weighed=False,
    ),
    Line("ngdiff, two batches", "own", _two_batches(_own.separate), only=2),
)

_FLOOR = (
    Line("plain sum", "plain", _floor.plain),
    Line("hand-written, mgda", "floor", _hand("mgda")),
    Line("hand-written, upgrad", "floor", _hand("upgrad"), weighed=False),
    Line("concatenated batch", "floor", _two_batches(_floor.concatenated), only=2),
    Line("hand-written, two batches", "floor", _two_batches(_floor.separate), only=2),
)

_TORCHJD = (
    Line("mtl_backward, UPGrad", "TorchJD", lambda model: _peers.mtl_backward(model, "UPGrad")),
    Line("mtl_backward, MGDA", "TorchJD", lambda model: _peers.mtl_backward(model, "MGDA")),
    Line("mtl_backward, UPGrad, chunk 1", "TorchJD", lambda model: _peers.mtl_backward(model, "UPGrad", chunk=1)),
    Line(
        "mtl_backward, UPGrad, chunk 1, Gramian",
        "TorchJD",
        lambda model: _peers.mtl_backward(model, "UPGrad", chunk=1, by_gramian=True),
    ),
    Line("backward, UPGrad", "TorchJD", lambda model: _peers.backward(model, "UPGrad")),
    Line("autogram, UPGrad", "TorchJD", lambda model: _peers.autogram(model, "UPGradWeighting")),
)

_LIBMTL = (
    Line("LibMTL EW", "LibMTL", lambda model: _peers.libmtl(model, "EW"), weighed=False),
    Line("LibMTL MGDA", "LibMTL", lambda model: _peers.libmtl(model, "MGDA", mgda_gn="none")),
    Line("LibMTL PCGrad", "LibMTL", lambda model: _peers.libmtl(model, "PCGrad")),
)


def lines(tasks: int, *, peers: bool = True) -> list[Line]:
    """Those for K losses, of the libraries that are installed."""
    found = [*_FLOOR, *_OWN, *_PARTS]
    for package, theirs in (("torchjd", _TORCHJD), ("LibMTL", _LIBMTL)):
        if peers and _peers.installed(package):
            found += theirs
    return [line for line in found if line.only in (None, tasks)]
