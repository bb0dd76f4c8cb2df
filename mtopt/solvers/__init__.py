"""The small convex programs behind the rules: K x K, float64, exact, each with its certificate."""

from mtopt.linalg import Precision
from mtopt.solvers._alpha_fair import alpha_fair
from mtopt.solvers._certificate import Certificate
from mtopt.solvers._cone import best_in_cone
from mtopt.solvers._conflict_averse import conflict_averse
from mtopt.solvers._dual_cone import project_dual_cone, project_rows
from mtopt.solvers._exact_pareto import balance_or_descend
from mtopt.solvers._least_distance import least_distance
from mtopt.solvers._linear_program import LOOSENING, maximise_linear
from mtopt.solvers._min_norm import min_norm
from mtopt.solvers._ray_step import ray_step
from mtopt.solvers._simplex import project_simplex
from mtopt.solvers._toward_ray import correct_towards, predict_along

__all__ = [
    "LOOSENING",
    "Certificate",
    "Precision",
    "alpha_fair",
    "balance_or_descend",
    "best_in_cone",
    "conflict_averse",
    "correct_towards",
    "least_distance",
    "maximise_linear",
    "min_norm",
    "predict_along",
    "project_dual_cone",
    "project_rows",
    "project_simplex",
    "ray_step",
]
