"""The ray of a preference: the loss values ``l = t p``, t > 0, that a rule steers to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.linalg import Array


def check_ray(rule: str, preference: Preference) -> None:
    """Raise ValueError unless ``preference`` is None or a positive vector that sums to one."""
    check_preference(preference)
    if preference is not None and not bool((torch.as_tensor(preference) > 0).all()):
        raise ValueError(
            f"{rule} steers to the ray of the preference, and needs it to be positive, found "
            f"{torch.as_tensor(preference).tolist()}; give a small number instead of zero"
        )


def unit_ray(preference: Preference, objectives: Sequence[int], total: int) -> Array:
    """``p / ||p||`` for the given objectives out of ``total``."""
    ray = preference_of(preference, objectives, total).numpy()
    return np.asarray(ray / np.linalg.norm(ray))


def off_ray(values: Array, ray: Array) -> Array:
    """The part of ``values`` across the unit vector ``ray``; zero where it is only rounding."""
    off = values - (values @ ray) * ray
    off = off - (off @ ray) * ray
    return off if np.linalg.norm(off) > 1e-14 * np.linalg.norm(values) else np.zeros_like(off)
