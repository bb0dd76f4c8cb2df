"""How much of a known text a model gives by itself, from one teacher-forced pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def exact_memorisation(correct: NDArray[np.bool_]) -> float:
    """The share of tokens that are the most probable one, given the true tokens before: in [0, 1].

    Args:
        correct: ``TokenScores.correct`` without the end token, (n,).

    open-unlearning's ``exact_memorization``. That all tokens and the end are correct is the same as that greedy
    generation gives the whole text.
    """
    return float(_checked(correct).mean())


def extraction_strength(correct: NDArray[np.bool_]) -> float:
    """The share of the text that greedy generation completes: the length of the longest suffix all of whose tokens are
    the most probable ones, over the length of the text: in [0, 1].

    With k the number of tokens before that suffix this is 1 - k / n (Carlini et al., USENIX Security 2021, as used by
    Wang et al., 2025, and open-unlearning). Where the last token is wrong no suffix is completed and the value is 0;
    open-unlearning gives 1 / n there, the same as where the last token alone is right.

    Args:
        correct: ``TokenScores.correct`` without the end token, (n,).
    """
    wrong = np.flatnonzero(~_checked(correct))
    completed = len(correct) - 1 - wrong[-1] if len(wrong) else len(correct)
    return float(completed / len(correct))


def _checked(correct: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not len(correct):
        raise ValueError("the text has no token besides its end, so memorisation is not defined; leave the row out")
    return correct
