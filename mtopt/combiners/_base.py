"""The protocol of a rule: what it needs of the K gradients, and what it answers."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from mtopt._content import check_alike, check_mapping, check_whole, content_of
from mtopt._errors import CheckpointError, NonFiniteError
from mtopt.linalg import Gradients, Precision
from mtopt.solvers import Certificate

Needs = Literal["losses", "norms", "gramian", "jacobian"]

TRAITS = (
    *("needs", "features", "on_features", "matrix_free", "draws", "revisits", "reevaluates", "stochastic", "stateful"),
    *("scale_invariant", "homogeneous", "non_conflicting", "symmetric"),
    *("positive_losses", "exact_objectives", "weighted"),
)
"""What a rule declares of itself, as attributes of its class."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule made of one step's gradients: weights, or a direction when it works on coordinates, or both."""

    weights: torch.Tensor | None
    direction: torch.Tensor | None = None


class Combiner(ABC):
    """A rule that makes one direction of K gradients; the optimizer steps along minus it.

    Subclass one of :class:`LossCombiner`, :class:`NormCombiner`, :class:`GramianCombiner`, :class:`JacobianCombiner`,
    by what the rule needs. Hyper-parameters are keyword-only and stored as given under their own names, so that
    ``repr`` evaluates back to the rule. A rule never touches autograd, devices, processes or ``.grad``.

    Class attributes (traits; they are declared, never guessed from a name):
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
        symmetric: which objective comes first does not matter, unless a hyper-parameter says so.
        positive_losses: a negative loss is refused, such as that of an objective to maximise.
        exact_objectives: the number of objectives that the rule is made for; None for any.
        weighted: the answer has weights, one a row.
        state: names of the attributes that ``state_dict`` saves.
        search_space: ranges that a comparison tunes hyper-parameters over: ``("log", low, high)``,
            ``("uniform", low, high)`` or ``("choice", *options)``.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[Needs]
    features: ClassVar[bool] = True
    on_features: ClassVar[bool] = False
    matrix_free: ClassVar[bool] = False
    draws: ClassVar[int] = 1
    revisits: ClassVar[bool] = False
    reevaluates: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    stateful: ClassVar[bool] = False
    scale_invariant: bool = False
    homogeneous: bool = True
    non_conflicting: bool = False
    symmetric: bool = True
    positive_losses: bool = False
    exact_objectives: int | None = None
    weighted: bool = True
    state: ClassVar[tuple[str, ...]] = ()
    _as_long: ClassVar[tuple[str, ...]] = ()  # entries of as many objectives
    _late_state: ClassVar[Mapping[str, Any]] = {}  # entries that are None at first: their dimensions, or "list"
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    certificate: Certificate | None = None
    """How well the last program was solved; None for a rule that solves none."""

    objectives: tuple[int, ...] = ()
    """Which objective each row of this step belongs to, while ``weights`` or ``direction`` is called by a step."""

    total: int = 0
    """The number of objectives, those without a row in this step included; as long."""

    gradients: Gradients | None = None
    """The gradients of this step; as long."""

    visited: list[torch.Tensor] | None = None
    """The parameters of the last step, for a rule that ``revisits``: its engine keeps them here. None before it."""

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
        self.objectives, self.total, self.gradients = gradients.objectives, gradients.total, gradients
        try:
            return self._combine(gradients, losses)
        finally:
            # a call outside a step is about all the rows it is given
            self.objectives, self.total, self.gradients = (), 0, None

    @abstractmethod
    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome: ...

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """Weights for the losses of ``objectives``: the engine's entry to a rule that needs no gradients."""
        raise TypeError(f"{self!r} needs {self.needs}, more than the losses: hand gradients to combine")

    def combine_draws(self, draws: Sequence[Gradients], losses: torch.Tensor | None = None) -> Outcome:
        """The outcome for the gradients of several mini-batches: the engine's entry to a rule with ``draws`` > 1."""
        raise TypeError(f"{self!r} takes one mini-batch a step; a rule on several is a DrawsCombiner")

    def combine_revisited(self, gradients: Gradients, before: Gradients | None, losses: torch.Tensor | None) -> Outcome:
        """The outcome for the gradients of a batch and those of the same losses at the parameters of the step before
        (None in the first step): the engine's entry to a rule that ``revisits``."""
        raise TypeError(f"{self!r} looks at each batch at one point; a rule that looks at two declares revisits = True")

    def own_factor(self, loss: float, objective: int) -> float:
        """What multiplies the gradient of a loss where it alone reaches a parameter that gets its own (a task's head).

        One, unless the rule works with another gradient of that loss everywhere.
        """
        return 1.0

    def kept_weights(self, objectives: Sequence[int], total: int) -> torch.Tensor | None:
        """Weights from an earlier step that the next one is to be made with, for the losses of ``objectives``.

        With them one backward of the weighted losses does, and :meth:`keep` is called once it is done. None, which a
        rule answers unless it says otherwise, when it is to be asked anew. The call changes nothing; without objectives
        it asks whether there is anything kept.
        """
        return None

    def keep(self, objectives: Sequence[int], total: int) -> None:
        """A step was made with :meth:`kept_weights`."""
        raise TypeError(f"{self!r} keeps no weights from step to step")

    @property
    def awaits_losses(self) -> bool:
        """Whether :meth:`reevaluate` is due: the rule has weighed, and wants the losses after the optimizer's step."""
        return False

    def reevaluate(self, losses: torch.Tensor, objectives: Sequence[int] | None = None) -> None:  # noqa: B027
        """Take the losses of the same batch after the optimizer's step. Does nothing for a rule that asks for none.

        Args:
            losses: as they are minimised (an objective to maximise enters with its sign flipped), in the step's order.
            objectives: the objective of each loss. Default: those of the last weights.
        """

    def _losses(self, losses: torch.Tensor | None, count: int) -> torch.Tensor:
        """The loss values as a float64 vector on the CPU."""
        if losses is None:
            raise ValueError(f"{type(self).__name__} reads the loss values: give losses, a tensor of shape ({count},)")
        vector = torch.as_tensor(losses).detach()
        if vector.dtype != torch.float64 or not vector.is_cpu:
            vector = vector.to("cpu", torch.float64)
        if vector.shape != (count,):
            raise ValueError(f"losses must have shape ({count},), one a row, found {tuple(vector.shape)}")
        return vector

    def _weights(self, weights: torch.Tensor, count: int) -> torch.Tensor:
        """A rule's answer, checked: a wrong one would otherwise train silently."""
        if not isinstance(weights, torch.Tensor) or weights.shape != (count,):
            found = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
            raise ValueError(f"{type(self).__name__}.weights must return a tensor of shape ({count},), found {found}")
        weights = weights.detach()
        if weights.dtype != torch.float64 or not weights.is_cpu:
            weights = weights.to("cpu", torch.float64)
        if not all(map(math.isfinite, weights.tolist())):
            raise NonFiniteError(
                f"{type(self).__name__}.weights returned {weights.tolist()} for finite gradients; "
                "give zero rows and parallel rows a defined answer"
            )
        return weights

    def _rows(self, count: int) -> tuple[tuple[int, ...], int]:
        """The objective of each of ``count`` rows and the number of all objectives; 0, 1, ... outside a step."""
        return (self.objectives, self.total) if len(self.objectives) == count else (tuple(range(count)), count)

    def _precision(self, gramian: torch.Tensor) -> Precision:
        """How exactly the gradients and their Gramian are known: a step's own say, outside one the Gramian's dtype."""
        return Precision.behind(gramian) if self.gradients is None else self.gradients.precision

    # -- hyper-parameters ---------------------------------------------------------------------------------------

    @classmethod
    def hyperparameter_defaults(cls) -> dict[str, Any]:
        """The names of the rule's hyper-parameters and their defaults."""
        return dict(_defaults_of(cls))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The rule's hyper-parameters as given: ``type(rule)(**rule.hyperparameters)`` is a fresh rule."""
        return {name: getattr(self, name) for name in self.hyperparameter_defaults()}

    def fresh(self) -> Self:
        """A rule with the same hyper-parameters and no state."""
        return type(self)(**self.hyperparameters)

    def __repr__(self) -> str:
        defaults = self.hyperparameter_defaults()
        given = {
            name: value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
            for name, value in self.hyperparameters.items()
            if isinstance(value, torch.Tensor | np.ndarray) or value != defaults[name]
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    # -- state --------------------------------------------------------------------------------------------------

    def for_group(self, key: str) -> Combiner:
        """The rule for the parameters that only some of the losses reach: same hyper-parameters, its own state."""
        groups: dict[str, Combiner] = self.__dict__.setdefault("_groups", {})
        if key not in groups:
            groups[key] = self.fresh()
        return groups[key]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values, loadable into a fresh rule."""
        state = {name: _packed(getattr(self, name)) for name in self.state}
        groups: dict[str, Combiner] = self.__dict__.get("_groups", {})
        return {
            "rule": type(self).__name__,
            "state": state,
            "groups": {key: rule.state_dict() for key, rule in groups.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a rule of the same class.

        Raises:
            CheckpointError: the state is another rule's, truncated, or has other entries than this one's.
        """
        check_mapping(state_dict, f"{type(self).__name__}'s state")
        missing = [key for key in ("rule", "state", "groups") if key not in state_dict]
        if missing:
            raise CheckpointError(
                f"state_dict lacks {', '.join(map(repr, missing))}: it is truncated, or not what {type(self).__name__}."
                "state_dict() returned"
            )
        if state_dict["rule"] != type(self).__name__:
            raise CheckpointError(
                f"state_dict belongs to rule {state_dict['rule']!r}, not to {type(self).__name__}; "
                "create the rule that was saved"
            )
        state = check_mapping(state_dict["state"], f"{type(self).__name__}'s state")
        if set(state) != set(self.state):
            raise CheckpointError(
                f"state_dict of {type(self).__name__} must hold {sorted(self.state)}, found {sorted(state)}; "
                "it was written by another version of the rule"
            )
        fresh = self.fresh()
        for name, value in state.items():
            current = getattr(self, name)
            if isinstance(current, torch.Generator):
                with content_of(f"{type(self).__name__}'s {name}"):
                    current.set_state(value.cpu())
            else:
                check_alike(getattr(fresh, name), value, f"{type(self).__name__}'s {name}")
                self._check_late(name, value)
                counts = value if name in self._as_long and isinstance(value, list) else [value] * (name == "_step")
                for number in counts:
                    if isinstance(number, int | None) or name == "_step":
                        check_whole(number, f"{type(self).__name__}'s {name}")
                setattr(self, name, _packed(value))
        lengths = {name: len(value) for name in self._as_long if (value := state[name]) is not None}
        if len(set(lengths.values())) > 1:
            raise CheckpointError(f"{type(self).__name__}'s state must be of one number of objectives, found {lengths}")
        self.__dict__["_groups"] = {}
        for key, group in check_mapping(state_dict["groups"], f"{type(self).__name__}'s groups").items():
            self.for_group(key).load_state_dict(group)

    def _check_late(self, name: str, value: Any) -> None:
        """Check what a new rule has as None, and that is a tensor, or a list of tensors, once it has made a step."""
        expected = self._late_state.get(name)
        if expected is None or value is None:
            return
        tensors = value if expected == "list" and isinstance(value, list) else [value]
        floats = all(isinstance(t, torch.Tensor) and t.is_floating_point() for t in tensors)
        if not floats or not all(expected in ("list", t.ndim) for t in tensors):
            found = f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"
            what = "a list of tensors" if expected == "list" else f"a tensor of {expected} dimensions"
            raise CheckpointError(f"{type(self).__name__}'s {name} must be {what}, found {found}")


def require_finite(rule: Combiner, direction: torch.Tensor, bound: float = math.inf) -> None:
    """Raise NonFiniteError for a direction that is not finite; ``bound`` is what no entry is larger than."""
    if not bound < 0.25 * torch.finfo(direction.dtype).max and not bool(direction.isfinite().all()):
        raise NonFiniteError(
            f"the direction of {rule!r} overflows {direction.dtype}, though jacobian is finite; scale the losses down, "
            "or give jacobian in a wider dtype"
        )


@functools.cache
def _defaults_of(rule: type[Combiner]) -> dict[str, Any]:
    parameters = inspect.signature(rule).parameters.values()
    return {p.name: p.default for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _packed(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) is dict:  # deepcopy takes several operations a tensor
        return {name: _packed(entry) for name, entry in value.items()}
    return copy.deepcopy(value)


class LossCombiner(Combiner):
    """A rule that weighs the losses by their values: one backward of the weighted sum."""

    needs = "losses"

    @abstractmethod
    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """Weights (K,) for loss values (K,), float64 on the CPU when the engine asks."""

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """The engine's entry, which has no gradients yet: checked weights for the losses of ``objectives``."""
        self.objectives, self.total = tuple(objectives), total
        try:
            return self._weights(self.weights(losses), len(losses))
        finally:
            self.objectives, self.total = (), 0

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

    @abstractmethod
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) for a Gramian (K, K), float64 on the CPU when the engine asks."""

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
