"""Complex parameters are pairs of reals: the gradient of one is that of ``torch.view_as_real`` of it."""

from __future__ import annotations

import torch


def split_complex(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, or the pairs of a complex one, in a last dimension of two.

    Autograd's gradient of a real loss is the derivative by the real part and i times that by the imaginary one, so its
    pairs are what a model of pairs of reals would get.
    """
    if not tensor.is_complex() or tensor.layout != torch.strided:  # sparse ones are refused by name
        return tensor
    return torch.view_as_real(tensor.detach().resolve_conj())


def view_reals(tensor: torch.Tensor) -> torch.Tensor:
    """What is as large as the gradients by ``tensor``: it itself, or its pairs; of a sharded one, of the part here.

    A view, which moves no gradient.
    """
    tensor = view_shard(tensor)
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor


def view_shard(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, or what lies in this process of a ``DTensor``."""
    if not hasattr(tensor, "to_local"):
        return tensor
    with torch.no_grad():
        part: torch.Tensor = tensor.to_local()
    return part


def join_complex(gradient: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """What :func:`split_complex` made pairs of, as the gradient of ``param``."""
    if not param.is_complex() or gradient.is_complex():
        return gradient
    return torch.view_as_complex(gradient.to(param.dtype.to_real()).contiguous())
