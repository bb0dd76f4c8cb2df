"""From K losses to gradients, as cheaply as the rule allows."""

from mtopt.autograd._accumulator import JacobianAccumulator
from mtopt.autograd._backward import backward
from mtopt.autograd._instances import Instances, per_instance
from mtopt.autograd._matrix_free import MatrixFree
from mtopt.autograd._objective import Losses, LossValue, Objective
from mtopt.autograd._probe import Probe, Verdict
from mtopt.autograd._record import StepRecord

__all__ = [
    "Instances",
    "JacobianAccumulator",
    "LossValue",
    "Losses",
    "MatrixFree",
    "Objective",
    "Probe",
    "StepRecord",
    "Verdict",
    "backward",
    "per_instance",
]
