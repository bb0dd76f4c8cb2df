"""Rules on several independent mini-batches per step: what expectations of products of gradients need."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from mtopt._errors import NonFiniteError
from mtopt.combiners._base import Combiner
from mtopt.combiners._checks import require_finite
from mtopt.combiners._exchange import Context, Outcome
from mtopt.combiners._tracked import grown_weights, joined
from mtopt.linalg import Array, Gradients, multiply_gradients
from mtopt.solvers import project_simplex


@runtime_checkable
class FollowingDraws(Protocol):
    """What an engine asks of a rule on draws with ``matrix_free = True``: one product of its cross-Gramian will do."""

    def weights_to_follow(self, objectives: Sequence[int]) -> torch.Tensor: ...

    def weights_of_product(self, objectives: Sequence[int], products: Array) -> torch.Tensor: ...


class DrawsCombiner(Combiner):
    """A rule that weighs by the inner products of two draws and steps along the gradients of a third.

    The product of two noisy gradients of one mini-batch has the noise squared in it; that of two independent draws
    does not. The rule keeps K weights on the simplex from step to step; an answer is one update of them by
    :meth:`weights`, which are then applied to the last draw: it needs a Jacobian of each draw but the last, where
    one backward of the weighted sum does.

    ``rule(jacobian)`` takes a (draws, K, D) tensor and returns (D,). An engine hands over the draws' gradients
    through :meth:`combine_draws`.

    A loss that is absent (from all the draws) keeps its weight; those that are there share theirs among themselves.
    """

    needs = "gramian"
    shardable = True
    features = False  # the draws have no representation in common
    draws = 3
    stateful = True
    state = ("_members", "_lambda")
    _as_long = ("_members", "_lambda")

    def __init__(self) -> None:
        self._members: list[int] = []  # the objective of each weight, in order of appearance
        self._lambda = torch.zeros(0, dtype=torch.float64)

    def __call__(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The direction (D,) of (draws, K, D) Jacobians of independent mini-batches, in their dtype and device.

        Raises:
            ValueError: another shape or dtype.
            NonFiniteError: NaN or infinity, with the draws and rows that hold it.
        """
        return direction_of_draws(self, jacobian, losses)

    def combine_draws(self, draws: Sequence[Gradients], losses: torch.Tensor | None = None) -> Outcome:
        """The weights for the gradients of the last draw. The draws hold the same objectives in the same order.

        The last draw is not looked at: an engine may leave it out and run one backward of the weighted sum instead.
        """
        if len(draws) not in (self.draws - 1, self.draws):
            raise ValueError(f"{self!r} takes {self.draws} draws (or all but the last), found {len(draws)}")
        first, second = draws[0], draws[1]
        if any((d.objectives, d.total) != (first.objectives, first.total) for d in draws):
            raise ValueError(
                f"the draws must hold the same objectives, found {[d.objectives for d in draws]}; "
                "leave a loss that is absent from one of them out of all"
            )
        cross = multiply_gradients(first, second)
        with self.tell(Context(first.objectives, first.total)):
            return Outcome(self._weights(self.weights(cross, losses), len(first.objectives)))

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        raise ValueError(
            f"{self!r} takes {self.draws} independent mini-batches per step, found one; give mtopt.backward the losses "
            "of each, or hand the gradients of all to combine_draws"
        )

    @abstractmethod
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) of the third draw for the cross-Gramian (K, K) of the first two; ``gramian[i, j]`` is the
        product of row i of the first with row j of the second."""

    def _joined(self, objectives: Sequence[int]) -> list[int]:
        """Where the weights of these objectives are in ``_lambda``, which grows for those not seen before."""
        self._members, positions = joined(self._members, objectives)
        self._lambda = grown_weights(self._lambda, len(self._members))
        return positions

    def _mass(self, positions: Sequence[int]) -> float:
        """What the weights of these rows sum to."""
        return 1.0 if len(positions) == len(self._members) else float(self._lambda[list(positions)].sum())

    def _store(self, positions: Sequence[int], weights: Array) -> None:
        self._lambda = self._lambda.index_copy(0, torch.tensor(positions), torch.from_numpy(weights))


def direction_of_draws(rule: Combiner, jacobian: torch.Tensor, losses: torch.Tensor | None) -> torch.Tensor:
    """The direction (D,) of a (draws, K, D) tensor by a rule on draws, or one that wraps it."""
    shape = tuple(jacobian.shape) if isinstance(jacobian, torch.Tensor) else type(jacobian).__name__
    if not isinstance(jacobian, torch.Tensor) or jacobian.ndim != 3 or len(jacobian) != rule.draws or 0 in shape:
        raise ValueError(
            f"jacobian must be a tensor of shape ({rule.draws}, K, D) with K, D >= 1, the stacked Jacobians of "
            f"{rule.draws} independent mini-batches; found {shape}"
        )
    if not jacobian.is_floating_point():
        raise ValueError(f"jacobian must be floating point, found {jacobian.dtype}")
    jacobian = jacobian.detach()
    finite = jacobian.isfinite().all(2)
    if not bool(finite.all()):
        bad = [tuple(place) for place in (~finite).nonzero().tolist()]
        raise NonFiniteError(f"jacobian holds NaN or infinity in (draw, row) {bad}; drop the rows or skip the step")
    draws = [Gradients.of(draw) for draw in jacobian]
    outcome = rule.combine_draws(draws, None if losses is None else rule._losses(losses, jacobian.shape[1]))
    assert outcome.weights is not None
    direction = draws[-1].combined(outcome.weights)[0]
    require_finite(rule, direction)
    return direction


def project_mass(point: Array, mass: float) -> Array:
    """The point of ``{w >= 0, sum(w) = mass}`` nearest to ``point``, exactly."""
    return project_simplex(point / mass) * mass if mass > 0 else point * 0.0
