"""Training on several losses: the trainer, its history, callbacks and checkpoints."""

from mtopt.training._adagrad_norm import AdaGradNorm
from mtopt.training._checks import read_rule
from mtopt.training._closure import refuse_closure
from mtopt.training._conditioned import HyperNetwork, PreferenceConditioned
from mtopt.training._evaluation import count_examples
from mtopt.training._history import History
from mtopt.training._preferences import PreferenceTrainer
from mtopt.training._random import seed_everything
from mtopt.training._sharpness import SharpnessAware
from mtopt.training._sinkgd import SinkGD
from mtopt.training._task_batches import StratifiedBatches, TaskBatches
from mtopt.training._trainer import MultiLossTrainer
from mtopt.training.callbacks import (
    AdaptiveBatches,
    AdaptiveBatchSize,
    BestCheckpoint,
    Callback,
    CSVLogger,
    EarlyStopping,
    Evaluator,
    FrontArchive,
    Monitor,
    ProgressBar,
    TensorBoard,
    WeightAverage,
)
from mtopt.training.checkpoint import (
    CheckpointFolder,
    CheckpointWarning,
    load_rule_state,
    read_checkpoint,
    whole_rule_state,
    write_checkpoint,
)
from mtopt.training.gen import GeN
from mtopt.training.sets import HypervolumeGradient, PaLoRA, PaMaL, SetTrainer, SVGDTrainer, TchebycheffSet

__all__ = [
    "AdaGradNorm",
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
    "PaLoRA",
    "PaMaL",
    "PreferenceConditioned",
    "PreferenceTrainer",
    "ProgressBar",
    "SVGDTrainer",
    "SetTrainer",
    "SharpnessAware",
    "SinkGD",
    "StratifiedBatches",
    "TaskBatches",
    "TchebycheffSet",
    "TensorBoard",
    "WeightAverage",
    "count_examples",
    "load_rule_state",
    "read_checkpoint",
    "read_rule",
    "refuse_closure",
    "seed_everything",
    "whole_rule_state",
    "write_checkpoint",
]
