"""Fast adaptive multitask optimization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice, check_non_negative
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._learned import LearnedVector, LearnsWeights, check_lr
from mtopt.combiners._losses import Reference, check_reference, loss_values, reference_of, require_above, softmax
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like


@register_combiner("famo")
class FAMO(LearnsWeights, LossCombiner):
    """FAMO: weights that let the logarithms of the losses fall at equal rates, learned from the losses alone.

    With ``z = softmax(xi)`` and ``D_k = l_k - m_k`` over the least possible losses m, the direction is
    ``c sum_k z_k grad log D_k`` with ``c = 1 / sum_k (z_k / D_k)``: the weights ``c z_k / D_k`` sum to one. After the
    optimizer's step the losses l' of the same batch say by how much each logarithm fell,
    ``delta_k = log D_k - log D'_k``, which is the gradient of MGDA's program on log losses, and xi goes down
    ``(d z / d xi)' delta + gamma xi``: a task whose loss fell faster than the others' gets less.

    Where xi = 0 (in the first step) equal losses give the mean of the gradients.

    Liu et al., "FAMO: fast adaptive multitask optimization", NeurIPS 2023, algorithm 1. The published code adds 1e-8
    to D; nothing is added here. It also clips the norm of the shared gradient to 1, which is left to the training
    loop.

    The rule has the trait ``reevaluates``: whoever drives it calls :meth:`reevaluate` after each optimizer step, with
    the losses computed once more. Without these calls xi, and so the rule's z, never moves. A
    ``MultiLossTrainer`` makes them; in a loop of your own::

        record = mtopt.backward(losses(batch), params, famo)
        optimizer.step()
        with torch.no_grad():
            famo.reevaluate(torch.stack(losses(batch)))

    Args:
        lr: learning rate of xi, the paper's beta. Default 0.025, the authors'.
        gamma: decay of xi, >= 0. Default 0.001, the paper's but for Cityscapes (0.01, the default of the code).
        min_losses: (K,) least possible losses m; default zeros.
        optimizer: ``"adam"``, which the authors' code and results use, with gamma as its (coupled) weight decay; or
            ``"sgd"``, equation 12 of the paper, whose steps are far smaller: delta is the change of one step.

    Every loss must stay above m. The loss of an objective to maximise is negative: give an m below all that it may
    reach. With m = 0 the direction does not depend on the scales of the losses; with another it does. A loss that is
    absent from a batch drops out of the softmax and keeps its xi.
    """

    reevaluates = True
    scale_invariant = True  # with min_losses=None
    positive_losses = True
    search_space = {"gamma": ("log", 1e-4, 1e-2)}  # noqa: RUF012  (a class-level constant)
    state = ("_learned", "_before", "_at")
    _as_long = ("_before", "_at")

    def __init__(
        self,
        *,
        lr: float = 0.025,
        gamma: float = 0.001,
        min_losses: Reference = None,
        optimizer: Literal["adam", "sgd"] = "adam",
    ) -> None:
        check_lr(lr)
        check_non_negative(gamma=gamma)
        check_choice("adam", "sgd", optimizer=optimizer)
        check_reference(min_losses, "min_losses")
        self.lr, self.gamma, self.min_losses, self.optimizer = lr, gamma, min_losses, optimizer
        self._vector = LearnedVector(0.0, lr=lr, weight_decay=gamma, optimizer=optimizer)
        self.positive_losses = min_losses is None
        self.scale_invariant = min_losses is None
        self._before: list[float] = []  # log D of the last weights, until the losses after the step arrive
        self._at: list[int] = []  # and the objectives they belong to

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``c z_k / D_k``: (K,) for losses (K,)."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        logs = self._log_gaps(values, objectives, total)
        weights = softmax(self._vector.read(total)[list(objectives)] - logs)
        self._before, self._at = logs.tolist(), list(objectives)
        return make_tensor_like(weights, losses)

    @property
    def awaits_losses(self) -> bool:
        """Weights were asked for since the last call of :meth:`reevaluate`."""
        return bool(self._at)

    def reevaluate(self, losses: torch.Tensor, objectives: Sequence[int] | None = None) -> None:
        """Take the losses after the optimizer's step and move xi by one step.

        Args:
            losses: the losses of the same batch after the step, in the sense that is minimised (an objective to
                maximise enters with its sign flipped), in the order of the step's losses.
            objectives: the objective of each loss. Default: those of the last weights.

        Raises:
            ValueError: no weights were asked for since the last call, or the losses are not those of the step.
        """
        given = list(self._at) if objectives is None else list(objectives)
        values = loss_values(losses)
        if not self._at:
            raise ValueError("reevaluate takes the losses after a step, and no step came before it: call weights first")
        if len(values) != len(given) or not set(self._at) <= set(given):
            raise ValueError(
                f"losses must be those of the step's objectives {self._at} once more, found {len(values)} losses "
                f"for objectives {given}"
            )
        total = len(self._vector)
        after = self._log_gaps(np.array([values[given.index(k)] for k in self._at]), tuple(self._at), total)
        shares = softmax(self._vector.read(total)[self._at])
        delta = np.array(self._before) - after
        self._vector.descend(shares * (delta - shares @ delta), self._at)
        self._before, self._at = [], []
        for rule in self.__dict__.get("_groups", {}).values():  # of parameters that only some of the losses reach
            if rule._at:
                rule.reevaluate(losses, given)

    def _log_gaps(self, values: Array, objectives: tuple[int, ...], total: int) -> Array:
        least = reference_of(self.min_losses, objectives, total, "min_losses")
        why = "it takes the logarithm of what is above min_losses"
        remedy = "give min_losses below all that the losses may reach"
        require_above(self, values, objectives, bound=least, why=why, remedy=remedy)
        return np.asarray(np.log(values - least))
