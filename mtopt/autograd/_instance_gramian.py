"""The Gramian of single samples' gradients: one backward to the layers' outputs, then layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mtopt.autograd._layer_gramians import gramian_of_parts, plain_arithmetic
from mtopt.autograd._layer_hooks import LayerHooks
from mtopt.autograd._layer_parts import Part
from mtopt.autograd._parameter_uses import LossGraph, Use, refuse_batch_statistics, uses_of
from mtopt.autograd._reach import Edge, require_dense
from mtopt.linalg import CHUNK, gramian_of, split_complex, view_reals


class TakenApart:
    """The backward pass of all losses to the layers' outputs, and the parts of each parameter that come of it.

    Attributes:
        params: the names of the trainable parameters that the losses reach, and these, by id.
        parts: of those that fall apart into samples, by id; ``rest``: the others, by name.
        dtype: of the least exact numbers that the gradients come from.
        backwards: passes so far.
    """

    def __init__(self, hooks: LayerHooks, losses: torch.Tensor, seeds: torch.Tensor) -> None:
        hooks.listening = False
        graph = LossGraph([losses])
        refuse_batch_statistics(graph)
        params = {id(p): (name, p) for name, p in hooks.model.named_parameters() if p.requires_grad}
        self.params = {key: found for key, found in params.items() if key in graph.leaves}
        if not self.params:
            raise ValueError(
                "losses reach no trainable parameter of the model: was another model given to per_instance?"
            )
        _require_samples_first(hooks, graph, len(losses))
        self.parts: dict[int, list[Part]] = {}
        with plain_arithmetic(losses):
            uses = uses_of(graph, hooks.found, [p for _, p in self.params.values()], len(losses))
            edges = list({use.edge: None for found in uses.values() for use in found})
            wanted = [torch.autograd.graph.GradientEdge(*edge) for edge in edges]
            found = torch.autograd.grad(losses, wanted, seeds, retain_graph=True, allow_unused=True) if wanted else ()
            cotangents = dict(zip(edges, found, strict=True))
            for key, (_, param) in self.params.items():
                parts = _parts(uses[key], cotangents) if key in uses and not param.is_complex() else None
                if parts is not None:
                    self.parts[key] = parts
        self.rest = {name: param for key, (name, param) in self.params.items() if key not in self.parts}
        dtypes = {losses.dtype, *(p.dtype for _, p in self.params.values())}
        dtypes.update(cotangent.dtype for cotangent in found if cotangent is not None)
        self.dtype = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
        self.backwards = int(bool(edges))

    def tell(self, per: str) -> str:
        """Which parameters went which way, in words; ``per``: what the others take a pass for each of."""
        plan = f"layer by layer: {len(self.parts)} tensors from inputs and output gradients"
        if rest := list(self.rest):
            plan += f"; {len(rest)} by one backward pass per {per} ({', '.join(rest[:4])}{', ...' if rest[4:] else ''})"
        return plan


class InstancePass(TakenApart):
    """The same with one pass per loss for the rest, and the Gramian (B, B) of the losses without ``scale``."""

    def __init__(self, hooks: LayerHooks, losses: torch.Tensor, scale: float) -> None:
        count = len(losses)
        # Halves for some of the losses, exactly divided out again: where one depends on another's sample, the Gramian
        # then belongs to no set of gradients that gives the direction, not even with equal weights, and it shows.
        factors = torch.tensor([0.5 if bin(k).count("1") % 2 else 1.0 for k in range(count)], dtype=torch.float64)
        factors *= scale
        seeds = factors.to(losses.device, losses.dtype)
        super().__init__(hooks, losses, seeds)
        self.backwards += count if self.rest else 0
        with plain_arithmetic(losses):
            gramian = torch.zeros(count, count, dtype=torch.float64)
            dense = _rows(losses, list(self.rest.values()), seeds) if self.rest else []
            for parts in self.parts.values():
                if len(parts) == 1 and isinstance(parts[0], torch.Tensor):
                    dense.append(parts[0])
                elif parts:
                    gramian += gramian_of_parts(parts)
            small = [each for each in dense if each.shape[1] <= CHUNK]
            large = [each for each in dense if each.shape[1] > CHUNK]
            for each in [*large, torch.cat(small, 1)] if small else large:
                gramian += gramian_of(each)
        self.gramian = gramian / factors / factors[:, None]


def _parts(uses: Sequence[Use], cotangents: Mapping[Edge, torch.Tensor | None]) -> list[Part] | None:
    """The parts of one parameter; None when one of its uses has no samples along its first dimension after all."""
    parts: list[Part] = []
    for use in uses:
        cotangent = cotangents[use.edge]
        if cotangent is not None:
            part = None if cotangent.is_complex() else use.part(cotangent)
            if part is None:
                return None
            parts.append(part)
    return parts


def _rows(losses: torch.Tensor, params: Sequence[torch.Tensor], seeds: torch.Tensor) -> list[torch.Tensor]:
    """(B, numel) for each of ``params``: one backward pass per loss."""
    reals = [view_reals(param) for param in params]
    dtypes = [torch.promote_types(real.dtype, torch.float32) for real in reals]
    found = [
        torch.zeros(len(losses), real.numel(), dtype=dtype, device=real.device)
        for real, dtype in zip(reals, dtypes, strict=True)
    ]
    for k, seed in enumerate(seeds.diag()):
        row = torch.autograd.grad(losses, list(params), seed, retain_graph=True, allow_unused=True)
        require_dense((f"loss_{k}",), row)
        for rows, gradient in zip(found, row, strict=True):
            if gradient is not None:
                rows[k] = split_complex(gradient).reshape(-1)
    return found


def _require_samples_first(hooks: LayerHooks, graph: LossGraph, count: int) -> None:
    """Raise when no layer saw as many samples as there are losses."""
    seen = [call for call in hooks.found if call.edge[0] in graph.users]
    if seen and not any(call.has_samples(count) for call in seen):
        shapes = sorted({tuple(call.shape) for call in seen})[:3]
        raise ValueError(
            "losses must be one a sample, with samples along the first dimension of every layer: found "
            f"{count} losses, and layers that return {', '.join(map(str, shapes))}; put the batch first "
            "(batch_first=True), and average the losses over everything but samples"
        )
