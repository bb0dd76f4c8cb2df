"""From K losses to K gradient rows: one by one, features first, or in a batch; nothing is concatenated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from mtopt._losses import Batch
from mtopt.autograd._batched import NotBatchedError, batched_rows, unit_cotangents
from mtopt.autograd._call import Call
from mtopt.autograd._reach import (
    agree_on_shards,
    boundary_of,
    losses_on_graph,
    reach_behind,
    refuse_reentrant,
    require_dense,
    require_reach,
    trunk_of,
)
from mtopt.autograd._retained import set_aside
from mtopt.distributed import ALONE, NamedRow, Processes
from mtopt.linalg import Row, join_complex, split_complex


def make_rows(batch: Batch, call: Call, *, batched: bool = False) -> tuple[Iterator[Row], set[int] | None, str]:
    """One gradient row for each loss present, made in order and let go once handed out; heads first with features.

    Of several processes, each makes the rows of its part of the batch, and gets the sums.

    Also the ids of the trunk's parameters, where features name them, and how the rows are made, in words.
    """
    features, processes = call.features, call.processes
    if not batch.all_tensors:
        if features is not None:
            raise ValueError("features names a graph that the losses share, and callables share none; leave one out")
        why = "; not batched, since they have no graph in common" if batched else ""
        rows = _summed(_make_in_turn(batch, call), call)
        return rows, None, f"one batch after the other: the losses are callables{why}"
    losses = losses_on_graph(batch, call)
    why = ""
    trunk: set[int] | None = None
    heads: HeadRows | None = None
    if features is not None:
        boundary = boundary_of(features)
        trunk, obstacle = trunk_of(boundary, losses, call)
        if processes.shards is not None:
            obstacle = "a pass to shards begins at a loss"
        if obstacle is None:
            heads = HeadRows.of(batch.names, losses, call, boundary, trunk)
        else:
            why = f"; not features first, since {obstacle}"
    if batched:
        made: list[Row] = []
        obstacle = None
        try:
            if processes.shards is not None:
                raise NotBatchedError("fully_shard reduces the gradients of one loss at a time")
            made = _make_in_batch(losses, call, heads)
        except NotBatchedError as error:
            obstacle = str(error)
        if not processes.meet(obstacle is not None):
            rows = _summed(iter(zip(batch.names, made, strict=True)), call)
            description = "features first: heads once, then the trunk for all losses" if heads else "all losses"
            return rows, trunk, f"{description} in one batched backward pass{why}"
        made.clear()
        why += f"; not batched, since {obstacle or 'another rank cannot'}"
    if heads is not None:
        description = f"features first: heads once, then one backward pass of the trunk per loss{why}"
        return _summed(_make_through_features(batch, call, heads), call), trunk, description
    rows = _summed(_make_one_by_one(batch, losses, call), call)
    return rows, trunk, f"one backward pass per loss{why}"


def _summed(rows: Iterator[NamedRow], call: Call) -> Iterator[Row]:
    """Rows as they are over all processes, none of them without a parameter that its loss reaches."""
    for name, row in call.processes.sum_rows(rows, call.params):
        require_reach(name, row)
        yield row
        del row


def _make_in_turn(batch: Batch, call: Call) -> Iterator[NamedRow]:
    """Rows of losses of which some are callables: each is run, differentiated and freed."""
    last = batch.present[-1]
    for name, k in zip(batch.names, list(batch.present), strict=True):
        loss = batch.run(k)
        if loss is None:
            continue
        refuse_reentrant([loss])
        agree_on_shards([name], [loss], call.params, call.processes)
        # a tensor among the callables may share its graph with a later one
        retain = batch.retain_graph or (isinstance(batch.given[k], torch.Tensor) and k != last)
        row = row_of(name, loss, call.params, retain_graph=retain, processes=call.processes)
        del loss
        yield name, row
        del row


def _make_one_by_one(batch: Batch, losses: Sequence[torch.Tensor], call: Call) -> Iterator[NamedRow]:
    last = len(losses) - 1
    for k, name in enumerate(batch.names):
        keep = k < last or batch.retain_graph
        row = row_of(name, losses[k], call.params, retain_graph=keep, processes=call.processes)
        yield name, row
        del row


def _make_in_batch(losses: Sequence[torch.Tensor], call: Call, heads: HeadRows | None) -> list[Row]:
    reached = reach_behind(losses)
    if heads is None:
        return batched_rows(losses, unit_cotangents(losses), call.params, reached)
    zeros = [torch.zeros_like(feature) for feature in heads.features]
    columns = [
        torch.stack([zero if (seen := row[index]) is None else join_complex(seen, zero) for row in heads.rows])
        for index, zero in enumerate(zeros)
    ]
    through: list[Row] = [[]] * len(losses)
    if heads.inside:
        with set_aside(heads.features):
            through = batched_rows(heads.features, columns, heads.inside, reached)
    return [heads.joined(k, row, call.params) for k, row in enumerate(through)]


def row_of(
    name: str, loss: torch.Tensor, params: Sequence[torch.Tensor], *, retain_graph: bool, processes: Processes = ALONE
) -> Row:
    """The gradient of ``loss`` with respect to ``params``; that of a complex one as pairs of reals."""
    return _require_dense_row(name, processes.differentiate([loss], list(params), retain_graph=retain_graph))


def _require_dense_row(name: str, gradients: Sequence[torch.Tensor | None]) -> Row:
    require_dense((name,), gradients)
    return [None if gradient is None else split_complex(gradient) for gradient in gradients]


@dataclass(frozen=True, slots=True)
class HeadRows:
    """The heads' part of the rows: for each loss the gradients of ``features``, the trunk's outputs, then those of the
    parameters ``outside`` of the trunk; the others are ``inside``."""

    features: Sequence[torch.Tensor]
    inside: Sequence[torch.Tensor]
    outside: Sequence[torch.Tensor]
    rows: Sequence[Row]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        losses: Sequence[torch.Tensor],
        call: Call,
        features: Sequence[torch.Tensor],
        trunk: set[int],
    ) -> Self:
        """The heads, differentiated once each down to ``features``. ``trunk``: the ids of what is behind these."""
        inside = [param for param in call.params if id(param) in trunk]
        outside = [param for param in call.params if id(param) not in trunk]
        ends = [*features, *outside]
        rows = [row_of(name, loss, ends, retain_graph=True) for name, loss in zip(names, losses, strict=True)]
        return cls(features, inside, outside, rows)

    def joined(self, k: int, trunk: Sequence[torch.Tensor | None], params: Sequence[torch.Tensor]) -> Row:
        """Row k over ``params``, with the trunk's gradients given."""
        by_id = dict(zip(map(id, self.outside), self.rows[k][len(self.features) :], strict=True))
        by_id.update(zip(map(id, self.inside), trunk, strict=True))
        return [by_id[id(p)] for p in params]


def _make_through_features(batch: Batch, call: Call, heads: HeadRows) -> Iterator[NamedRow]:
    """The rows behind the heads: one backward pass of the trunk per loss."""
    names = batch.names
    for k, name in enumerate(names):
        seen = [(f, join_complex(g, f)) for f, g in zip(heads.features, heads.rows[k], strict=False) if g is not None]
        through: Sequence[torch.Tensor | None] = [None] * len(heads.inside)
        if seen and heads.inside:
            outputs, cotangents = zip(*seen, strict=True)
            with set_aside(outputs):  # where they retain their gradient they have had it from the heads
                retain = batch.retain_graph or k + 1 < len(names)
                gradients = torch.autograd.grad(
                    outputs, list(heads.inside), cotangents, retain_graph=retain, allow_unused=True
                )
            through = _require_dense_row(name, gradients)
            del gradients
        row = heads.joined(k, through, call.params)
        del through
        yield name, row
        del row
