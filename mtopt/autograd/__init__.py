"""From K losses to gradients, as cheaply as the rule allows."""

from mtopt.autograd._accumulator import JacobianAccumulator
from mtopt.autograd._backward import backward, logged, nothing_present
from mtopt.autograd._call import Call, PlanName, Private, Store, as_matrix_free, check_plan, check_rule, trainable
from mtopt.autograd._coordinates import kept_by_coordinate, note_kept
from mtopt.autograd._instances import Instances, per_instance
from mtopt.autograd._matrix_free_options import MatrixFree
from mtopt.autograd._probe import Probe, Verdict
from mtopt.autograd._reach import Group, Grouping
from mtopt.autograd._record import StepRecord
from mtopt.autograd._step import Evidence, run_step
from mtopt.autograd.plans import KeptRows

__all__ = [
    "Call",
    "Evidence",
    "Group",
    "Grouping",
    "Instances",
    "JacobianAccumulator",
    "KeptRows",
    "MatrixFree",
    "PlanName",
    "Private",
    "Probe",
    "StepRecord",
    "Store",
    "Verdict",
    "as_matrix_free",
    "backward",
    "check_plan",
    "check_rule",
    "kept_by_coordinate",
    "logged",
    "note_kept",
    "nothing_present",
    "per_instance",
    "run_step",
    "trainable",
]
