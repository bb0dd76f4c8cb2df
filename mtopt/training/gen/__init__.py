"""GeN: the automatic learning rate, and the probes it is found by."""

from mtopt.training.gen._gen import GeN

__all__ = ["GeN"]
