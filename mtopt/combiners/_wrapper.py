"""Rules made of other rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch

from mtopt._errors import CheckpointError
from mtopt.combiners._base import TRAITS, Combiner
from mtopt.combiners._draws import direction_of_draws
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._saved_state import Keys
from mtopt.linalg import Gradients


class Wrapper(Combiner):
    """A rule that asks another one, and does something of its own with the question or the answer.

    Its traits are those of the rule, but for what the wrapper changes; its state holds the rule's. Wrappers wrap one
    another in any order, unless one says why not.
    """

    def __init__(self, rule: Combiner) -> None:
        if not isinstance(rule, Combiner):
            hint = f": mtopt.create_combiner({rule!r})" if isinstance(rule, str) else ""
            found = f"the class {rule.__name__}" if isinstance(rule, type) else type(rule).__name__
            raise TypeError(f"rule must be a Combiner, found {found}; create one{hint}")
        if rule.revisits:
            raise ValueError(
                f"{type(self).__name__} passes on gradients at one point, and {rule!r} takes those at the step before, "
                "too; use it as it is"
            )
        self.rule = rule
        self._declare(**{trait: getattr(rule, trait) for trait in TRAITS})
        self._declare(matrix_free=False)  # a wrapper looks at whole answers

    def _declare(self, **traits: Any) -> None:
        """Set traits of this object, which a plain rule has from its class."""
        vars(self).update(traits)

    def __call__(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The direction (D,) of a (K, D) Jacobian; of (draws, K, D) Jacobians for a rule on several draws."""
        if self.draws > 1:
            return direction_of_draws(self, jacobian, losses)
        return super().__call__(jacobian, losses)

    def weights(self, given: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) for what the rule needs: a Gramian (K, K), or losses or norms (K,)."""
        if self.needs == "losses":
            count = len(given)
            return self.weigh(self._losses(given, count), range(count), count).to(given)
        if self.needs == "jacobian" or self.draws > 1 or not self.weighted:
            raise TypeError(f"{self!r} has no weights for inner products alone; call it with a Jacobian")
        gramian = given if given.ndim == 2 else given.square().diag()
        gradients = Gradients([[given.new_empty(0)] for _ in gramian])
        gradients.gramian = gramian.detach().to("cpu", torch.float64)
        answer = self.combine(gradients, losses).weights
        assert answer is not None
        return answer.to(given)

    # -- the wrapped rule ---------------------------------------------------------------------------------------

    def _rules(self) -> Iterable[Combiner]:
        """The rules inside that may await the losses after a step."""
        return (self.rule,)

    def own_factor(self, loss: float, objective: int) -> float:
        """That of the rule inside."""
        return self.rule.own_factor(loss, objective)

    @property
    def awaits_losses(self) -> bool:
        """Whether a rule inside awaits the losses after the optimizer's step."""
        return any(rule.awaits_losses for rule in self._everyone())

    def reevaluate(self, losses: torch.Tensor, objectives: Sequence[int] | None = None) -> None:
        """Hand the losses after the step to the rules inside that await them."""
        for rule in self._everyone():
            if rule.awaits_losses:
                rule.reevaluate(losses, objectives)

    def _everyone(self) -> list[Combiner]:
        return [*self._rules(), *self.rules_of_groups.values()]

    def fresh(self) -> Self:
        """A wrapper with the same hyper-parameters around a fresh rule."""
        return type(self)(**{**self.hyperparameters, "rule": self.rule.fresh()})

    def __repr__(self) -> str:
        return super().__repr__().replace("(rule=", "(", 1)

    def entries_by_coordinate(self) -> Iterator[Keys]:
        """Those of the wrapper and of the rule inside, which sees the same coordinates."""
        yield from super().entries_by_coordinate()
        for keys in self.rule.entries_by_coordinate():
            yield "wrapped", *keys

    def state_dict(self) -> dict[str, Any]:
        """The wrapper's state, and the rule's."""
        return {**super().state_dict(), "wrapped": self.rule.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a wrapper of the same class around a rule of the same class.

        Raises:
            CheckpointError: the state is another rule's, truncated, or has other entries than this one's.
        """
        if state_dict.get("rule") == type(self).__name__ and "wrapped" not in state_dict:
            raise CheckpointError("state_dict lacks 'wrapped', the state of the rule inside: it is truncated")
        super().load_state_dict(state_dict)
        self.rule.load_state_dict(state_dict["wrapped"])


def require_weights(wrapper: str, rule: Combiner, why: str) -> None:
    """Raise ValueError for a rule that declares that it answers without weights."""
    if not rule.weighted:
        raise ValueError(
            f"{wrapper} {why}, and {rule!r} gives a direction without weights; "
            "wrap a rule that has some (list_combiners(weighted=True))"
        )


def require_seen(wrapper: Wrapper, rule: Combiner) -> None:
    """Raise ValueError for a rule on several draws, under a wrapper that changes the gradients themselves."""
    if rule.draws > 1:
        raise ValueError(
            f"{type(wrapper).__name__} needs the gradients themselves, and {rule!r} weighs a draw it has not seen"
        )


def weights_of(outcome: Outcome, rule: Combiner) -> torch.Tensor:
    """The weights of an outcome, which a rule may have promised in vain."""
    if outcome.weights is None:
        raise ValueError(f"{rule!r} gave no weights for this step, though it declares weighted=True")
    return outcome.weights
