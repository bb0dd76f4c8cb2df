"""NYUv2, Cityscapes, CelebA and QM9 from a local folder, and the published single-task baselines."""

from .baselines import CITYSCAPES, NYUV2, QM9_BASELINES, Baseline, delta_of
from .celeba import CelebA
from .dense import DenseFolder, DenseMeter, dense_losses
from .dense_task import Cityscapes, NYUv2
from .qm9 import QM9

__all__ = [
    "CITYSCAPES",
    "NYUV2",
    "QM9",
    "QM9_BASELINES",
    "Baseline",
    "CelebA",
    "Cityscapes",
    "DenseFolder",
    "DenseMeter",
    "NYUv2",
    "delta_of",
    "dense_losses",
]
