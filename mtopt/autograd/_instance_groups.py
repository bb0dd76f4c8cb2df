"""Gradients of groups of samples, such as those to retain and those to forget, from one pass of all their losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mtopt._losses import Batch, Objective
from mtopt.autograd._call import Call
from mtopt.autograd._instance_gramian import TakenApart
from mtopt.autograd._layer_gramians import plain_arithmetic
from mtopt.autograd._layer_hooks import LayerHooks
from mtopt.autograd._layer_parts import Factors, Part
from mtopt.autograd._reach import require_dense
from mtopt.autograd.plans import KeptRows
from mtopt.linalg import Row, norm_of, split_complex


class SampleGroups:
    """K objectives over ``count`` samples, each the mean of the losses of a group; a sample is in one group at most."""

    def __init__(self, groups: Mapping[Any, Any], count: int) -> None:
        if not isinstance(groups, Mapping) or not groups:
            raise TypeError(
                "groups must be a mapping from names to samples, such as {'new': slice(0, 8), 'old': slice(8, 16)}, "
                f"found {groups if isinstance(groups, Mapping) else type(groups).__name__}"
            )
        self.objectives = [key if isinstance(key, Objective) else Objective(key) for key in groups]
        self.samples = [
            _samples_of(objective.name, given, count)
            for objective, given in zip(self.objectives, groups.values(), strict=True)
        ]
        if int(torch.cat(self.samples).bincount().max()) > 1:
            raise ValueError("groups must not share samples, nor hold one twice: each sample has one output gradient")
        # as slices where that is what they are: their samples need not be copied
        self.chosen = [
            slice(int(at[0]), int(at[-1]) + 1) if bool((at.diff() == 1).all()) else at for at in self.samples
        ]

    def losses(self, losses: torch.Tensor) -> list[torch.Tensor]:
        return [losses[chosen].mean() for chosen in self.chosen]

    def seeds(self, losses: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
        """(B,): what each sample's loss counts in the sum over groups of ``factors`` times signed means."""
        seeds = torch.zeros_like(losses)
        for objective, chosen, samples, factor in zip(self.objectives, self.chosen, self.samples, factors, strict=True):
            seeds[chosen] = factor * objective.sign / len(samples)
        return seeds


def _samples_of(name: str, given: Any, count: int) -> torch.Tensor:
    """The positions of a group's samples among ``count``."""
    everyone = torch.arange(count)
    if isinstance(given, slice):
        found = everyone[given]
    else:
        try:
            chosen = torch.as_tensor(given, device="cpu")
        except (TypeError, ValueError, RuntimeError):  # no numbers, or rows of several lengths
            chosen = torch.empty(1)
        is_mask = chosen.dtype == torch.bool
        fits = chosen.shape == (count,) if is_mask else chosen.ndim == 1 and not chosen.is_floating_point()
        if chosen.numel() and not (fits and (is_mask or -count <= int(chosen.min()) <= int(chosen.max()) < count)):
            raise ValueError(f"groups[{name!r}] must be a slice, positions or a mask of {count} samples, found {given}")
        found = everyone[chosen if chosen.numel() else slice(0)]
    if not len(found):
        raise ValueError(f"groups[{name!r}] holds none of the {count} samples; leave it out")
    return found


class GroupRows(KeptRows):
    """A row for each group, layer by layer, from one pass.

    ``checked``: a second one holds the rows against autograd's gradient, and shows samples that see one another.
    """

    def __init__(
        self, call: Call, losses: torch.Tensor, groups: SampleGroups, hooks: LayerHooks, checked: bool
    ) -> None:
        values = torch.stack(groups.losses(losses.detach().double())).tolist()
        super().__init__(call, Batch.of_values(groups.objectives, range(len(values)), values))
        self.losses, self.groups, self.hooks, self.checked = losses, groups, hooks, checked

    def _make_rows(self) -> list[Row]:
        call, groups, count = self.call, self.groups, len(self.groups.objectives)
        found = TakenApart(self.hooks, self.losses, groups.seeds(self.losses, [call.scale] * count))
        rest = {id(param) for param in found.rest.values()}
        rows: list[Row] = [[None] * len(call.params) for _ in range(count)]
        with plain_arithmetic(self.losses):
            for index, param in enumerate(call.params):
                parts = found.parts.get(id(param), [])
                for row, chosen in zip(rows, groups.chosen, strict=True):
                    made = [_sum_over(part, chosen) for part in parts]
                    row[index] = sum(made[1:], made[0]).view_as(param).to(param.dtype) if made else None
        others = [index for index, param in enumerate(call.params) if id(param) in rest]
        for k, row in enumerate(rows if others else []):
            seeds = groups.seeds(self.losses, [call.scale * (k == other) for other in range(count)])
            gradients = self._differentiate(seeds, others, keep=True)
            for index, gradient in zip(others, gradients, strict=True):
                row[index] = None if gradient is None else split_complex(gradient)
        self.description = found.tell("group")
        self.backwards = found.backwards + (count if others else 0)
        if self.checked:
            self._check(rows, found.dtype)
        elif not call.retain_graph:
            self.hooks.found = []
        return rows

    def _check(self, rows: Sequence[Row], dtype: torch.dtype) -> None:
        """Hold a sum of the rows, with other factors than one, against autograd's gradient of it."""
        factors = [1.0 / (k + 1) for k in range(len(rows))]
        indices = range(len(self.call.params))
        seeds = self.groups.seeds(self.losses, [self.call.scale * factor for factor in factors])
        expected = self._differentiate(seeds, indices, keep=self.call.retain_graph)
        self.backwards += 1
        self.description += "; held against one more pass, in this first step"
        away = []
        for index, gradient in enumerate(expected):
            made = [factor * row[index] for factor, row in zip(factors, rows, strict=True) if row[index] is not None]  # type: ignore[operator]
            if made and gradient is not None:
                away.append(sum(made[1:], made[0]) - split_complex(gradient))
        length = sum(norm_of([each for each in row if each is not None]) for row in rows)
        if norm_of(away) > min(1000 * torch.finfo(dtype).eps, 0.02) * length:
            raise RuntimeError(
                "the gradients of the groups do not add up to that of their losses: samples must lie along the first "
                "dimension of every layer (and no other dimension that comes first may be as long), and no sample's "
                "loss may depend on another's activations; else give each group's loss to mtopt.backward"
            )

    def _differentiate(
        self, seeds: torch.Tensor, indices: Sequence[int], *, keep: bool
    ) -> Sequence[torch.Tensor | None]:
        params = [self.call.params[index] for index in indices]
        found = torch.autograd.grad(self.losses, params, seeds, retain_graph=keep, allow_unused=True)
        require_dense(self.batch.names, found)
        return found


def _sum_over(part: Part, chosen: slice | torch.Tensor) -> torch.Tensor:
    """The gradient of the losses of some samples."""
    if not isinstance(part, Factors):
        return part[chosen].sum(0)
    left, right = part.left[chosen].flatten(0, 1), part.right[chosen].flatten(0, 1)
    if part.is_indexed:
        return right.new_zeros(part.height, right.shape[1]).index_add_(0, left, right)
    return left.T @ right
