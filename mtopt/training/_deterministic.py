"""Deterministic kernels for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def use_deterministic_kernels() -> None:
    """From now on torch takes deterministic kernels only, and raises where an operation has none."""
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # without it cuBLAS may add in another order each time
    torch.backends.cudnn.benchmark = False  # the fastest kernel is not the same one in each run
    torch.use_deterministic_algorithms(True)


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """:func:`use_deterministic_kernels` within the block, if ``wanted``; afterwards everything is as it was."""
    if not wanted:
        yield
        return
    workspace = os.environ.get(_WORKSPACE)
    benchmark = torch.backends.cudnn.benchmark
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    use_deterministic_kernels()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
