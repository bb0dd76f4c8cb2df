"""Training one model for all preferences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mtopt._losses import Objective
from mtopt.autograd import StepRecord
from mtopt.combiners import Combiner
from mtopt.pareto import Front, trace_front
from mtopt.training._random import generator_state, set_generator_state
from mtopt.training._trainer import MultiLossTrainer


class PreferenceTrainer(MultiLossTrainer):
    """Trains a model that takes a preference, with another one in each step, so that it holds the whole front.

    ::

        class TwoDigits(mtopt.training.PreferenceTrainer):
            def losses(self, batch):
                image, left, right = batch
                first, second = self.model(image, preference=self.preference)
                return {"left": cross_entropy(first, left), "right": cross_entropy(second, right)}

        model = mtopt.training.HyperNetwork(network, num_objectives=2)
        trainer = TwoDigits(model, torch.optim.Adam(model.parameters()), "epo", num_objectives=2, seed=0)
        trainer.fit(loader, epochs=10)
        front = trainer.front(uniform_preferences(2, 25, minimum=0.02), validation)

    Each step draws ``p = minimum + (1 - K minimum) q`` with q from the Dirichlet distribution
    ``(concentration, ..., concentration)``, and hands it to the model as ``self.preference`` and to the rule as its
    ``preference``; a rule inside wrappers gets it, too. Mind what the rule does with it: ``linear``, ``stch``,
    ``tchebycheff`` and ``pmgda``, ``epo``, ``cosmos`` mean different points of the front by the same p, see their
    docstrings. What is read outside a step (:meth:`evaluate`, say) is that of equal weights, if it is not read within
    :meth:`at` or by :meth:`front`.

    Args:
        model, optimizer, combiner, options: as for :class:`mtopt.MultiLossTrainer`. The draws are seeded with ``seed``,
            or with 0 where there is none, so that all processes of a distributed run draw alike; their generator is
            in the checkpoint.
        num_objectives: K.
        concentration: > 0. 1 draws uniformly from the simplex (Navon et al. 2021 take 0.2, which favours its rim;
            COSMOS 1.2 for Multi-MNIST).
        minimum: the least weight of an objective, in [0, 1/K). Default: 0.001, as rules that follow a ray need
            positive preferences.
        schedule: (M, K) preferences that the steps take in turn, instead of draws: deterministic, as PaLoRA's.

    Attributes:
        preference: (K,) float32 on the device of the model, the one that counts now.

    Raises:
        ValueError: a wrong argument, or a rule without ``preference``.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        combiner: Combiner | str,
        *,
        num_objectives: int,
        concentration: float = 1.0,
        minimum: float = 1e-3,
        schedule: torch.Tensor | Sequence[Sequence[float]] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(num_objectives, bool) or not isinstance(num_objectives, int) or num_objectives < 2:
            raise ValueError(f"num_objectives must be an int of at least 2, found {num_objectives!r}")
        if not 0 < concentration < float("inf"):
            raise ValueError(f"concentration must be positive and finite, found {concentration}")
        if not 0 <= minimum < 1 / num_objectives:
            raise ValueError(f"minimum must lie in [0, 1/{num_objectives}), found {minimum}")
        rows = None if schedule is None else torch.as_tensor(schedule, dtype=torch.float64)
        if rows is not None and (rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != num_objectives):
            raise ValueError(f"schedule must have shape (M, {num_objectives}), M >= 1, found {tuple(rows.shape)}")
        if rows is not None and (float(rows.min()) < 0 or float((rows.sum(1) - 1).abs().max()) > 1e-6):
            raise ValueError("schedule must hold preferences: rows that are non-negative and sum to one")
        super().__init__(model, optimizer, combiner, **options)
        self.schedule = None if rows is None else rows.tolist()
        self.num_objectives, self.concentration, self.minimum = num_objectives, concentration, minimum
        device = next(param.device for group in optimizer.param_groups for param in group["params"])
        self.preference = torch.full((num_objectives,), 1 / num_objectives, device=device)
        self._drawn = [1 / num_objectives] * num_objectives
        self._draws = np.random.default_rng(0 if self.seed is None else self.seed)
        if not _hand(self.combiner, self._drawn):
            raise ValueError(
                f"combiner must be a rule with a preference, found {self.combiner!r}; such rules are linear, stch, "
                "tchebycheff, asf, pbi, cosmos, epo, pmgda and others"
            )

    @contextmanager
    def at(self, preference: Sequence[float] | torch.Tensor) -> Iterator[None]:
        """Within this block ``self.preference`` is the one given."""
        before = self.preference
        given = torch.as_tensor(preference).to(before)
        if given.shape != before.shape:
            raise ValueError(f"preference must have shape ({self.num_objectives},), found {tuple(given.shape)}")
        self.preference = given
        try:
            yield
        finally:
            self.preference = before

    def training_step(self, batch: Any) -> StepRecord:
        """One step with a preference drawn for it, or that of the schedule."""
        if self.schedule is not None:
            self._drawn = list(self.schedule[self.step % len(self.schedule)])
        else:
            share = self._draws.dirichlet([self.concentration] * self.num_objectives)
            drawn = self.minimum + (1 - self.num_objectives * self.minimum) * share
            self._drawn = (drawn / drawn.sum()).tolist()
        _hand(self.combiner, self._drawn)
        with self.at(self._drawn):
            return super().training_step(batch)

    def front(
        self,
        preferences: torch.Tensor,
        data: Iterable[Any] | None = None,
        objectives: Sequence[str | Objective] | None = None,
    ) -> Front:
        """What :meth:`evaluate` finds at each preference, minimised.

        Args:
            preferences: (N, K).
            data: batches, read once for each preference.
            objectives: the names of K metrics; an :class:`mtopt.Objective` for one to maximise. Default: all metrics,
                to minimise.
        """
        chosen = None if objectives is None else [o if isinstance(o, Objective) else Objective(o) for o in objectives]

        def evaluated(preference: torch.Tensor) -> list[float]:
            with self.at(preference):
                values = self.evaluate(data)
            if chosen is None:
                return list(values.values())
            return [values[one.name] * one.sign for one in chosen]

        return trace_front(evaluated, preferences)

    def state_dict(self) -> dict[str, Any]:
        """The trainer's state, with that of the draws."""
        draws = {"last": list(self._drawn), "generator": generator_state(self._draws)}
        return {**super().state_dict(), "preferences": draws}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a trainer that was built alike."""
        draws = state_dict.get("preferences")
        if draws is not None:  # first the rule's preference, which is among the settings that must agree
            _hand(self.combiner, list(draws["last"]))
        super().load_state_dict(state_dict)
        if draws is not None:
            self._drawn = list(draws["last"])
            set_generator_state(self._draws, draws["generator"])


def _hand(rule: Combiner, preference: list[float]) -> bool:
    """Give the preference to the rule, those inside it and those it made for groups of parameters; whether one took it.

    Each gets a list of its own.
    """
    took = "preference" in rule.hyperparameter_defaults()
    if took:
        setattr(rule, "preference", list(preference))  # noqa: B010 - which rules have one is known at run time
    for held in vars(rule).values():
        inside = held.values() if isinstance(held, dict) else [held]
        for other in inside:
            if isinstance(other, Combiner):
                took |= _hand(other, preference)
    return took
