"""Checkpoints: what is in them, the files, the folder of a run, and going on from there."""

from mtopt._checkpoints import CheckpointWarning, plain, read_checkpoint, write_checkpoint
from mtopt.training.checkpoint._folder import CheckpointFolder, read_content, write_together
from mtopt.training.checkpoint._position import check_position, position_here
from mtopt.training.checkpoint._resuming import load_content, resume_from
from mtopt.training.checkpoint._rule_state import load_rule_state, whole_rule_state
from mtopt.training.checkpoint._settings import settings_of
from mtopt.training.checkpoint._state import load_trainer_state, trainer_state

__all__ = [
    "CheckpointFolder",
    "CheckpointWarning",
    "check_position",
    "load_content",
    "load_rule_state",
    "load_trainer_state",
    "plain",
    "position_here",
    "read_checkpoint",
    "read_content",
    "resume_from",
    "settings_of",
    "trainer_state",
    "whole_rule_state",
    "write_checkpoint",
    "write_together",
]
