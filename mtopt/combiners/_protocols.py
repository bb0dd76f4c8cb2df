"""What only some rules do, a small protocol each, with the answer of a rule that does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from mtopt.combiners._exchange import Outcome
from mtopt.linalg import Gradients


class MayKeepWeights:
    """A rule may make a step with weights of an earlier one: one backward of the weighted losses then does."""

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


class MayReevaluate:
    """A rule may ask for the losses after the optimizer's step (``reevaluates``)."""

    reevaluates: ClassVar[bool] = False

    @property
    def awaits_losses(self) -> bool:
        """Whether :meth:`reevaluate` is due: the rule has weighed, and wants the losses after the optimizer's step."""
        return False

    def reevaluate(self, losses: torch.Tensor, objectives: Sequence[int] | None = None) -> None:
        """Take the losses of the same batch after the optimizer's step. Does nothing for a rule that asks for none.

        Args:
            losses: as they are minimised (an objective to maximise enters with its sign flipped), in the step's order.
            objectives: the objective of each loss. Default: those of the last weights.
        """


class MayTakeDraws:
    """A rule may take several independent mini-batches per step (``draws``): see ``DrawsCombiner``."""

    draws: ClassVar[int] = 1

    def combine_draws(self, draws: Sequence[Gradients], losses: torch.Tensor | None = None) -> Outcome:
        """The outcome for the gradients of several mini-batches: the engine's entry to a rule with ``draws`` > 1."""
        raise TypeError(f"{self!r} takes one mini-batch per step; a rule on several is a DrawsCombiner")


class MayRevisit:
    """A rule may take the gradients of each batch at the parameters of the step before, too (``revisits``)."""

    revisits: ClassVar[bool] = False

    visited: list[torch.Tensor] | None = None
    """The parameters of the last step: the engine keeps them here. None before it."""

    def combine_revisited(self, gradients: Gradients, before: Gradients | None, losses: torch.Tensor | None) -> Outcome:
        """The outcome for the gradients of a batch and those of the same losses at the parameters of the step before
        (None in the first step): the engine's entry to a rule that ``revisits``."""
        raise TypeError(f"{self!r} looks at each batch at one point; a rule that looks at two declares revisits = True")
