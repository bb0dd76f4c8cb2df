"""What scores over tasks and seeds say: estimates, paired tests, ranks, and the verdict in words."""

from mtopt.experiments.statistics._estimate import Estimate, estimate
from mtopt.experiments.statistics._ranking import Ranking, rank
from mtopt.experiments.statistics._verdict import Verdict, judge

__all__ = ["Estimate", "Ranking", "Verdict", "estimate", "judge", "rank"]
