"""Training on several losses: the trainer, its history, callbacks and checkpoints."""

from mtopt.training._adaptive_batches import AdaptiveBatches
from mtopt.training._batch_size import AdaptiveBatchSize
from mtopt.training._best import BestCheckpoint
from mtopt.training._callbacks import Callback, Evaluator
from mtopt.training._conditioned import HyperNetwork, PreferenceConditioned
from mtopt.training._csv_logger import CSVLogger
from mtopt.training._early_stopping import EarlyStopping
from mtopt.training._files import CheckpointWarning, read_checkpoint, write_checkpoint
from mtopt.training._folder import CheckpointFolder
from mtopt.training._front_archive import FrontArchive
from mtopt.training._gen import GeN
from mtopt.training._history import History
from mtopt.training._monitor import Monitor
from mtopt.training._preferences import PreferenceTrainer
from mtopt.training._progress import ProgressBar
from mtopt.training._random import seed_everything
from mtopt.training._sets import HypervolumeGradient, SetTrainer
from mtopt.training._sinkgd import SinkGD
from mtopt.training._svgd_sets import SVGDTrainer
from mtopt.training._tensorboard import TensorBoard
from mtopt.training._trainer import MultiLossTrainer
from mtopt.training._weight_average import WeightAverage

__all__ = [
    "AdaptiveBatchSize",
    "AdaptiveBatches",
    "BestCheckpoint",
    "CSVLogger",
    "Callback",
    "CheckpointFolder",
    "CheckpointWarning",
    "EarlyStopping",
    "Evaluator",
    "FrontArchive",
    "GeN",
    "History",
    "HyperNetwork",
    "HypervolumeGradient",
    "Monitor",
    "MultiLossTrainer",
    "PreferenceConditioned",
    "PreferenceTrainer",
    "ProgressBar",
    "SVGDTrainer",
    "SetTrainer",
    "SinkGD",
    "TensorBoard",
    "WeightAverage",
    "read_checkpoint",
    "seed_everything",
    "write_checkpoint",
]
