"""Dominance, the quality of a set of trade-offs, preferences, and tracing a front.

Everywhere, every objective is minimised and `points` holds N objective vectors in its rows, (N, K): a tensor, an
array, nested lists, or a list of N tensors (K,). Computation is in float64 on the CPU.
"""

from mtopt.pareto.choosing import achievement, bulges, pseudo_weights, suggest_reference, tradeoffs
from mtopt.pareto.delta import delta_m, mean_rank
from mtopt.pareto.differentiable import hypervolume_2d
from mtopt.pareto.distances import epsilon, gd, gd_plus, igd, igd_plus
from mtopt.pareto.dominance import hypervolume, hypervolume_contributions, is_nondominated
from mtopt.pareto.front import Front
from mtopt.pareto.hypervolume_gradient import hypervolume_weights
from mtopt.pareto.preferences import das_dennis, random_preferences, riesz_preferences, uniform_preferences
from mtopt.pareto.scalarized import r2
from mtopt.pareto.spread import spacing, sparsity
from mtopt.pareto.stationarity import kkt_residual
from mtopt.pareto.svgd import moo_svgd
from mtopt.pareto.tracing import trace_front

__all__ = [
    "Front",
    "achievement",
    "bulges",
    "das_dennis",
    "delta_m",
    "epsilon",
    "gd",
    "gd_plus",
    "hypervolume",
    "hypervolume_2d",
    "hypervolume_contributions",
    "hypervolume_weights",
    "igd",
    "igd_plus",
    "is_nondominated",
    "kkt_residual",
    "mean_rank",
    "moo_svgd",
    "pseudo_weights",
    "r2",
    "random_preferences",
    "riesz_preferences",
    "spacing",
    "sparsity",
    "suggest_reference",
    "trace_front",
    "tradeoffs",
    "uniform_preferences",
]
