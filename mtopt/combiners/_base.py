"""The protocol of a rule: what it needs of the K gradients, and what it answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch

from mtopt._errors import NonFiniteError
from mtopt.combiners._checks import ChecksVectors, require_finite
from mtopt.combiners._exchange import OUTSIDE, Context, Outcome
from mtopt.combiners._protocols import MayKeepWeights, MayReevaluate, MayRevisit, MayTakeDraws
from mtopt.combiners._saved_state import SavesState
from mtopt.linalg import Gradients, Precision
from mtopt.solvers import Certificate

Needs = Literal["losses", "norms", "gramian", "jacobian"]

TRAITS = (
    *("needs", "features", "on_features", "matrix_free", "draws", "revisits", "reevaluates", "stochastic", "stateful"),
    *("scale_invariant", "homogeneous", "non_conflicting", "continuous", "symmetric", "shardable"),
    *("positive_losses", "exact_objectives", "weighted"),
)
"""What a rule declares of itself, as attributes of its class."""


class _Telling:
    """While it is entered, a rule knows the context of the step that asks it; then what it knew before."""

    __slots__ = ("before", "context", "rule")

    def __init__(self, rule: Combiner, context: Context) -> None:
        self.rule, self.context = rule, context

    def __enter__(self) -> None:
        self.before, self.rule._context = self.rule._context, self.context

    def __exit__(self, *error: object) -> None:
        self.rule._context = self.before


class Combiner(MayKeepWeights, MayReevaluate, MayTakeDraws, MayRevisit, ChecksVectors, SavesState, ABC):
    """A rule that makes one direction of K gradients; the optimizer steps along minus it.

    Subclass one of :class:`LossCombiner`, :class:`NormCombiner`, :class:`GramianCombiner`, :class:`JacobianCombiner`,
    by what the rule needs. Hyper-parameters are keyword-only and stored as given under their own names, so that
    ``repr`` evaluates back to the rule. A rule never touches autograd, devices, processes or ``.grad``.

    Traits are attributes of the class; they are declared, never guessed from a name.

    Traits:
        needs: ``"losses"``, ``"norms"``, ``"gramian"`` or ``"jacobian"``.
        features: may be fed gradients of the shared representation.
        on_features: is to be fed these, where a step names its ``features``, and not those of the parameters.
        matrix_free: can go without the Gramian and follow its weights by products with a vector (``FollowsWeights``).
        draws: independent mini-batches that one step takes.
        revisits: takes the gradients of each batch at the parameters of the step before, too.
        reevaluates: asks for the losses after the optimizer's step, when its ``awaits_losses`` says so.
        stochastic: draws random numbers (from its own generator, never the global one).
        stateful: carries something from step to step.
        scale_invariant: multiplying any one loss by c > 0 leaves the direction as it is, up to its length.
        homogeneous: so does multiplying all the gradients by c > 0. False for a rule with a constant in the unit of a
            gradient, such as a step size of its weights.
        non_conflicting: no loss rises to first order, ``g_k . d >= 0`` for all k, whatever the gradients.
        continuous: the direction does not jump where gradients begin to depend on each other, as far as they are known.
            False for a rule that counts the components of its gradients.
        symmetric: which objective comes first does not matter, unless a hyper-parameter says so.
        positive_losses: a negative loss is refused, such as that of an objective to maximise.
        shardable: may be given a part of the coordinates in each of several processes, since it treats each by itself
            and sums over them by ``gramian_of`` and ``sum_parts`` of ``mtopt.linalg`` alone. Rows are gathered for a
            rule on coordinates that does not declare it.
        exact_objectives: the number of objectives that the rule is made for; None for any.
        weighted: the answer has weights, one for each row.
        state: names of the attributes that ``state_dict`` saves.
        by_coordinate: those of them that are tensors (..., D), or lists of such, with an entry for each coordinate: a
            checkpoint of sharded parameters puts the parts together that a ``shardable`` rule has of them.
        search_space: ranges that a comparison tunes hyper-parameters over: ``("log", low, high)``,
            ``("uniform", low, high)`` or ``("choice", *options)``.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[Needs]
    features: ClassVar[bool] = True
    on_features: ClassVar[bool] = False
    matrix_free: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    stateful: ClassVar[bool] = False
    scale_invariant: bool = False
    homogeneous: bool = True
    non_conflicting: bool = False
    continuous: bool = True
    symmetric: bool = True
    shardable: bool = False
    positive_losses: bool = False
    exact_objectives: int | None = None
    weighted: bool = True
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    certificate: Certificate | None = None
    """How well the last program was solved; None for a rule that solves none."""

    # -- using a rule -------------------------------------------------------------------------------------------

    def __call__(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The direction (D,) of a (K, D) Jacobian, in its dtype and on its device.

        Args:
            jacobian: row k is the gradient of loss k.
            losses: (K,) loss values, for the rules that read them.

        Raises:
            ValueError: wrong shapes, or a rule that reads the losses was given none.
            NonFiniteError: a row holds NaN or infinity, or the direction overflows. (A training step skips instead,
                see ``mtopt.backward``.)
        """
        if not isinstance(jacobian, torch.Tensor) or jacobian.ndim != 2 or 0 in jacobian.shape:
            found = tuple(jacobian.shape) if isinstance(jacobian, torch.Tensor) else type(jacobian).__name__
            raise ValueError(f"jacobian must be a tensor of shape (K, D) with K, D >= 1, found {found}")
        if not jacobian.is_floating_point():
            raise ValueError(f"jacobian must be floating point, found {jacobian.dtype}")
        jacobian = jacobian.detach()
        gradients = Gradients.of(jacobian)
        if not bool(gradients.gramian.diagonal().isfinite().all()):
            bad = [k for k, row in enumerate(jacobian) if not bool(row.isfinite().all())]
            raise NonFiniteError(f"jacobian holds NaN or infinity in rows {bad}; drop the rows or skip the step")
        outcome = self.combine(gradients, None if losses is None else self._losses(losses, len(jacobian)))
        if outcome.direction is None:
            assert outcome.weights is not None
            direction, bound = gradients.combined(outcome.weights)[0], gradients.bound(outcome.weights)
        else:
            direction, bound = outcome.direction.to(jacobian.device, jacobian.dtype), math.inf
        require_finite(self, direction, bound)
        return direction

    def combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        """The outcome for finite ``gradients``: the entry of the engine and of wrapping rules."""
        with self.tell(self._context_for(gradients)):
            return self._combine(gradients, losses)

    @abstractmethod
    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome: ...

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """Weights for the losses of ``objectives``: the engine's entry to a rule that needs no gradients."""
        raise TypeError(f"{self!r} needs {self.needs}, more than the losses: hand gradients to combine")

    def own_factor(self, loss: float, objective: int) -> float:
        """What multiplies the gradient of a loss where it alone reaches a parameter that gets its own (a task's head).

        One, unless the rule works with another gradient of that loss everywhere.
        """
        return 1.0

    # -- what a step tells --------------------------------------------------------------------------------------

    _context: Context = OUTSIDE

    def tell(self, context: Context) -> AbstractContextManager[None]:
        """``with rule.tell(context):`` a step asks the rule; a call outside one is about all the rows it is given."""
        return _Telling(self, context)

    def _context_for(self, gradients: Gradients) -> Context:
        """What a step with these gradients tells a rule of this kind."""
        return Context(gradients.objectives, gradients.total)

    @property
    def objectives(self) -> tuple[int, ...]:
        """Which objective each row of this step belongs to; empty outside a step."""
        return self._context.objectives

    @property
    def total(self) -> int:
        """The number of objectives, those without a row in this step included; 0 outside a step."""
        return self._context.total

    def objectives_of_rows(self, count: int) -> tuple[tuple[int, ...], int]:
        """The objective of each of ``count`` rows and the number of all objectives; 0, 1, ... outside a step."""
        told = self._context
        return (told.objectives, told.total) if len(told.objectives) == count else (tuple(range(count)), count)

    def _precision(self, gramian: torch.Tensor) -> Precision:
        """How exactly the gradients and their Gramian are known: a step's own say, outside one the Gramian's dtype."""
        known = self._context.precision
        return Precision.behind(gramian) if known is None else known


class LossCombiner(Combiner):
    """A rule that weighs the losses by their values: one backward of the weighted sum."""

    needs = "losses"
    shardable = True

    @abstractmethod
    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """Weights (K,) for loss values (K,), float64 on the CPU when the engine asks."""

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """The engine's entry, which has no gradients yet: checked weights for the losses of ``objectives``."""
        with self.tell(Context(tuple(objectives), total)):
            return self._weights(self.weights(losses), len(losses))

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        values = self._losses(losses, len(gradients.objectives))
        return Outcome(self.weigh(values, gradients.objectives, gradients.total))


class NormCombiner(Combiner):
    """A rule that weighs the gradients by their norms. Where a Gramian is given instead, its diagonal is used.

    A rule declares ``separable = True`` when the weight of a row depends on that row's norm and loss alone, and it
    carries no state: ``weights`` may then be called for one row at a time, with its objective in ``objectives``. The
    engine adds up the rows of such a rule as they come, with two gradients alive whatever K.
    """

    needs = "norms"
    shardable = True
    separable: ClassVar[bool] = False

    @abstractmethod
    def weights(self, norms: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) for gradient norms (K,), float64 on the CPU when the engine asks."""

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        norms = gradients.gramian.diagonal().sqrt()
        return Outcome(self._weights(self.weights(norms, losses), len(norms)))


class GramianCombiner(Combiner):
    """A rule that needs only the K x K inner products of the gradients."""

    needs = "gramian"
    shardable = True

    @abstractmethod
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) for a Gramian (K, K), float64 on the CPU when the engine asks."""

    def _context_for(self, gradients: Gradients) -> Context:
        _ = gradients.gramian  # how exactly the products are known is seen as they are made
        return Context(gradients.objectives, gradients.total, gradients.precision)

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        return Outcome(self._weights(self.weights(gradients.gramian, losses), len(gradients.objectives)))


class JacobianCombiner(Combiner):
    """A rule that needs coordinates: element-wise rules, and rules that track gradients."""

    needs = "jacobian"
    weighted = False  # a rule that sets last_weights in every step declares True

    last_weights: torch.Tensor | None = None
    """The weights behind the last direction, where the rule has any; for the step's record."""

    @abstractmethod
    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The direction (D,) for a Jacobian (K, D), in its dtype and on its device. The Jacobian is only read."""

    def _context_for(self, gradients: Gradients) -> Context:
        return Context(gradients.objectives, gradients.total, gradients.precision)

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        jacobian = gradients.jacobian()
        with torch.autocast(jacobian.device.type, enabled=False):  # the rule's products are not the model's
            direction = self.direction(jacobian, losses)
        if direction.shape != jacobian.shape[1:]:
            raise ValueError(
                f"{type(self).__name__}.direction must return shape ({jacobian.shape[1]},), "
                f"found {tuple(direction.shape)}"
            )
        if direction.untyped_storage().data_ptr() == jacobian.untyped_storage().data_ptr():
            direction = direction.clone()  # a row of the Jacobian itself, which may be the caller's
        weights = self.last_weights
        return Outcome(None if weights is None else self._weights(weights, len(jacobian)), direction)
