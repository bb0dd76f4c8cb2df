"""Metrics of unlearning on any causal language model: TOFU's, MUSE's, memorisation and membership inference."""

from benchmarks.unlearning.metrics.evaluation import Evaluation
from benchmarks.unlearning.metrics.muse import evaluate_muse, scalability, sustainability
from benchmarks.unlearning.metrics.tofu import evaluate, measure, summarise

__all__ = ["Evaluation", "evaluate", "evaluate_muse", "measure", "scalability", "summarise", "sustainability"]
