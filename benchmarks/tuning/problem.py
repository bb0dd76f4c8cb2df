"""Synthetic trainings of two objectives whose best epoch lies before the end, and whose whole front is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DIMENSION, EPOCHS, REFERENCE = 2, 20, (1.2, 1.2)

HYPERVOLUME = 0.2 + 2 / 3 + 0.24
r"""Of the front of all x and epochs, f2 = 1 - sqrt(f1): \int_0^1 (0.2 + sqrt(f)) df, and 0.2 * 1.2 beside it."""


def objectives(x: Array, epoch: int) -> Array:
    """(2,) of configuration x in the unit square after ``epoch`` of :data:`EPOCHS`, minimised.

    With s = epoch / EPOCHS the training moves along the front, a = 1 - s (1 - x_1), and away from it or towards it,
    b = 2 (x_2 - 0.2 - 0.6 s)^2:

        f1 = a + b,   f2 = 1 - sqrt(a) + b

    b is zero at the epoch s = (x_2 - 0.2) / 0.6, before which the training is not done, and after which it overfits. At
    s = 1 and x_2 = 0.8 every a in [0, 1] is reached with b = 0: the front is f2 = 1 - sqrt(f1).
    """
    s = epoch / EPOCHS
    along = 1.0 - s * (1.0 - x[0])
    away = 2.0 * (x[1] - 0.2 - 0.6 * s) ** 2
    return np.array([along + away, 1.0 - np.sqrt(along) + away])
