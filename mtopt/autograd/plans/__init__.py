"""The ways to make a step: each says who reaches what, what the rule sees, and what its answer comes to."""

from mtopt.autograd.plans._blockwise import Blockwise, alive_in_rounds
from mtopt.autograd.plans._kept_rows import KeptRows
from mtopt.autograd.plans._layers import Layers
from mtopt.autograd.plans._matrix_free import FollowedWeights
from mtopt.autograd.plans._matrix_free_batches import FollowedDraws
from mtopt.autograd.plans._representation import Representation
from mtopt.autograd.plans._several_batches import Draws, SeveralBatches
from mtopt.autograd.plans._streamed import StreamedRows
from mtopt.autograd.plans._two_points import TwoPoints
from mtopt.autograd.plans._weighted import WHAT, KeptWeights, LossValues

__all__ = [
    "WHAT",
    "Blockwise",
    "Draws",
    "FollowedDraws",
    "FollowedWeights",
    "KeptRows",
    "KeptWeights",
    "Layers",
    "LossValues",
    "Representation",
    "SeveralBatches",
    "StreamedRows",
    "TwoPoints",
    "alive_in_rounds",
]
