"""Whether the losses of a model conflict, beside what chance and the noise of batches give; nothing is trained."""

from mtopt.diagnosis._diagnose import diagnose
from mtopt.diagnosis._diagnosis import Diagnosis
from mtopt.diagnosis._examine import NothingToCompareError, examine
from mtopt.diagnosis._findings import Layer, Under
from mtopt.diagnosis._rows import differentiate
from mtopt.diagnosis._statistics import Noise
from mtopt.diagnosis._watch import StarvationWarning, Watch

__all__ = [
    "Diagnosis",
    "Layer",
    "Noise",
    "NothingToCompareError",
    "StarvationWarning",
    "Under",
    "Watch",
    "diagnose",
    "differentiate",
    "examine",
]
