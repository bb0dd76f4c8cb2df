"""K gradients as one object, their inner products in float64, and what a Gramian tells.

It knows neither rules nor programs: both are above it, and so is the engine.
"""

from mtopt.linalg._arrays import Array, Indices, Mask, load_lapack, make_tensor_like, read_array
from mtopt.linalg._coordinates import average_norms, read_coordinates
from mtopt.linalg._cross_gramian import cross_gramian_of, multiply_gradients, read_cross_gramian
from mtopt.linalg._gradients import Gradients, Place
from mtopt.linalg._gramian import Live, normalize_gramian, normalize_live_rows, read_gramian, take_block
from mtopt.linalg._inner_products import gramian_of
from mtopt.linalg._norms import norm_of
from mtopt.linalg._packed import PackedTensors, cut_to_shapes
from mtopt.linalg._precision import DOUBLE_PRECISION, Precision
from mtopt.linalg._rescaled import rescale_rows
from mtopt.linalg._semidefinite import (
    require_cosine,
    require_semidefinite,
    take_semidefinite_root,
    take_square_root,
)
from mtopt.linalg._sizes import CHUNK, SEGMENT
from mtopt.linalg._spectrum import apply_pseudo_inverse, find_singular_values
from mtopt.linalg._two_gradients import TwoGradients, read_two

__all__ = [
    "CHUNK",
    "DOUBLE_PRECISION",
    "SEGMENT",
    "Array",
    "Gradients",
    "Indices",
    "Live",
    "Mask",
    "PackedTensors",
    "Place",
    "Precision",
    "TwoGradients",
    "apply_pseudo_inverse",
    "average_norms",
    "cross_gramian_of",
    "cut_to_shapes",
    "find_singular_values",
    "gramian_of",
    "load_lapack",
    "make_tensor_like",
    "multiply_gradients",
    "norm_of",
    "normalize_gramian",
    "normalize_live_rows",
    "read_array",
    "read_coordinates",
    "read_cross_gramian",
    "read_gramian",
    "read_two",
    "require_cosine",
    "require_semidefinite",
    "rescale_rows",
    "take_block",
    "take_semidefinite_root",
    "take_square_root",
]
