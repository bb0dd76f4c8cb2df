"""What the trainer calls while it runs: evaluation, selection, stopping, averages, logs, the batch size."""

from mtopt.training.callbacks._adaptive_batches import AdaptiveBatches
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._batch_size import AdaptiveBatchSize
from mtopt.training.callbacks._best import BestCheckpoint
from mtopt.training.callbacks._csv_logger import CSVLogger
from mtopt.training.callbacks._early_stopping import EarlyStopping
from mtopt.training.callbacks._evaluator import Evaluator
from mtopt.training.callbacks._front_archive import FrontArchive
from mtopt.training.callbacks._monitor import Monitor
from mtopt.training.callbacks._progress import ProgressBar
from mtopt.training.callbacks._tensorboard import TensorBoard
from mtopt.training.callbacks._weight_average import WeightAverage

__all__ = [
    "AdaptiveBatchSize",
    "AdaptiveBatches",
    "BestCheckpoint",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "Evaluator",
    "FrontArchive",
    "Monitor",
    "ProgressBar",
    "TensorBoard",
    "WeightAverage",
]
