"""Differentiable test problems whose Pareto fronts are known.

    problem = mtopt.problems.create_problem("zdt1", num_variables=10)
    values = problem(problem.sample_starts(100, seed=0))  # (100, 2)
    problem.pareto_front(500), problem.hypervolume

A new problem is one small file here: a subclass of `Problem` under `@register_problem("its_name")`, imported
below.
"""

from mtopt.problems._base import Problem
from mtopt.problems._registry import create_problem, list_problems, register_problem
from mtopt.problems.cagrad_toy import CAGradToy
from mtopt.problems.dtlz import DTLZ1, DTLZ2, DTLZ3, DTLZ4, DTLZ5, DTLZ6, DTLZ7
from mtopt.problems.maf import MaF1
from mtopt.problems.moco_toy import MoCoToy
from mtopt.problems.pcgrad_toy import PCGradToy
from mtopt.problems.quadratics import QuadraticPair, Quadratics
from mtopt.problems.real_world_2 import RE21, RE24
from mtopt.problems.real_world_3 import RE31, RE32, RE33, RE34, RE37
from mtopt.problems.real_world_4 import RE41, RE42, RE61, RE91
from mtopt.problems.sphere_pairs import JOS1, SCH, VLMOP1
from mtopt.problems.vlmop2 import VLMOP2, FonsecaFleming
from mtopt.problems.vlmop3 import VLMOP3
from mtopt.problems.zdt import ZDT1, ZDT2, ZDT3, ZDT4, ZDT6

__all__ = [
    "DTLZ1",
    "DTLZ2",
    "DTLZ3",
    "DTLZ4",
    "DTLZ5",
    "DTLZ6",
    "DTLZ7",
    "JOS1",
    "RE21",
    "RE24",
    "RE31",
    "RE32",
    "RE33",
    "RE34",
    "RE37",
    "RE41",
    "RE42",
    "RE61",
    "RE91",
    "SCH",
    "VLMOP1",
    "VLMOP2",
    "VLMOP3",
    "ZDT1",
    "ZDT2",
    "ZDT3",
    "ZDT4",
    "ZDT6",
    "CAGradToy",
    "FonsecaFleming",
    "MaF1",
    "MoCoToy",
    "PCGradToy",
    "Problem",
    "QuadraticPair",
    "Quadratics",
    "create_problem",
    "list_problems",
    "register_problem",
]
