"""Rules with a fault in them fail the conformance suite, by the check that is meant to find it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mtopt
import mtopt.linalg
import mtopt.solvers
from mtopt.combiners import Combiner
from mtopt.testing import CheckError, check_answer, check_combiner, list_checks, samplers


class NanOnZero(mtopt.GramianCombiner):
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return gramian.diagonal().rsqrt() * gramian.diagonal().sqrt()


class AbsoluteEpsilon(mtopt.GramianCombiner):
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return 1.0 / (gramian.diagonal().sqrt() + 1e-8)


class FirstIsBest(mtopt.GramianCombiner):
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return 1.0 / torch.arange(1, len(gramian) + 1)


class ForgetsItsState(mtopt.GramianCombiner):
    stateful = True
    state = ("_steps",)

    def __init__(self) -> None:
        self._steps = 0
        self._last = 1.0

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        self._steps += 1
        self._last = 0.5 * self._last + 0.1
        return torch.full((len(gramian),), self._last, dtype=gramian.dtype)


class HidesItsState(mtopt.GramianCombiner):
    def __init__(self) -> None:
        self._steps = 0

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        self._steps += 1
        return torch.full((len(gramian),), 1.0 / self._steps, dtype=gramian.dtype)


class GlobalTorch(mtopt.GramianCombiner):
    stochastic = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.rand(len(gramian))


class GlobalNumpy(mtopt.GramianCombiner):
    stochastic = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.from_numpy(np.random.rand(len(gramian)))  # noqa: NPY002  (the fault)


class WrongDtype(mtopt.JacobianCombiner):
    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return jacobian.double().mean(0)


class Float32Inside(mtopt.JacobianCombiner):
    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        rows = jacobian.float()
        norms = (rows @ rows.T).diagonal().sqrt()
        return torch.where(norms > 0, 1.0 / norms, 0.0).to(jacobian) @ jacobian


class TraceNormalised(mtopt.GramianCombiner):
    """The projection of each gradient off those it conflicts with, regularised relative to the trace."""

    scale_invariant = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        trace = gramian.trace()
        if trace == 0:
            return torch.zeros(len(gramian))
        return (gramian.diagonal() / trace + 1e-4).rsqrt()


class SaysItNeverConflicts(mtopt.GramianCombiner):
    non_conflicting = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ones(len(gramian))


class ConflictsAtARatio(mtopt.GramianCombiner):
    """MGDA of a Gramian whose entries below 1e-8 of the trace are lost."""

    non_conflicting = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        rounded = torch.where(gramian.abs() > 1e-8 * gramian.trace(), gramian, 0.0)
        return torch.from_numpy(mtopt.solvers.min_norm(rounded)[0])


class SaysItIsScaleInvariant(mtopt.GramianCombiner):
    scale_invariant = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ones(len(gramian))


class SumsByItself(mtopt.JacobianCombiner):
    """As long as the sum of the first row's entries, which is not that of a part of them."""

    shardable = True

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return jacobian.sum(0) * jacobian[0].abs().sum()


class SumsOnceMore(mtopt.JacobianCombiner):
    """Asks for a sum that depends on how many columns there are."""

    shardable = True

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        if jacobian.shape[1] > 6:
            mtopt.linalg.gramian_of(jacobian)
        return jacobian.sum(0)


class WritesItsInput(mtopt.JacobianCombiner):
    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        if losses is not None:
            losses += 1.0
        return jacobian.mean(0)


class IndexesByRow(mtopt.GramianCombiner):
    def __init__(self, *, preference: tuple[float, ...] = (0.1, 0.2, 0.7)) -> None:
        self.preference = preference

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tensor(self.preference[: len(gramian)])


class NeedsTwo(mtopt.GramianCombiner):
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([gramian[1, 1], gramian[0, 0]])


class TakesNegativeLogarithms(mtopt.LossCombiner):
    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return losses.log()


class SaysItRefusesNegativeLosses(mtopt.LossCombiner):
    positive_losses = True

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return losses


class SaysItWeighs(mtopt.JacobianCombiner):
    weighted = True

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return jacobian.mean(0)


class PositionalHyperparameter(mtopt.GramianCombiner):
    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ones(len(gramian))


class LosesAHyperparameter(mtopt.GramianCombiner):
    def __init__(self, *, power: float = 1.0) -> None:
        self._power = power

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ones(len(gramian))


class ReadsWhatItShouldNot(mtopt.GramianCombiner):
    """Answers otherwise in a step than for the Gramian alone."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.full((len(gramian),), 1.0 if self.objectives else 2.0, dtype=gramian.dtype)


class ChangesWhenSkipped(mtopt.GramianCombiner):
    """Overrides the entry that looks after a step, and counts before it."""

    stateful = True
    state = ("_calls",)

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        self._calls += 1
        return super().__call__(jacobian, losses)

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ones(len(gramian))


class AwaitsForEver(mtopt.LossCombiner):
    reevaluates = True

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(losses))


class UndeclaredState(mtopt.LossCombiner):
    stateful = True

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(losses))


class StepsAlongTheNullSpace(mtopt.combiners.MGDA):
    """Long steps that cancel, but for rounding, where rows depend on each other; and a slack that grew with them."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        weights = super().weights(gramian, losses)
        norms = gramian.diagonal().sqrt()
        if norms.min() == 0.0:
            return weights
        values, vectors = torch.linalg.eigh(gramian / norms / norms[:, None])
        return weights + 1e9 * vectors[:, 0] / norms if values[0] < 1e-7 else weights


class ConflictsInFloat32(mtopt.JacobianCombiner):
    """MGDA's direction in float64 alone."""

    non_conflicting = True

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        if jacobian.dtype == torch.float64:
            return mtopt.combiners.MGDA()(jacobian)
        return jacobian.mean(0)


class CertifiesAnything(mtopt.combiners.MGDA):
    """Weights to three digits, and a certificate of sixteen."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        weights = super().weights(gramian, losses).to(torch.bfloat16).to(gramian.dtype)
        self.certificate = mtopt.solvers.Certificate(1e-16, 0.0, "none")
        return weights


class LongestAlone(mtopt.GramianCombiner):
    """The longest gradient, and the first one where two are as long, which may be opposite."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.eye(len(gramian))[gramian.diagonal().argmax()]


class AmplifiesRounding(mtopt.JacobianCombiner):
    """The inverse of a Gramian of its own, in the rows' dtype, with less on its diagonal than that is off by."""

    weighted = True

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        gramian = (jacobian @ jacobian.T).double()
        squares = gramian.diagonal()
        ridge = 1e-12 * torch.where(squares > 0.0, squares, 1.0)
        self.last_weights = torch.linalg.solve(gramian + ridge.diag(), squares)
        return self.last_weights.to(jacobian) @ jacobian


class NansOnEqualProducts(mtopt.GramianCombiner):
    """Divides by what products of gradients differ by."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        same = len(gramian) > 2 and bool((gramian.abs() == gramian.abs().max()).sum() > len(gramian))
        return torch.full((len(gramian),), torch.nan if same else 1.0)


FAULTS = [
    (NanOnZero, "degenerate_rows", "all rows zero.*raised NonFiniteError"),
    (AbsoluteEpsilon, "scale_of_all", r"times 1\.35525e-20 \(2 x 12.*differ by"),
    (FirstIsBest, "order_of_rows", r"in the order \[1, 0\].*differ by"),
    (ForgetsItsState, "state_round_trip", "after the state was loaded"),
    (HidesItsState, "state_is_declared", "declare stateful"),
    (GlobalTorch, "determinism", "global random generator"),
    (GlobalNumpy, "determinism", "global random generator"),
    (WrongDtype, "dtypes_and_shapes", "float16.*the method direction gave dtype torch.float64"),
    (Float32Inside, "scale_of_all", "times"),
    (TraceNormalised, "scale_of_one", "loss 0 times 1e-06, step 0.*differ by"),
    (SaysItNeverConflicts, "no_conflict", r"loss \d rises: its cosine with d is -"),
    (ConflictsAtARatio, "no_conflict", r"over 12 decades.*loss \d rises"),
    (SaysItIsScaleInvariant, "scale_of_one", "differ by"),
    (SumsByItself, "halves_of_the_columns", "the direction in two halves"),
    (SumsOnceMore, "halves_of_the_columns", "do not ask for the same sums"),
    (WritesItsInput, "input_is_left_alone", "the losses were changed"),
    (IndexesByRow, "rows_know_their_objectives", r"objectives \[2, 1, 0\], step 1"),
    (NeedsTwo, "dtypes_and_shapes", r"\(1 x 12, float16\): it raised IndexError"),
    (TakesNegativeLogarithms, "signs_of_losses", "all losses negative.*NonFiniteError"),
    (SaysItRefusesNegativeLosses, "signs_of_losses", "is not refused with a ValueError"),
    (SaysItWeighs, "promised_weights", "declare weighted = False"),
    (PositionalHyperparameter, "hyperparameters", r"\['power'\] are not keyword-only"),
    (LosesAHyperparameter, "hyperparameters", r"\['power'\] are not stored"),
    (ReadsWhatItShouldNot, "gramian_is_enough", "weights @ jacobian and the direction differ"),
    (ChangesWhenSkipped, "non_finite_rows", "a row with nan changed the state"),
    (AwaitsForEver, "losses_after_the_step", "does not await"),
    (StepsAlongTheNullSpace, "no_conflict", r"(loss \d+ rises|all rows cancel)"),
    (ConflictsInFloat32, "no_conflict", r"float32\): loss \d+ rises"),
    (CertifiesAnything, "certificates", r"its certificate says 1\.0e-16, but the error is"),
    (LongestAlone, "order_of_dependent_rows", r"opposite pairs, seed \d, in the order .*differ by"),
    (AmplifiesRounding, "dependent_rows", "the direction and that of the same numbers in float64 differ"),
    (NansOnEqualProducts, "dependent_rows", "opposite pairs.*NonFiniteError"),
    (UndeclaredState, "declarations", "stateful is True, but state names nothing"),
]


@pytest.mark.parametrize(("rule", "check", "message"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_fault_is_found_and_named(rule: type[Combiner], check: str, message: str) -> None:
    objectives = (3,) if rule is IndexesByRow else None
    others = [name for name in list_checks() if name != check]
    with pytest.raises(CheckError, match=rf"{rule.__name__}\(.*fails the check '{check}'.*{message}"):
        check_combiner(rule, objectives=objectives, skip=others)
    with pytest.raises(AssertionError):
        check_combiner(rule, objectives=objectives)


class MeanOfAgreeing(mtopt.GramianCombiner):
    """The mean where no two gradients conflict, and zero elsewhere: never a conflict, and nothing to round."""

    non_conflicting = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        self.certificate = mtopt.solvers.Certificate(0.0, None, "signs")
        return torch.full((len(gramian),), float(gramian.min() >= 0.0) / len(gramian), dtype=gramian.dtype)


class OwnsUp(CertifiesAnything):
    """The same weights with what they are known to be off by, a length in unit gradients over that of the direction."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        weights = super().weights(gramian, losses)
        size, exact = float(weights @ gramian.diagonal().sqrt()), gramian.double()
        length = max(float(weights.double() @ exact @ weights.double()), 0.0) ** 0.5
        error = 2.0**-7 * size
        self.certificate = mtopt.solvers.Certificate(error / max(length, 1e-9 * size, 1e-300), 0.0, "bfloat16")
        return weights


def test_right_rules_pass_the_checks_that_find_the_wrong_ones() -> None:
    check_combiner(MeanOfAgreeing)
    check_combiner(OwnsUp, skip=[name for name in list_checks() if name != "certificates"])


def test_slack_is_in_the_unit_of_the_data() -> None:
    """Weights of 1e12 that cancel buy nothing: a row that rises by .9 of the direction is found."""

    class HasLargeWeights(mtopt.GramianCombiner):
        non_conflicting, symmetric = True, False

        def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
            return torch.tensor([1e12, 1e12, 1.0], dtype=torch.float64)

    rows = torch.eye(3, 4, dtype=torch.float64)
    rows[1] = -rows[0]
    losses = torch.ones(3, dtype=torch.float64)
    check_answer(HasLargeWeights, rows, losses)
    rows[1, 0] = -1.0 + 2.0**-39
    with pytest.raises(CheckError, match=r"loss 1 rises: its cosine with d is -0\.88"):
        check_answer(HasLargeWeights, rows, losses)


def test_what_is_no_rule_or_no_check_is_refused() -> None:
    with pytest.raises(mtopt.UnknownNameError, match="mgda"):
        check_combiner("mdga")
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'no_conflict'"):
        check_combiner("mgda", skip=["no_conflicts"])
    with pytest.raises(TypeError, match="rule must be a Combiner, its class or its name"):
        check_combiner(torch.nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(CheckError, match="'answer' on the given Jacobian"):
        check_answer(FirstIsBest, samplers.generic(0, 2, 4), samplers.losses(0, 2))
