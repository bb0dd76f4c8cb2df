"""The losses of one call of ``mtopt.backward``, and their gradient rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch

from mtopt.autograd._batched import NotBatchedError, batched_rows, unit_cotangents
from mtopt.autograd._complex import as_gradient
from mtopt.autograd._graph import edge_of, leaves_behind, nested, reach_behind, refuse_reentrant
from mtopt.autograd._objective import ABSENT, Losses, NoLossError, check_loss, read_losses
from mtopt.autograd._retained import set_aside
from mtopt.autograd._rows import Ends, Row, heads_of, require_reach, row_of, rows_through_features
from mtopt.linalg import Place

Features = torch.Tensor | Sequence[torch.Tensor] | None


class Request:
    """The losses of one call: which are there, signed and scaled, each checked when it is used.

    Of a loss that is a callable it is known only once it was run that it is there: then ``present`` may get shorter.
    """

    def __init__(
        self,
        losses: Losses | Callable[[], Losses],
        places: Sequence[Place],
        scaler: Any,
        *,
        retain_graph: bool = False,
    ) -> None:
        self.objectives, self.given = read_losses(losses() if callable(losses) else losses)  # of all, present or not
        self.retain_graph = retain_graph
        self.present = [k for k, loss in enumerate(self.given) if loss is not None]
        self.places = places
        self.params = [place.parameter for place in places]
        self.scaled = scaler is not None and scaler.is_enabled()
        # asked by scaling a one: a scaler sets itself up when it scales for the first time, and not in get_scale()
        self.scale = float(scaler.scale(torch.ones((), device=self.params[0].device))) if self.scaled else 1.0
        self.all_tensors = all(isinstance(self.given[k], torch.Tensor) for k in self.present)
        self._values: dict[int, torch.Tensor] = {}

    @property
    def names(self) -> list[str]:
        """Those of the losses present."""
        return [self.objectives[k].name for k in self.present]

    def loss(self, k: int) -> torch.Tensor | None:
        """Loss ``k``, run if it is a callable: the value is kept, what is returned is signed and scaled.

        None, and no longer among those present, where it turns out to be absent.
        """
        given = self.given[k]
        found = given() if callable(given) else given
        if found is ABSENT:
            self.keep(set(self.present) - {k})
            if not self.present:
                raise NoLossError(f"losses holds no loss: {[o.name for o in self.objectives]}; skip this batch")
            return None
        loss = self._read(k, found)
        refuse_reentrant([loss])
        return loss

    def _read(self, k: int, found: object) -> torch.Tensor:
        loss = check_loss(self.objectives[k].name, found)
        self._values[k] = loss.detach()
        factor = self.objectives[k].sign * self.scale
        if factor != 1.0:
            loss = loss * factor
        return loss.reshape(()) if loss.ndim else loss

    def value(self, position: int) -> float:
        """The loss at ``position`` among those present, once it was run, with the sign that the rule sees."""
        k = self.present[position]
        return self.objectives[k].sign * float(self._values[k])

    def losses(self) -> list[torch.Tensor]:
        """All that are present, where all are tensors."""
        found = [self._read(k, self.given[k]) for k in self.present]
        refuse_reentrant(found)
        return found

    def keep(self, present: Set[int]) -> None:
        """Take all other losses as absent."""
        self.present = [k for k in self.present if k in present]
        self._values = {k: value for k, value in self._values.items() if k in present}

    def values(self) -> list[float]:
        """The losses run so far as the user knows them: one transfer from a device, when all is queued."""
        values = self._values.values()
        if all(value.is_cpu for value in values):
            return [float(value) for value in values]
        found: list[float] = torch.stack([value.reshape(()).double() for value in values]).tolist()
        return found


@dataclass(slots=True)
class Source:
    """The gradient rows of a request, to be made in order, one for each loss present.

    Attributes:
        rows: makes them; each is let go once it is handed out.
        trunk: the ids of the trunk's parameters, where features name them.
        plan: how they are made, and why.
        reaches: for each parameter the losses that reach it, where the graph was read for it.
    """

    rows: Iterator[Row]
    trunk: set[int] | None
    plan: str
    reaches: Sequence[tuple[int, ...]] | None = None


def rows_of(request: Request, features: Features = None) -> tuple[list[Row], set[int] | None, str]:
    """One gradient row for each loss present; the ids of the trunk's parameters where features name them; the plan."""
    source = source_of(request, features)
    return list(source.rows), source.trunk, source.plan


def source_of(request: Request, features: Features = None, *, batched: bool = False) -> Source:
    """The rows of ``request``: heads first where ``features`` are given, one by one or in a batch."""
    if not request.all_tensors:
        if features is not None:
            raise ValueError("features names a graph that the losses share, and callables share none; leave one out")
        why = "; not batched, since they have no graph in common" if batched else ""
        return Source(_rows_in_turn(request), None, f"one batch after the other: the losses are callables{why}")
    losses = request.losses()
    why = ""
    trunk: set[int] | None = None
    ends: Ends | None = None
    if features is not None:
        boundary = boundary_of(features)
        trunk, obstacle = trunk_behind(boundary, losses, request.params)
        if obstacle is None:
            ends = heads_of(request.names, losses, request.params, boundary, trunk)
        else:
            why = f"; not features first, since {obstacle}"
    if batched:
        try:
            rows, reaches = _batch(request, losses, ends)
        except NotBatchedError as error:
            why += f"; not batched, since {error}"
        else:
            plan = "features first: heads once, then the trunk for all losses" if ends else "all losses"
            return Source(iter(rows), trunk, f"{plan} in one batched backward{why}", reaches)
    if ends is not None:
        plan = f"features first: heads once, then a trunk backward a loss{why}"
        rows_behind = rows_through_features(request.names, request.params, ends, retain_graph=request.retain_graph)
        return Source(rows_behind, trunk, plan)
    return Source(_rows_one_by_one(request, losses), trunk, f"a backward a loss{why}")


def _rows_in_turn(request: Request) -> Iterator[Row]:
    """Rows of losses of which some are callables: each is run, differentiated and freed."""
    last = request.present[-1]
    for name, k in zip(request.names, list(request.present), strict=True):
        loss = request.loss(k)
        if loss is None:
            continue
        # a tensor among the callables may share its graph with a later one
        retain = request.retain_graph or (isinstance(request.given[k], torch.Tensor) and k != last)
        row = row_of(name, loss, request.params, retain_graph=retain)
        del loss
        require_reach(name, row)
        yield row
        del row


def _rows_one_by_one(request: Request, losses: Sequence[torch.Tensor]) -> Iterator[Row]:
    last = len(losses) - 1
    for k, name in enumerate(request.names):
        row = row_of(name, losses[k], request.params, retain_graph=k < last or request.retain_graph)
        require_reach(name, row)
        yield row
        del row


def _batch(
    request: Request, losses: Sequence[torch.Tensor], ends: Ends | None
) -> tuple[list[Row], Sequence[tuple[int, ...]]]:
    reached = reach_behind(losses)
    reaches = [reached.get(id(param), ()) for param in request.params]
    count = len(losses)
    if ends is None:
        rows = batched_rows(losses, unit_cotangents(losses), request.params, reaches, count)
    else:
        zeros = [torch.zeros_like(feature) for feature in ends.features]
        columns = [
            torch.stack([zero if (seen := row[index]) is None else as_gradient(seen, zero) for row in ends.rows])
            for index, zero in enumerate(zeros)
        ]
        inside = [reached.get(id(param), ()) for param in ends.inside]
        with set_aside(ends.features):
            through = batched_rows(ends.features, columns, ends.inside, inside, count) if ends.inside else [[]] * count
        rows = [ends.joined(k, row, request.params) for k, row in enumerate(through)]
    for name, row in zip(request.names, rows, strict=True):
        require_reach(name, row)
    return rows, reaches


def trunk_behind(
    boundary: Sequence[torch.Tensor], losses: Sequence[torch.Tensor], params: Sequence[torch.Tensor]
) -> tuple[set[int], str | None]:
    """The ids of the leaves behind ``boundary``, and why it does not stand for them all; None where it does."""
    trunk = leaves_behind(boundary)
    around = leaves_behind(losses, stop_at=boundary) & trunk & {id(p) for p in params}
    if around:
        return trunk, f"{len(around)} of the parameters behind features are reached around it, too"
    return trunk, "one of the features is computed from another" if nested(boundary) else None


def check_features(features: object) -> None:
    """Raise for what is neither a tensor nor some of them, whatever the plan makes of it."""
    if features is None or isinstance(features, torch.Tensor):
        return
    if not isinstance(features, Sequence) or isinstance(features, str):
        raise TypeError(f"features must be a tensor or a sequence of tensors, found {type(features).__name__}")
    if len(features) == 0:
        raise ValueError("features is empty: give what the shared trunk gave, or None where no trunk is shared")
    for index, feature in enumerate(features):
        if not isinstance(feature, torch.Tensor):
            raise ValueError(f"features[{index}] must be a tensor with a graph, found {type(feature).__name__}")


def boundary_of(features: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``features`` as a list without repetitions."""
    boundary = [features] if isinstance(features, torch.Tensor) else list(features)
    for index, feature in enumerate(boundary):
        if not feature.requires_grad:
            raise ValueError(
                f"features[{index}] must be a tensor with a graph: what the trunk gave and the losses came from"
            )
    return list({edge_of(feature): feature for feature in boundary}.values())
