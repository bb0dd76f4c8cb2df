"""From K losses to gradients, as cheaply as the rule allows."""

from mtopt.autograd._absent import Absent, check_absent, nothing_present, without_nan
from mtopt.autograd._accumulator import JacobianAccumulator
from mtopt.autograd._backward import backward, check_rule
from mtopt.autograd._backward import refuse_ranks as refuse_ranks
from mtopt.autograd._buffers import buffers_kept
from mtopt.autograd._combine import direction_of as direction_of
from mtopt.autograd._combine import gradients_of as gradients_of
from mtopt.autograd._combine import non_finite as non_finite
from mtopt.autograd._combine import skipped as skipped
from mtopt.autograd._finite import Piece as Piece
from mtopt.autograd._finite import refusal as refusal
from mtopt.autograd._generators import Generators
from mtopt.autograd._instances import Instances, per_instance
from mtopt.autograd._matrix_free import MatrixFree
from mtopt.autograd._matrix_free import matrix_free as as_matrix_free
from mtopt.autograd._objective import Losses, LossValue, NoLossError, Objective, check_loss, read_losses
from mtopt.autograd._objective import value_of as run_loss
from mtopt.autograd._objective import values_of as run_losses
from mtopt.autograd._plans import Plan, Store, check_plan
from mtopt.autograd._plans import logged as logged
from mtopt.autograd._probe import Probe, Verdict
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request as Request
from mtopt.autograd._request import rows_of as rows_of
from mtopt.autograd._rows import Row as Row
from mtopt.autograd._rows import trainable as trainable
from mtopt.autograd._second_forward import graph_where_needed, second_look
from mtopt.autograd._step import Group as Group
from mtopt.autograd._step import Private
from mtopt.autograd._step import Step as Step
from mtopt.autograd._write import takes_writes
from mtopt.autograd._write import write_pieces as write_pieces

# What is imported above under its own name again (``Row as Row``) is there for the step of MOO-SVGD alone, until
# that goes through the engine's one step, too.
__all__ = [
    "Absent",
    "Generators",
    "Instances",
    "JacobianAccumulator",
    "LossValue",
    "Losses",
    "MatrixFree",
    "NoLossError",
    "Objective",
    "Plan",
    "Private",
    "Probe",
    "StepRecord",
    "Store",
    "Verdict",
    "as_matrix_free",
    "backward",
    "buffers_kept",
    "check_absent",
    "check_loss",
    "check_plan",
    "check_rule",
    "graph_where_needed",
    "nothing_present",
    "per_instance",
    "read_losses",
    "run_loss",
    "run_losses",
    "second_look",
    "takes_writes",
    "without_nan",
]
