"""ROUGE-L: how much of a text's words, in their order, another text has."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple


class RougeL(NamedTuple):
    """LCS / words of the target, LCS / words of the prediction, and their harmonic mean; LCS is the length of the
    longest common subsequence of words."""

    recall: float
    precision: float
    f1: float


def rouge_l(target: str, prediction: str, *, stem: bool) -> RougeL:
    """ROUGE-L of ``rouge-score``: lower case, letters and digits only; all three are 0 where nothing is common.

    Args:
        target: The text to recall.
        prediction: The generated one.
        stem: Whether words of more than three letters are compared by their Porter stems: True in TOFU, which reports
            the recall; False in MUSE, which reports F1.
    """
    precision, recall, f1 = _scorer(stem).score(target, prediction)["rougeL"]
    return RougeL(float(recall), float(precision), float(f1))


@cache
def _scorer(stem: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        if error.name != "rouge_score":
            raise
        message = 'ROUGE needs `rouge-score`: pip install "mtopt[unlearning]"'
        raise ModuleNotFoundError(message, name="rouge_score") from error
    return RougeScorer(["rougeL"], use_stemmer=stem)
