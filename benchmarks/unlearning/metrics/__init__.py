"""Metrics of unlearning on any causal language model: TOFU's, MUSE's, memorisation and membership inference."""

from .evaluation import Evaluation
from .muse import evaluate_muse, scalability, sustainability
from .tofu import evaluate, measure, summarise

__all__ = ["Evaluation", "evaluate", "evaluate_muse", "measure", "scalability", "summarise", "sustainability"]
