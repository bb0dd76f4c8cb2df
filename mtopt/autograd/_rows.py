"""From K losses to K gradient rows: one backward a loss, nothing concatenated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from mtopt.autograd._complex import as_gradient, as_reals
from mtopt.autograd._retained import set_aside
from mtopt.autograd._sharded import refuse_sharded
from mtopt.linalg import Place

Params = torch.nn.Module | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]
"""What gradients are written to; with their names, where a rule tells layers apart."""

Row = list[torch.Tensor | None]
"""One loss's gradient, a tensor a parameter; None where the loss does not reach the parameter."""


def trainable(params: Params) -> list[Place]:
    """The parameters to write gradients to: leaves that require gradients, each once."""
    used_up = isinstance(params, Iterator)  # if it holds nothing now
    if isinstance(params, torch.nn.Module):
        params = params.named_parameters()
    elif isinstance(params, torch.Tensor):
        raise TypeError("params must be an iterable of parameters (or a module), found one tensor; give [tensor]")
    found: dict[int, Place] = {}
    for index, entry in enumerate(params):
        name, param = entry if isinstance(entry, tuple) and len(entry) == 2 else (None, entry)
        used_up = False
        if not isinstance(param, torch.Tensor) or not (name is None or isinstance(name, str)):
            raise TypeError(f"params[{index}] must be a tensor, found {type(entry).__name__}; give model.parameters()")
        if not param.requires_grad or id(param) in found:
            continue  # frozen, as in LoRA, or given twice
        if not param.is_leaf:
            raise ValueError(
                f"params[{index}] of shape {tuple(param.shape)} is no leaf: it was computed from others; give those"
            )
        found[id(param)] = Place(param, index, name)
    if used_up:
        raise ValueError(
            "params is an iterator that holds nothing (any more): model.parameters() can be gone through once, and not "
            "again in the next step; give the model itself, or list(model.parameters())"
        )
    if not found:
        raise ValueError("params holds no parameter that requires gradients; unfreeze some or give the right ones")
    refuse_sharded([place.parameter for place in found.values()])
    return list(found.values())


def row_of(name: str, loss: torch.Tensor, params: Sequence[torch.Tensor], *, retain_graph: bool) -> Row:
    """The gradient of ``loss`` with respect to ``params``; that of a complex one as pairs of reals."""
    return _dense(name, torch.autograd.grad(loss, list(params), retain_graph=retain_graph, allow_unused=True))


def _dense(name: str, gradients: Sequence[torch.Tensor | None]) -> Row:
    require_dense((name,), gradients)
    return [None if gradient is None else as_reals(gradient) for gradient in gradients]


def require_dense(names: Sequence[str], gradients: Sequence[torch.Tensor | None]) -> None:
    """Raise where a gradient of the losses of these names is sparse."""
    for gradient in gradients:
        if gradient is not None and gradient.layout != torch.strided:
            which = f"loss {names[0]!r} has" if len(names) == 1 else f"losses {', '.join(map(repr, names))} have"
            raise TypeError(
                f"{which} a sparse gradient of shape {tuple(gradient.shape)}; rules need dense ones: "
                "build the embedding with sparse=False"
            )


def require_reach(name: str, row: Row) -> None:
    """Raise when a loss reaches none of the parameters."""
    if all(gradient is None for gradient in row):
        raise ValueError(unreached(name))


def unreached(name: str) -> str:
    """What to say of a loss that reaches none of the parameters."""
    return f"loss {name!r} reaches none of params: give the parameters it was computed from, or None for the loss"


@dataclass(frozen=True, slots=True)
class Ends:
    """The heads' part of the rows: gradients of each loss with respect to ``features`` and to what is beside the trunk.

    Attributes:
        features: the trunk's outputs.
        inside: the parameters of the trunk; ``outside``: the others.
        rows: for each loss the gradients of the features, then those of ``outside``.
    """

    features: Sequence[torch.Tensor]
    inside: Sequence[torch.Tensor]
    outside: Sequence[torch.Tensor]
    rows: Sequence[Row]

    def joined(self, k: int, trunk: Sequence[torch.Tensor | None], params: Sequence[torch.Tensor]) -> Row:
        """Row k over ``params``, with the trunk's gradients given."""
        by_id = dict(zip(map(id, self.outside), self.rows[k][len(self.features) :], strict=True))
        by_id.update(zip(map(id, self.inside), trunk, strict=True))
        return [by_id[id(p)] for p in params]


def heads_of(
    names: Sequence[str],
    losses: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    features: Sequence[torch.Tensor],
    trunk: set[int],
) -> Ends:
    """The heads, differentiated once each down to ``features``. ``trunk`` holds the ids of what is behind these."""
    outside = [p for p in params if id(p) not in trunk]
    inside = [p for p in params if id(p) in trunk]
    rows = [
        row_of(name, loss, [*features, *outside], retain_graph=True) for name, loss in zip(names, losses, strict=True)
    ]
    return Ends(features, inside, outside, rows)


def rows_through_features(
    names: Sequence[str], params: Sequence[torch.Tensor], ends: Ends, *, retain_graph: bool = False
) -> Iterator[Row]:
    """The rows behind the heads: one trunk backward a loss."""
    for k, name in enumerate(names):
        seen = [(f, as_gradient(g, f)) for f, g in zip(ends.features, ends.rows[k], strict=False) if g is not None]
        through: Sequence[torch.Tensor | None] = [None] * len(ends.inside)
        if seen and ends.inside:
            outputs, cotangents = zip(*seen, strict=True)
            with set_aside(outputs):  # where they retain their gradient they have had it from the heads
                retain = retain_graph or k + 1 < len(names)
                gradients = torch.autograd.grad(
                    outputs, list(ends.inside), cotangents, retain_graph=retain, allow_unused=True
                )
            through = _dense(name, gradients)
            del gradients
        row = ends.joined(k, through, params)
        del through
        require_reach(name, row)
        yield row
