"""What a comparison found, shown: the table, the figures, the page, and failures in words."""

from mtopt.experiments.presentation._comparison import Comparison

__all__ = ["Comparison"]
