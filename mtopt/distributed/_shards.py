"""The shards of one step: backward passes that end at them, sums over them, and whole rows made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mtopt.distributed._one_pass import gradients_apart, reduced_at_once
from mtopt.distributed._sharded import Holder, holder_of, whole_of
from mtopt.linalg import Gradients, cut_to_shapes, view_shard


class Shards:
    """Parameters that ``fully_shard`` holds, all of them on one mesh: its last dimension shards, another one copies.

    Attributes:
        mesh: the mesh.
        first: the ranks, by their numbers, that have all shards once.
    """

    def __init__(self, params: Sequence[torch.Tensor]) -> None:
        self.params = params
        self._holders = {id(param): _require_holder(number, param) for number, param in enumerate(params)}
        self.mesh = params[0].device_mesh  # type: ignore[attr-defined]
        for number, param in enumerate(params):
            _require_layout(number, param, self.mesh)
        whole = self.mesh.size() == torch.distributed.get_world_size()
        self.first = self.mesh.mesh.reshape(-1, self.mesh.shape[-1])[0].tolist() if whole else range(self.mesh.size())
        self._groups = list({id(group): group for group in map(_group_of, self._holders.values())}.values())
        for group in self._groups:
            if getattr(group, "gradient_divide_factor", None) is not None:
                raise ValueError(
                    "params holds parameters with set_gradient_divide_factor, and mtopt takes the mean over the "
                    "ranks; leave it out, and put the factor on the losses"
                )

    # -- one backward pass --------------------------------------------------------------------------------------

    def differentiate(
        self,
        outputs: Sequence[torch.Tensor],
        params: Sequence[torch.Tensor],
        seeds: Sequence[torch.Tensor] | None,
        *,
        retain_graph: bool,
    ) -> list[torch.Tensor | None]:
        """The shards of the gradients summed over the ranks; None for parameters that ``outputs`` do not reach."""
        wholes = [whole_of(self._holders[id(param)]) for param in params]
        inputs = [whole for whole in wholes if whole is not None]
        if not inputs:
            return [None] * len(params)
        ones = [torch.ones_like(output) for output in outputs] if seeds is None else seeds
        scaled = [seed * self.mesh.size() for seed in ones]  # torch's own reduction is a mean
        entries = [holder.entry() for holder in self._holders.values()]
        with reduced_at_once(self._groups, keep_whole=retain_graph), gradients_apart(self.params, entries):
            torch.autograd.backward(outputs, scaled, retain_graph=retain_graph, inputs=inputs)
            return [None if param.grad is None else view_shard(param.grad) for param in params]

    def release(self) -> None:
        """Free what is gathered still: a forward would find the parameters of before the optimizer's step there."""
        for group in self._groups:
            if group.is_unsharded:
                group.reshard()

    # -- whole rows ---------------------------------------------------------------------------------------------

    def gather(self, gradients: Gradients, params: Sequence[torch.Tensor]) -> Gradients:
        """The same gradients with whole rows."""
        kinds: dict[torch.dtype, list[int]] = {}
        for position, tensor in enumerate(gradients.rows[0]):
            kinds.setdefault(tensor.dtype, []).append(position)
        found = [[torch.empty(0)] * len(params) for _ in gradients.rows]
        for positions in kinds.values():
            chosen = [params[position] for position in positions]
            for row, whole in zip(gradients.rows, found, strict=True):
                made = self._gather_row([row[position] for position in positions], chosen)
                for position, tensor in zip(positions, made, strict=True):
                    whole[position] = tensor
        return gradients.with_rows(found)

    def _gather_row(self, row: Sequence[torch.Tensor], params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """In one collective, whose parts are as long as the longest."""
        ranks = range(self.mesh.shape[-1])
        shapes = [[self._shape_on(param, rank) for param in params] for rank in ranks]
        longest = max(sum(shape.numel() for shape in of_rank) for of_rank in shapes)
        mine = torch.cat([tensor.reshape(-1) for tensor in row])
        padded = torch.cat([mine, mine.new_zeros(longest - len(mine))])
        parts = [torch.empty_like(padded) for _ in ranks]
        torch.distributed.all_gather(parts, padded, group=self.mesh.get_group(self.mesh.ndim - 1))
        cut = [
            cut_to_shapes(part[: sum(s.numel() for s in of_rank)], of_rank)
            for part, of_rank in zip(parts, shapes, strict=True)
        ]
        return [
            torch.cat(pieces, _dimension_of(param))
            for param, pieces in zip(params, zip(*cut, strict=True), strict=True)
        ]

    def _shape_on(self, param: torch.Tensor, rank: int) -> torch.Size:
        shape = list(shape_of_row(param))
        shape[_dimension_of(param)] = _span_on(param, rank)[1]
        return torch.Size(shape)


def cut_as(param: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A copy of what lies here of a whole tensor, sharded as ``param`` is, whose shape it has."""
    return as_gradient_of(param, cut_part(whole, param).to(param.device, copy=True).contiguous())


def as_gradient_of(param: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """What ``.grad`` of a sharded parameter is to be, from what lies here of it."""
    from torch.distributed.tensor import DTensor

    mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]
    return DTensor.from_local(gradient, mesh, placements, run_check=False, shape=param.shape, stride=param.stride())


def shape_of_row(param: torch.Tensor) -> torch.Size:
    """That of a whole row's part."""
    return torch.Size([*param.shape, 2]) if param.is_complex() else param.shape


def cut_row(row: torch.Tensor, params: Sequence[torch.Tensor]) -> torch.Tensor:
    """What lies here of a whole row (D,)."""
    wholes = cut_to_shapes(row, [shape_of_row(param) for param in params])
    return torch.cat([cut_part(whole, param).reshape(-1) for param, whole in zip(params, wholes, strict=True)])


def cut_part(whole: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """What lies here of the part of a whole row that belongs to a parameter, in its shape."""
    mesh = param.device_mesh  # type: ignore[attr-defined]
    return whole.narrow(_dimension_of(param), *_span_on(param, mesh.get_local_rank(mesh.ndim - 1)))


def _span_on(param: torch.Tensor, rank: int) -> tuple[int, int]:
    """Where the shard of a rank begins, and how long it is: the chunks of ``torch.chunk``."""
    entries = param.shape[_dimension_of(param)]
    chunk = -(-entries // param.device_mesh.shape[-1])  # type: ignore[attr-defined]
    start = min(entries, rank * chunk)
    return start, min(entries - start, chunk)


def _dimension_of(param: torch.Tensor) -> int:
    dimension: int = param.placements[-1].dim  # type: ignore[attr-defined]
    return dimension


def _group_of(holder: Holder) -> Any:
    return holder.group()


def _require_holder(number: int, param: torch.Tensor) -> Holder:
    holder = holder_of(param)
    if holder is None:
        kind = "a DTensor that fully_shard does not hold" if hasattr(param, "placements") else "not sharded"
        raise ValueError(
            f"params[{number}] is {kind}, while others are sharded by fully_shard; apply fully_shard to the root "
            "module, too, without ignored_params, without a number for reshard_after_forward, and to no module that "
            "is tensor-parallel"
        )
    return holder


def _require_layout(number: int, param: Any, mesh: Any) -> None:
    from torch.distributed.tensor import Replicate, Shard

    *copies, last = param.placements
    plain = type(last) is Shard and len(copies) <= 1 and all(isinstance(each, Replicate) for each in copies)
    if not plain or param.device_mesh != mesh:
        raise ValueError(
            f"params[{number}] has placements {param.placements} on {param.device_mesh}; mtopt takes parameters of "
            "fully_shard on one mesh of one dimension, or of two (copies, shards), the same for all"
        )
