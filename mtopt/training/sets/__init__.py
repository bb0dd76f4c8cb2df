"""Several models trained together, so that as a set they cover the front."""

from mtopt.training.sets._sets import HypervolumeGradient, SetTrainer
from mtopt.training.sets._subspaces import PaLoRA, PaMaL
from mtopt.training.sets._svgd import SVGDTrainer
from mtopt.training.sets._tchebycheff_set import TchebycheffSet

__all__ = ["HypervolumeGradient", "PaLoRA", "PaMaL", "SVGDTrainer", "SetTrainer", "TchebycheffSet"]
