"""Where the graph of the losses multiplies with a parameter, and what it keeps of the other factor.

For ``Y = X W'`` with X (N, m) and E (N, n), the gradient of a loss by Y, the loss has the gradient ``E' X`` by W. X is
kept in the graph for the backward pass and is the same for all losses; E is had without making a gradient of W. Linear
layers, convolutions, embeddings, attention's projections and recurrent cells all come to such products; the graph is
read, so that it does not matter which module or function made them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from mtopt.autograd._layer_parts import patches_of, widen
from mtopt.autograd._parameter_uses import PRODUCTS, LossGraph
from mtopt.autograd._reach import Edge, Node

_TIED = {(True, True), (False, False)}
"""A table of embeddings that is a linear layer, too: indexed or not, and transposed or not."""


class PackedError(Exception):
    """What the graph keeps goes through hooks, as in activation checkpointing: to look at it is to compute it anew."""


@dataclass(frozen=True, slots=True)
class MatrixUse:
    """One product with a matrix, whose gradient is ``outputs' inputs``, or the transposed of that.

    Attributes:
        edge: the result Y in the graph.
        saved: X (N, m); integers (N,), the places of the ones in unit vectors, for an embedding.
        width, height: m and n.
        transposed: the matrix is (m, n), and not (n, m).
        padding: the integer that leaves no gradient; -1 where none is set apart.
    """

    edge: Edge
    saved: torch.Tensor
    width: int
    height: int
    transposed: bool = False
    padding: int = -1

    @property
    def positions(self) -> int:
        """N."""
        return len(self.saved)

    @property
    def indexed(self) -> bool:
        """X is of unit vectors."""
        return self.saved.ndim == 1

    @property
    def gathered(self) -> int:
        """How many numbers of X must be put together first."""
        return 0

    def inputs(self) -> torch.Tensor:
        """X, in float32 at least."""
        return self.saved if self.indexed else widen(self.saved)

    def outputs(self, cotangent: torch.Tensor) -> torch.Tensor:
        """E (N, n), in float32 at least."""
        found = widen(cotangent.reshape(self.positions, self.height))
        return found * (self.saved != self.padding).unsqueeze(1) if self.padding >= 0 else found

    def side_by_side(self, cotangents: Sequence[torch.Tensor | None], dtype: torch.dtype) -> torch.Tensor:
        """E of all losses (N, K, n), zeros of those that do not reach the result; ``dtype``: of the matrix."""
        made = [None if cotangent is None else self.outputs(cotangent) for cotangent in cotangents]
        dtype = next((found.dtype for found in made if found is not None), torch.promote_types(dtype, torch.float32))
        zeros = torch.zeros(self.positions, self.height, dtype=dtype, device=self.saved.device)
        return torch.stack([zeros if found is None else found for found in made], 1)


@dataclass(frozen=True, slots=True)
class ConvolutionUse(MatrixUse):
    """The same for the patches that a convolution's kernel sees: N counts the places where it stands.

    Attributes:
        saved: the images (B, channels, ...).
        padded: as ``F.pad`` takes it.
        geometry: kernel, stride and dilation.
        places: where the kernel stands, along each dimension.
        bias: the id of the parameter that is added; 0 of none, and of one that is used elsewhere, too.
    """

    padded: Sequence[int] = ()
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int]] = ((), (), ())
    places: Sequence[int] = ()
    bias: int = 0

    @property
    def positions(self) -> int:
        return len(self.saved) * math.prod(self.places)

    @property
    def indexed(self) -> bool:
        return False

    @property
    def gathered(self) -> int:
        return self.positions * self.width

    def inputs(self) -> torch.Tensor:
        given = widen(self.saved)
        patches = patches_of(F.pad(given, list(self.padded)) if any(self.padded) else given, *self.geometry)
        return patches.mT.reshape(self.positions, self.width)

    def outputs(self, cotangent: torch.Tensor) -> torch.Tensor:
        return widen(cotangent).flatten(2).mT.reshape(self.positions, self.height)


def matrix_uses_of(graph: LossGraph, params: Iterable[torch.Tensor]) -> dict[int, list[MatrixUse]]:
    """The products with each of ``params`` whose uses are all understood, by its id: of one kind, or tied weights'.

    Raises:
        PackedError: what the graph keeps goes through hooks.
    """
    found: dict[int, list[MatrixUse]] = {}
    for param in params:
        node = graph.leaves.get(id(param))
        if node is None or param.ndim < 2 or param.is_complex() or param._backward_hooks:
            continue
        uses = [_use_of(graph, user, seen, param) for user, seen in graph.users_past_casts(node)]
        known = [use for use in uses if use is not None]
        kinds = {(use.indexed, use.transposed) for use in known}
        if len(known) == len(uses) and (len(kinds) == 1 or kinds == _TIED):
            found[id(param)] = known
    return found


def _use_of(graph: LossGraph, user: Node, seen: Node, param: torch.Tensor) -> MatrixUse | None:
    """What ``user`` makes of a parameter that it has from ``seen``; None where that is not known."""
    name = user.name()
    if name == "TBackward0":
        above = graph.users[user]
        return _product(above[0], user, param, transposed=False) if len(above) == 1 else None
    if name in PRODUCTS:
        return _product(user, seen, param, transposed=True)
    if name == "EmbeddingBackward0":
        return _embedding(user, param)
    return _convolution(graph, user, seen, param) if name == "ConvolutionBackward0" else None


def _product(node: Node, factor: Node, param: torch.Tensor, *, transposed: bool) -> MatrixUse | None:
    first, saved = PRODUCTS.get(node.name(), (0, ""))
    operands = [position for position, (behind, _) in enumerate(node.next_functions) if behind is factor]
    if operands != [first + 1] or getattr(node, "_saved_alpha", 1) != 1:
        return None
    given = _read(node, saved)
    width, height = param.shape if transposed else param.shape[::-1]
    plain = given.layout == torch.strided and not given.is_complex()
    return MatrixUse((node, 0), given, width, height, transposed) if plain else None


def _embedding(node: Node, param: torch.Tensor) -> MatrixUse | None:
    if node._saved_sparse or node._saved_scale_grad_by_freq:  # type: ignore[attr-defined]
        return None
    count, height = param.shape
    padding = node._saved_padding_idx  # type: ignore[attr-defined]
    indices = _read(node, "_saved_indices").reshape(-1).long()
    return MatrixUse((node, 0), indices, count, height, transposed=True, padding=padding if padding < count else -1)


def _convolution(graph: LossGraph, node: Node, kernel: Node, param: torch.Tensor) -> MatrixUse | None:
    operands = [position for position, (behind, _) in enumerate(node.next_functions) if behind is kernel]
    if node._saved_transposed or node._saved_groups != 1 or operands != [1]:  # type: ignore[attr-defined]
        return None
    given = _read(node, "_saved_input")
    stride, padding, dilation = node._saved_stride, node._saved_padding, node._saved_dilation  # type: ignore[attr-defined]
    padded = [size for size in reversed(padding) for _ in range(2)]
    size = param.shape[2:]
    places = [
        (length + 2 * pad - step * (kernel_size - 1) - 1) // skip + 1
        for length, pad, step, kernel_size, skip in zip(given.shape[2:], padding, dilation, size, stride, strict=True)
    ]
    return ConvolutionUse(
        (node, 0),
        given,
        math.prod(param.shape[1:]),
        len(param),
        padded=padded,
        geometry=(size, stride, dilation),
        places=places,
        bias=_bias_of(graph, node),
    )


def _bias_of(graph: LossGraph, node: Node) -> int:
    """The id of the parameter that a convolution adds, where nothing else uses it, nor looks at its gradient."""
    added = node.next_functions[2][0]
    bias = getattr(added, "variable", None)
    alone = added is not None and graph.users[added] == [node]
    return id(bias) if alone and bias is not None and not bias._backward_hooks else 0


def _read(node: Node, name: str) -> torch.Tensor:
    """What a node keeps for the backward pass."""
    found: torch.Tensor = getattr(node, name).detach()
    if found.layout == torch.strided and getattr(node, name).data_ptr() != found.data_ptr():  # made anew
        raise PackedError
    return found
