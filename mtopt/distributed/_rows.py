"""Rows over sharded parameters between steps: what lies here of them, put together and taken apart again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mtopt.distributed._shards import cut_row, shape_of_row
from mtopt.linalg import view_reals


def as_rows_of(param: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``rows`` (..., what lies here of ``param``) as one DTensor (..., ``param``), sharded as the parameter is."""
    from torch.distributed.tensor import DTensor, Shard

    mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]
    leading = rows.shape[: rows.ndim - view_reals(param).ndim]
    shape = torch.Size([*leading, *shape_of_row(param)])
    moved = [Shard(each.dim + len(leading)) if isinstance(each, Shard) else each for each in placements]
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(rows.contiguous(), mesh, moved, run_check=False, shape=shape, stride=stride)


def empty_rows_of(param: torch.Tensor, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Memory for a tensor of ``shape``, which ends with that of ``param``, sharded as the parameter is."""
    here = view_reals(param)
    leading = shape[: len(shape) - here.ndim]
    return as_rows_of(param, torch.empty((*leading, *here.shape), dtype=dtype, device=here.device))


def part_rows(rows: torch.Tensor, params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``rows`` (..., coordinates that lie here) as one DTensor (..., parameter) for each parameter.

    Raises:
        ValueError: they have not as many coordinates as the parameters.
    """
    shapes = [view_reals(param).shape for param in params]
    _require_length(rows, shapes)
    pieces = rows.split_with_sizes([math.prod(shape) for shape in shapes], dim=-1)
    leading = rows.shape[:-1]
    return [
        as_rows_of(param, piece.reshape(*leading, *shape))
        for param, piece, shape in zip(params, pieces, shapes, strict=True)
    ]


def join_rows(parts: Sequence[torch.Tensor], params: Sequence[torch.Tensor]) -> torch.Tensor:
    """One tensor (..., coordinates) of what lies here of ``parts``, which end with the shapes of the parameters'."""
    flat = []
    for part, param in zip(parts, params, strict=True):
        here: Any = part.to_local() if hasattr(part, "to_local") else part
        dimensions = len(shape_of_row(param))
        flat.append(here.reshape(*here.shape[: here.ndim - dimensions], -1))
    return torch.cat(flat, dim=-1)


def cut_rows(rows: torch.Tensor, params: Sequence[torch.Tensor]) -> torch.Tensor:
    """What lies here of whole ``rows`` (..., coordinates).

    Raises:
        ValueError: they have not as many coordinates as the parameters.
    """
    shapes = [shape_of_row(param) for param in params]
    _require_length(rows, shapes)
    if rows.ndim == 1:
        return cut_row(rows, params)
    return torch.stack([cut_rows(row, params) for row in rows]) if len(rows) else rows[:, :0]


def _require_length(rows: torch.Tensor, shapes: Sequence[torch.Size]) -> None:
    there = sum(math.prod(shape) for shape in shapes)
    if rows.shape[-1] != there:
        raise ValueError(f"rows have {rows.shape[-1]} coordinates, and the {len(shapes)} parameters {there}")
