"""Reading what the loss rules read: loss values, their domain, a reference point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import NonFiniteError
from mtopt.combiners._base import Combiner
from mtopt.combiners._preference import Preference, shares_of
from mtopt.linalg import Array, read_array

Reference = Sequence[float] | torch.Tensor | None
"""(K,) loss values z that a scalarization measures from; None for zeros."""


def loss_values(losses: torch.Tensor | npt.ArrayLike) -> Array:
    """``losses`` as a finite float64 vector.

    Raises:
        ValueError: not of shape (K,) with K >= 1.
        NonFiniteError: NaN or infinity.
    """
    values = read_array(losses)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"losses must have shape (K,) with K >= 1, found {values.shape}")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"losses hold NaN or infinity: {values.tolist()}; drop those losses or skip the step")
    return values


def require_above(
    rule: Combiner,
    values: Array,
    objectives: Sequence[int],
    *,
    why: str,
    bound: Array | float = 0.0,
    inclusive: bool = False,
    remedy: str = "add a constant to that loss, or use another rule",
) -> None:
    """Raise ValueError unless ``values > bound`` (``>=`` if ``inclusive``), naming the first objective that fails."""
    outside = values < bound if inclusive else values <= bound
    if not outside.any():
        return
    first = int(outside.argmax())
    least = np.broadcast_to(bound, values.shape)[first]
    raise ValueError(
        f"{type(rule).__name__} needs every loss {'>=' if inclusive else '>'} {least:g} ({why}), found "
        f"{values[first]:g} for objective {objectives[first]}; {remedy}. The loss of an objective to maximise enters "
        "with its sign flipped, so it is usually negative"
    )


def check_reference(reference: Reference, name: str = "reference") -> None:
    """Raise ValueError unless ``reference`` is None or a finite vector."""
    if reference is None:
        return
    vector = torch.as_tensor(reference, dtype=torch.float64)
    if vector.ndim != 1 or len(vector) == 0 or not bool(vector.isfinite().all()):
        raise ValueError(f"{name} must be a finite vector, one value per objective, found {vector.tolist()}")


def reference_of(reference: Reference, objectives: Sequence[int], total: int, name: str = "reference") -> Array:
    """The reference values of the given objectives out of ``total``; None is zero each."""
    if reference is None:
        return np.zeros(len(objectives))
    vector = read_array(torch.as_tensor(reference, dtype=torch.float64))
    if len(vector) != total:
        raise ValueError(f"{name} has {len(vector)} entries for {total} objectives; give one entry per objective")
    return vector[list(objectives)]


def softmax(scores: Array) -> Array:
    """``exp(scores)`` over its sum, without overflow."""
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def shares_of_largest(terms: Array) -> Array:
    """A subgradient of the maximum of ``terms``: those that attain it share equally, so that order does not matter."""
    attained = terms == terms.max()
    return np.asarray(attained / attained.sum())


def losses_above(
    rule: Combiner, losses: torch.Tensor, preference: Preference, reference: Reference
) -> tuple[Array, Array]:
    """The preference p (K,) and ``l - z`` (K,), losses above a reference point, for the objectives of this step."""
    values = loss_values(losses)
    objectives, total = rule.objectives_of_rows(len(values))
    return shares_of(preference, objectives, total), values - reference_of(reference, objectives, total)
