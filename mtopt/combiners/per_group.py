"""A rule for each group of parameters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch

from mtopt._errors import CheckpointError
from mtopt.combiners._base import Combiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._wrapper import Wrapper
from mtopt.linalg import Gradients, Place

Grouping = Literal["layer", "tensor"] | Callable[[torch.Tensor], Hashable] | Sequence[int]


class PerGroup(Wrapper):
    """The rule applied to each group of parameters by itself, each time with its own state.

    Gradients may conflict in one layer and agree in another. The direction of a group depends on its gradients alone;
    whatever a rule promises for them holds for the sum over the groups, too: if no loss rises along any group's
    direction, none rises along the whole.

    Wang et al., "Gradient vaccine: investigating and improving multi-task optimization in massively multilingual
    models", ICLR 2021, compare the whole model, layers and tensors.

    Args:
        rule: a rule on the gradients of one mini-batch. Each group has a fresh one like it.
        by: ``"layer"``, the parameters of the same module, which needs their names: give :func:`mtopt.backward` the
            model or its ``named_parameters()``; ``"tensor"``, each parameter by itself; a function of the parameter
            that returns the key of its group, a string, a number, None, or a tuple of such; or whole numbers, for a
            Jacobian that is no parameters': the lengths of consecutive blocks of columns.

    K gradients are needed in every step, and their Gramian in each group. There are no weights of whole gradients, so
    the step's record has none. Rules with randomness draw with one seed in all groups. Tied parameters are in the
    module that has them first.
    """

    def __init__(self, rule: Combiner, by: Grouping = "layer") -> None:
        super().__init__(rule)
        if isinstance(by, str):
            if by not in ("layer", "tensor"):
                raise ValueError(f"by must be 'layer', 'tensor', a function, or numbers of columns, found {by!r}")
        elif isinstance(by, Sequence):
            if not by or not all(isinstance(count, int) and count > 0 for count in by):
                raise ValueError(f"by must hold positive numbers of columns, found {by!r}")
        elif not callable(by):
            raise ValueError(f"by must be 'layer', 'tensor', a function, or numbers of columns, found {by!r}")
        if rule.needs == "losses":
            raise ValueError(f"{rule!r} weighs by the losses, which are the same for every group; use it as it is")
        if rule.draws > 1:
            raise ValueError(f"{rule!r} weighs whole gradients of another draw; it has no groups")
        self.by = by
        self._declare(features=False, weighted=False, scale_invariant=False)
        if isinstance(by, Sequence) and not isinstance(by, str):
            self._declare(shardable=False)  # the columns are counted
        self._parts: dict[str, Combiner] = {}

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        gradients, groups = self._grouped(gradients)
        first = gradients.rows[0]
        pieces: list[torch.Tensor] = [torch.empty(0)] * len(first)
        certificates = []
        for key, indices in groups.items():
            part = Gradients(
                [[row[i] for i in indices] for row in gradients.rows],
                objectives=gradients.objectives,
                total=gradients.total,
                scale=gradients.scale,
                places=None if gradients.places is None else [gradients.places[i] for i in indices],
                factors=gradients.factors,
            )
            if key not in self._parts:
                self._parts[key] = self.rule.fresh()
            rule = self._parts[key]
            found = _pieces(rule.combine(part, losses), part)
            certificates.append(rule.certificate)
            for index, piece in zip(indices, found, strict=True):
                pieces[index] = piece
        solved = [certificate for certificate in certificates if certificate is not None]
        self.certificate = max(solved, key=lambda certificate: certificate.residual, default=None)
        return Outcome(None, torch.cat([piece.reshape(-1) for piece in pieces]))

    def _grouped(self, gradients: Gradients) -> tuple[Gradients, dict[str, list[int]]]:
        """The gradients, and the positions of each group's tensors."""
        if isinstance(self.by, Sequence) and not isinstance(self.by, str):
            return _cut(gradients, self.by)
        if gradients.places is None:
            raise ValueError(
                f"PerGroup(by={self.by!r}) needs to know the parameters, and a Jacobian does not say: use "
                "mtopt.backward, or give by=[...], the lengths of consecutive blocks of columns"
            )
        groups: dict[str, list[int]] = {}
        for index, place in enumerate(gradients.places):
            groups.setdefault(self._key(place), []).append(index)
        return gradients, groups

    def _key(self, place: Place) -> str:
        if self.by == "tensor":
            return repr(place.position if place.name is None else place.name)
        if self.by == "layer":
            if place.name is None:
                raise ValueError(
                    "PerGroup(by='layer') needs the names of the parameters: give mtopt.backward the model or "
                    "model.named_parameters(), or group by 'tensor' or by a function of the parameter"
                )
            return repr(place.name.rpartition(".")[0])
        assert callable(self.by)
        key = self.by(place.parameter)
        if not _is_plain(key):
            raise TypeError(
                f"by must give a string, a number, None, or a tuple of such, found {key!r}; "
                "groups are found again by it after a checkpoint"
            )
        return repr(key)

    # -- state --------------------------------------------------------------------------------------------------

    def _rules(self) -> Iterable[Combiner]:
        return self._parts.values()

    def state_dict(self) -> dict[str, Any]:
        """The state of every group's rule."""
        parts = self._parts if self.stateful else {}
        return {**super().state_dict(), "parts": {key: rule.state_dict() for key, rule in parts.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of every group's rule.

        Raises:
            CheckpointError: as for any rule.
        """
        if state_dict.get("rule") == type(self).__name__ and "parts" not in state_dict:
            raise CheckpointError("state_dict lacks 'parts', the states of the groups' rules: it is truncated")
        super().load_state_dict(state_dict)
        self._parts = {}
        for key, part in state_dict["parts"].items():
            self._parts[key] = self.rule.fresh()
            self._parts[key].load_state_dict(part)


def _pieces(outcome: Outcome, gradients: Gradients) -> Sequence[torch.Tensor]:
    """The direction, one tensor per parameter, free of a GradScaler's factor."""
    first = gradients.rows[0]
    if outcome.direction is not None:
        return torch.split(outcome.direction, [tensor.numel() for tensor in first])
    assert outcome.weights is not None
    combined = gradients.combined(outcome.weights)
    if gradients.scale == 1.0:
        return combined
    # in float32 at least: without its factor a 16-bit gradient may be too small for its dtype
    return [piece.to(torch.promote_types(piece.dtype, torch.float32)) / gradients.scale for piece in combined]


def _cut(gradients: Gradients, lengths: Sequence[int]) -> tuple[Gradients, dict[str, list[int]]]:
    """The columns of a Jacobian in blocks."""
    rows = [[tensor.reshape(-1) for tensor in row] for row in gradients.rows]
    columns = sum(tensor.numel() for tensor in rows[0])
    if len(rows[0]) != 1 or columns != sum(lengths):
        raise ValueError(
            f"by={list(lengths)} are lengths of blocks of {sum(lengths)} columns of one Jacobian, found {columns} "
            f"columns in {len(rows[0])} tensors"
        )
    blocks = [list(torch.split(row[0], list(lengths))) for row in rows]
    cut = Gradients(
        blocks,
        objectives=gradients.objectives,
        total=gradients.total,
        scale=gradients.scale,
        factors=gradients.factors,
    )
    return cut, {str(number): [number] for number in range(len(lengths))}


def _is_plain(key: object) -> bool:
    if isinstance(key, tuple):
        return all(map(_is_plain, key))
    return key is None or isinstance(key, str | int | float)
