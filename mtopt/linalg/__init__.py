"""K gradients as one object, their inner products in float64, and what a Gramian tells.

It knows neither rules nor programs: both are above it, and so is the engine.
"""

from mtopt.linalg._arrays import Array, Indices, Mask, load_lapack, make_tensor_like, read_array
from mtopt.linalg._combination import PackedTensors, cut_to_shapes, exceed_float32
from mtopt.linalg._complex import join_complex, split_complex, view_reals, view_shard
from mtopt.linalg._cross_gramian import cross_gramian_of, multiply_gradients, read_cross_gramian
from mtopt.linalg._entries import are_finite, finite_limit, norm_of, sums_are_finite
from mtopt.linalg._gradients import Gradients, InnerProducts, Place, rescale_rows
from mtopt.linalg._gramian import (
    Live,
    average_norms,
    normalize_gramian,
    normalize_live_rows,
    read_geometry,
    read_gramian,
    take_block,
)
from mtopt.linalg._inner_products import gramian_of, needs_double
from mtopt.linalg._ownership import copy_unless_alone, takes_writes
from mtopt.linalg._parts import columns_in_parts, sum_parts
from mtopt.linalg._precision import DOUBLE_PRECISION, Precision
from mtopt.linalg._row_storage import STAYS_APART, Row, RowMatrix, rows_fit, store_in_matrix, store_short
from mtopt.linalg._semidefinite import (
    read_coordinates,
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
    "STAYS_APART",
    "Array",
    "Gradients",
    "Indices",
    "InnerProducts",
    "Live",
    "Mask",
    "PackedTensors",
    "Place",
    "Precision",
    "Row",
    "RowMatrix",
    "TwoGradients",
    "apply_pseudo_inverse",
    "are_finite",
    "average_norms",
    "columns_in_parts",
    "copy_unless_alone",
    "cross_gramian_of",
    "cut_to_shapes",
    "exceed_float32",
    "find_singular_values",
    "finite_limit",
    "gramian_of",
    "join_complex",
    "load_lapack",
    "make_tensor_like",
    "multiply_gradients",
    "needs_double",
    "norm_of",
    "normalize_gramian",
    "normalize_live_rows",
    "read_array",
    "read_coordinates",
    "read_cross_gramian",
    "read_geometry",
    "read_gramian",
    "read_two",
    "require_cosine",
    "require_semidefinite",
    "rescale_rows",
    "rows_fit",
    "split_complex",
    "store_in_matrix",
    "store_short",
    "sum_parts",
    "sums_are_finite",
    "take_block",
    "take_semidefinite_root",
    "take_square_root",
    "takes_writes",
    "view_reals",
    "view_shard",
]
