"""Gradients with weights that are known beforehand: from the graph in a few passes, or from rows that exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mtopt.autograd._combine import gradients_of, own_weight, reach_of_rows
from mtopt.autograd._finite import Piece, refusal
from mtopt.autograd._graph import reach_behind
from mtopt.autograd._rows import Row, require_dense, unreached
from mtopt.autograd._step import Group, Reach, Step
from mtopt.autograd._write import write_pieces
from mtopt.combiners import Combiner

_LOW_PRECISION = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Weighted:
    """Gradients, not yet written.

    Attributes:
        pieces: positions of parameters, and the gradient of each; None for one that is not reached after all.
        weights: those of the main group, by the positions of the losses.
        backwards: passes that were run for it.
    """

    pieces: Sequence[Piece]
    weights: dict[int, float]
    backwards: int

    def refusal(self, step: Step) -> str | None:
        """Why they cannot be written, in words."""
        return refusal(self.pieces, step, what="gradient of the weighted losses")

    def write(self, step: Step) -> None:
        taken: set[int] = set()
        write_pieces([(at, [g if g is None else owned(g, taken) for g in found]) for at, found in self.pieces], step)


class OnGraph:
    """Losses on graphs that have not been differentiated: one pass for all parameters that share their weights.

    Parameters that only some of the losses reach take a pass for each set of losses. Those of single losses that get
    their own gradients are had from the main pass, divided by the weight; where that would lose digits (weights below
    1e-3 or above 1e3, parameters of 16 bits) they take one pass together, which ends at these parameters.
    """

    plan = "one weighted backward"

    def __init__(self, losses: Sequence[torch.Tensor]) -> None:
        self.losses = losses

    def reaches(self, step: Step) -> list[Reach]:
        """Which losses reach each parameter."""
        found = reach_behind(self.losses)
        reaches = [found.get(id(place.parameter), ()) for place in step.places]
        for k, name in enumerate(step.names):
            if not any(k in reach for reach in reaches):
                raise ValueError(unreached(name))
        return reaches

    def weighted(
        self,
        groups: Sequence[Group],
        shared: Sequence[Group],
        weights: Sequence[torch.Tensor],
        combiner: Combiner,
        step: Step,
        *,
        retain_graph: bool = False,
    ) -> Weighted:
        """Each shared group's gradient with its weights, the others' as ``private`` says. The graph is freed."""
        passes = [
            (list(group.indices), dict(zip(group.reach, given.tolist(), strict=True)))
            for group, given in zip(shared, weights, strict=True)
        ]
        main = dict(passes[0][1]) if passes else {}
        own: tuple[list[int], dict[int, float]] = ([], {})
        corrections: dict[int, float] = {}  # by the parameter
        for group in groups:
            if not group.shared:
                (k,) = group.reach
                factor = own_weight(group, main, combiner, step)
                along = k in main and (factor == main[k] or self._divisible(main, k, group, step))
                indices, factors = passes[0] if along else own
                indices.extend(group.indices)
                factors.setdefault(k, factor)
                if along and factor != main[k]:
                    corrections.update(dict.fromkeys(group.indices, factor / main[k]))
        # the main pass is the last, which frees the graph: it is the longest
        passes = [*([own] if own[0] else []), *reversed(passes)]
        pieces = []
        for number, (indices, factors) in enumerate(passes, start=1):
            outputs = [self.losses[k] for k in factors]
            params = [step.places[index].parameter for index in indices]
            retain = retain_graph or number < len(passes)
            gradients = torch.autograd.grad(
                outputs, params, seeds(outputs, factors.values()), retain_graph=retain, allow_unused=True
            )
            require_dense([step.names[k] for k in factors], gradients)
            pieces.append((indices, _corrected(indices, gradients, corrections) if corrections else gradients))
        return Weighted(pieces, main, len(passes))

    @staticmethod
    def _divisible(main: dict[int, float], k: int, group: Group, step: Step) -> bool:
        """Whether a head's own gradient may be had from the weighted one: without loss, in its dtype."""
        exact = all(step.places[index].parameter.dtype not in _LOW_PRECISION for index in group.indices)
        return exact and 1e-3 <= abs(main[k]) <= 1e3


def _corrected(
    indices: Sequence[int], gradients: Sequence[torch.Tensor | None], factors: Mapping[int, float]
) -> list[torch.Tensor | None]:
    """``gradients``, those of some parameters times a factor."""
    found = list(gradients)
    chosen = [
        (n, g, factors[i])
        for n, (i, g) in enumerate(zip(indices, found, strict=True))
        if i in factors and g is not None
    ]
    if chosen:
        places, given, by = zip(*chosen, strict=True)
        for place, product in zip(places, torch._foreach_mul(list(given), list(by)), strict=True):
            found[place] = product
    return found


class OnRows:
    """Losses whose gradient rows are there already; graphs are gone, or kept, since they were made."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.plan = f"{len(rows)} backwards"

    def reaches(self, step: Step) -> list[Reach]:
        """Which losses reach each parameter."""
        return reach_of_rows(self.rows)

    def weighted(
        self,
        groups: Sequence[Group],
        shared: Sequence[Group],
        weights: Sequence[torch.Tensor],
        combiner: Combiner,
        step: Step,
        *,
        retain_graph: bool = False,
    ) -> Weighted:
        """Each shared group's gradient with its weights, the others' as ``private`` says."""
        main = dict(zip(shared[0].reach, weights[0].tolist(), strict=True)) if shared else {}
        factors = {id(group): given for group, given in zip(shared, weights, strict=True)}
        pieces = []
        for group in groups:
            given = factors.get(id(group))
            if given is None:
                given = torch.tensor([own_weight(group, main, combiner, step)], dtype=torch.float64)
            pieces.append((group.indices, gradients_of(group, self.rows, step).combined(given)))
        return Weighted(pieces, main, len(self.rows))


def seeds(losses: Sequence[torch.Tensor], weights: Iterable[float]) -> list[torch.Tensor]:
    """What autograd starts from. K seeds and not a sum: the graph is not extended, each loss stays in its own dtype."""
    dtype = losses[0].dtype
    if all(loss.is_cpu and loss.ndim == 0 and loss.dtype == dtype for loss in losses):
        return list(torch.tensor(list(weights), dtype=dtype).unbind())  # made at once, K times as fast
    return [torch.full_like(loss, weight) for loss, weight in zip(losses, weights, strict=True)]


def owned(gradient: torch.Tensor, taken: set[int]) -> torch.Tensor:
    """``gradient`` with memory of its own: autograd may hand out the same or an expanded tensor twice."""
    if gradient.layout != torch.strided:
        return gradient
    storage = gradient.untyped_storage()
    memory = storage.data_ptr()
    alone = storage.nbytes() == gradient.numel() * gradient.element_size() and memory not in taken
    taken.add(memory)
    return gradient if alone else gradient.clone(memory_format=torch.contiguous_format)
