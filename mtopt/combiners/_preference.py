"""Reading a preference: how much each objective matters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtopt.linalg import Array, read_array

Preference = Sequence[float] | torch.Tensor | None
"""(K,), non-negative, sums to one; None for no preference."""


def check_preference(preference: Preference) -> None:
    """Raise ValueError unless ``preference`` is None or a non-negative vector that sums to one (to 1e-6)."""
    if preference is None:
        return
    vector = torch.as_tensor(preference, dtype=torch.float64)
    if vector.ndim != 1 or not bool((vector >= 0).all()) or abs(float(vector.sum()) - 1.0) > 1e-6:
        raise ValueError(
            f"preference must be non-negative and sum to one, found {vector.tolist()} "
            f"(sum {float(vector.sum()):g}); divide it by its sum"
        )


def preference_of(preference: Preference, objectives: Sequence[int], total: int) -> torch.Tensor:
    """The preference for the given objectives out of ``total``, float64; None is ``1 / total`` each."""
    return torch.from_numpy(shares_of(preference, objectives, total))


def shares_of(preference: Preference, objectives: Sequence[int], total: int) -> Array:
    """:func:`preference_of` for the small programs: a numpy array."""
    if preference is None:
        return np.full(len(objectives), 1.0 / total)
    vector = read_array(preference)
    if len(vector) != total:
        raise ValueError(f"preference has {len(vector)} entries for {total} objectives; give one entry per objective")
    return np.asarray(vector[list(objectives)])
