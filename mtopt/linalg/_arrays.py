"""Arrays for the small algebra, float64 on the CPU: from tensors, to tensors, and what works on them."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


def read_array(value: torch.Tensor | npt.ArrayLike) -> Array:
    """``value`` as a float64 array on the CPU."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype != torch.float64 or not value.is_cpu:
            value = value.to("cpu", torch.float64)
        return np.asarray(value.numpy())
    return np.asarray(value, dtype=np.float64)


def make_tensor_like(weights: Array, like: Any) -> torch.Tensor:
    """``weights`` as a tensor of the dtype and device of ``like`` (float64 on the CPU when it is no tensor)."""
    result = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float64))
    if isinstance(like, torch.Tensor) and (like.dtype != torch.float64 or not like.is_cpu):
        return result.to(like.device, like.dtype)
    return result


@functools.cache
def load_lapack() -> ModuleType:
    """SciPy's LAPACK, a tenth of the call of numpy's for a small matrix; imported by who needs it."""
    from scipy.linalg import lapack as module

    return module
