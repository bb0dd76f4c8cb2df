"""Whether all that a step is to write is finite, and the state that a rule goes back to where it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mtopt.autograd._complex import as_gradient
from mtopt.autograd._step import Step
from mtopt.combiners import Combiner
from mtopt.linalg import Gradients

Piece = tuple[Sequence[int], Sequence[torch.Tensor | None]]
"""Positions of parameters, and the gradient of each; None for one that is not reached after all."""

WHAT = "direction, of finite gradients"
"""What is made of rows that were looked at."""

_JOINED = 8_192
"""Entries of a tensor that is copied to one place with others rather than looked at by itself."""

_SHORT = 1e-3
"""Gradients shorter than this share of their dtype's largest number make no infinite direction by any rule on
coordinates, whose direction is at most some times as long."""


def refusal(
    pieces: Sequence[Piece], step: Step, bounds: Sequence[float] | None = None, *, what: str = "direction"
) -> str | None:
    """Why these gradients cannot be written, in words; None where all that would stand in ``.grad`` is finite.

    Args:
        pieces: what is to be written.
        step: the step.
        bounds: for each piece what no entry of it is larger than, infinity where nobody knows. Where that is far from
            the dtype's largest number, the piece is not looked at.
        what: what they are, for the reason.
    """
    unknown: list[torch.Tensor] = []
    added: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for number, (indices, gradients) in enumerate(pieces):
        bound = math.inf if bounds is None else bounds[number]
        for index, gradient in zip(indices, gradients, strict=True):
            if gradient is None:
                continue
            param = step.places[index].parameter
            gradient = as_gradient(gradient, param)
            if not bound < _limit(param.dtype):
                unknown.append(gradient.to(param.dtype))
            if param.grad is not None:
                added.append((param.grad, gradient, bound))
    if not are_finite(unknown):
        return f"non-finite {what}"
    if not _sums_are_finite(added):
        return f"non-finite sum of the {what} and what .grad holds"
    return None


def _limit(dtype: torch.dtype) -> float:
    """Below this a bound that is itself rounded proves that numbers are finite."""
    return 0.25 * torch.finfo(dtype).max


def _sums_are_finite(pairs: Sequence[tuple[torch.Tensor, torch.Tensor, float]]) -> bool:
    """Whether each first tensor plus its second is finite; the third is what no entry of the second is larger than."""
    if not pairs:
        return True
    limit = min(_limit(held.dtype) for held, _, _ in pairs)
    known = max((bound for _, _, bound in pairs if math.isfinite(bound)), default=0.0)
    unknown = [gradient for _, gradient, bound in pairs if not math.isfinite(bound)]
    if _largest([held for held, _, _ in pairs]) + known + _largest(unknown) < limit:
        return True
    return all(bool(_values(_sum(held, gradient)).isfinite().all()) for held, gradient, _ in pairs)


def _sum(held: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    dense_first = held + gradient if held.layout == torch.strided else gradient + held
    return dense_first.to(held.dtype)


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """The entries of a tensor, those that are not zero of a sparse one, both parts of complex ones."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().coalesce().values()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense


def _largest(tensors: Sequence[torch.Tensor]) -> float:
    """What no modulus of an entry is larger than; NaN or infinity where there is one."""
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in map(_values, tensors):
        if tensor.numel():
            by_device.setdefault(tensor.device, []).append(tensor)
    found = [torch._foreach_norm(group, math.inf) for group in by_device.values()]
    return sum(float(torch.stack([norm.double() for norm in norms]).max()) for norms in found)  # a max may lose a NaN


def state_before(combiner: Combiner, gradients: Sequence[Gradients], step: Step) -> dict[str, Any] | None:
    """The rule's state, to go back to where its direction turns out not to be finite; None where it has none.

    That of a rule on coordinates is as large as the gradients, and is copied only where they are long: what such a rule
    tracks or projects is not longer than a few of them.
    """
    if not combiner.stateful:
        return None
    if combiner.needs == "jacobian":
        longest = max((float(g.gramian.diagonal().max()) ** 0.5 * g.scale for g in gradients), default=0.0)
        if not is_long(longest, step):
            return None
    return combiner.state_dict()


def is_long(length: float, step: Step) -> bool:
    """Whether what is made of gradients of this length may overflow the parameters' dtypes."""
    return not length < _SHORT * min(torch.finfo(dtype).max for dtype in {p.parameter.dtype for p in step.places})


def are_finite(gradients: Sequence[torch.Tensor]) -> bool:
    """Whether no entry of the tensors is NaN or infinite."""
    kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for gradient in map(_values, gradients):
        kinds.setdefault((gradient.device, gradient.dtype), []).append(gradient)
    return all(_are_finite(found, torch.promote_types(dtype, torch.float32)) for (_, dtype), found in kinds.items())


def _are_finite(gradients: Sequence[torch.Tensor], wide: torch.dtype) -> bool:
    # A finite sum has finite terms, and is the fastest to come by. Another may be an overflow.
    small = [gradient.reshape(-1) for gradient in gradients if gradient.numel() <= _JOINED]
    sums = [gradient.sum(dtype=wide) for gradient in gradients if gradient.numel() > _JOINED]
    if small:
        sums.append(torch.cat(small).sum(dtype=wide))
    total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
    return math.isfinite(float(total)) or all(bool(gradient.isfinite().all()) for gradient in gradients)
