"""What a layer's call contributes to the gradients of single samples, from its input and its output's gradient.

A *part* is one use of one parameter. It is kept in factors where the gradient of sample i is a sum of outer products
over positions t, ``sum_t left[i, t] right[i, t]'``; else it is dense, (B, numel).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Factors:
    """The gradients of a matrix (m, n) for B samples, as outer products over T positions.

    Attributes:
        left: (B, T, m); or (B, T) integers, the positions of the one in unit vectors.
        right: (B, T, n).
        height: m.
    """

    left: torch.Tensor
    right: torch.Tensor
    height: int

    @property
    def is_indexed(self) -> bool:
        return self.left.ndim == 2


Part = Factors | torch.Tensor
Partial = Callable[[Any, str, torch.Tensor, torch.Tensor], Part]


def part_of(module: nn.Module, name: str, given: torch.Tensor, cotangent: torch.Tensor) -> Part:
    """The part of the parameter ``name`` (weight or bias) of a module that :func:`is_known`, in one call.

    ``given``, the call's input, and ``cotangent``, the gradient of sample i's loss by sample i's output, have samples
    along the first dimension.
    """
    partial = _partial_of(module)
    assert partial is not None
    return partial(module, name, widen(given) if given.is_floating_point() else given, widen(cotangent))


def is_known(module: nn.Module) -> bool:
    """Whether the calls of ``module`` can be taken apart."""
    return _partial_of(module) is not None


def is_batched(module: nn.Module, given: torch.Tensor) -> bool:
    """Whether ``given`` has a dimension in front of those that the layer looks at."""
    if isinstance(module, nn.Embedding):
        return given.ndim >= 1
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return given.ndim > len(module.normalized_shape)
    spatial = next((n for n, kinds in enumerate(_SPATIAL, start=1) if isinstance(module, kinds)), 0)
    return given.ndim >= spatial + 2  # an input without samples has one dimension less


def _partial_of(module: nn.Module) -> Partial | None:
    kind = type(module)
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return _transposed_linear
    for known, partial in _PARTIALS.items():
        # a subclass that only adds methods computes the same; one with its own forward may not
        if isinstance(module, known) and kind.forward is known.forward:
            return None if isinstance(module, nn.Embedding) and module.scale_grad_by_freq else partial
    return None


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """In float32 at least: single products are not rounded to 16 bits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _positions(tensor: torch.Tensor, trailing: int = 1) -> torch.Tensor:
    """(B, ..., last) as (B, T, last), where the last ``trailing`` dimensions count as one."""
    return tensor.reshape(len(tensor), -1, math.prod(tensor.shape[tensor.ndim - trailing :]))


def _linear(module: nn.Linear, name: str, given: torch.Tensor, cotangent: torch.Tensor) -> Part:
    if name == "bias":
        return _positions(cotangent).sum(1)
    return Factors(_positions(cotangent), _positions(given), module.out_features)


def _transposed_linear(module: Any, name: str, given: torch.Tensor, cotangent: torch.Tensor) -> Part:
    """transformers' Conv1D, whose weight is (in, out)."""
    if name == "bias":
        return _positions(cotangent).sum(1)
    return Factors(_positions(given), _positions(cotangent), len(module.weight))


def _embedding(module: nn.Embedding, name: str, given: torch.Tensor, cotangent: torch.Tensor) -> Part:
    indices, right = given.reshape(len(given), -1).long(), _positions(cotangent)
    if module.padding_idx is not None:
        right = right * (indices != module.padding_idx).unsqueeze(2)
    return Factors(indices, right, module.num_embeddings)


def _convolution(module: Any, name: str, given: torch.Tensor, cotangent: torch.Tensor) -> Part:
    left = cotangent.flatten(2)  # (B, out, T)
    if name == "bias":
        return left.sum(2)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padding = module._reversed_padding_repeated_twice  # as F.pad takes it, for "same" and "valid", too
    padded = F.pad(given, padding, mode=mode) if any(padding) else given
    patches = patches_of(padded, module.kernel_size, module.stride, module.dilation)  # (B, in * kernel, T)
    if module.groups == 1:
        return Factors(left.mT, patches.mT, module.out_channels)
    groups = (len(given), module.groups, -1, left.shape[2])
    return (left.reshape(groups) @ patches.reshape(groups).mT).flatten(1)


def patches_of(
    padded: torch.Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> torch.Tensor:
    """What a kernel sees at each of the T places where it stands: (B, in * kernel, T)."""
    if len(kernel) == 1:
        return F.unfold(padded.unsqueeze(2), (1, *kernel), (1, *dilation), stride=(1, *stride))
    if len(kernel) == 2:
        return F.unfold(padded, tuple(kernel), tuple(dilation), stride=tuple(stride))
    count, batch = len(kernel), len(padded)
    for dimension in range(count):
        span = dilation[dimension] * (kernel[dimension] - 1) + 1
        padded = padded.unfold(2 + dimension, span, stride[dimension])[..., :: dilation[dimension]]
    # (B, in, positions..., kernel...) -> (B, in, kernel..., positions...)
    order = (0, 1, *range(2 + count, 2 + 2 * count), *range(2, 2 + count))
    return padded.permute(order).reshape(batch, -1, math.prod(padded.shape[2 : 2 + count]))


def _norm(module: Any, name: str, given: torch.Tensor, cotangent: torch.Tensor) -> Part:
    if name == "weight":
        cotangent = cotangent * _normalized(module, given)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return _positions(cotangent, len(module.normalized_shape)).sum(1)
    return cotangent.reshape(*cotangent.shape[:2], -1).sum(2)


def _normalized(module: Any, given: torch.Tensor) -> torch.Tensor:
    """What a normalisation multiplies with its weight."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(given, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(given, list(module.normalized_shape), eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(given, module.num_groups, eps=module.eps)
    if isinstance(module, _INSTANCE_NORMS) and (module.training or not module.track_running_stats):
        return F.instance_norm(given, eps=module.eps)
    # by running statistics; batch normalisation is in eval mode, since in training mode the graph is refused
    mean, variance = module.running_mean.to(given), module.running_var.to(given)
    return F.batch_norm(given, mean, variance, training=False, eps=module.eps)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_OTHER_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_PARTIALS: dict[type[nn.Module], Partial] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys((*_INSTANCE_NORMS, *_OTHER_NORMS), _norm),
}

_SPATIAL = tuple(zip(_CONVOLUTIONS, _INSTANCE_NORMS, strict=True))
"""Layers by the number of dimensions behind that of the channels: one, two, three."""
