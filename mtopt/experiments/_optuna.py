"""Samplers of Optuna, asked for one trial at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mtopt.experiments._space import Point, SearchSpace, halton

SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}
"""Names of tuners, and Optuna's class for each."""

_FIRST_SHARE, _FIRST_LEAST = 1 / 3, 3
"""Of the trials this share, and no fewer than this number, come before a sampler has anything to learn from."""


class OptunaTuner:
    """The trials of one contestant on one task as a study of Optuna, which maximises the score on validation.

    The first trials (a third, at least three) are the rule's defaults and scrambled Halton points, the others the
    sampler's. Each is asked with a seed made from ``seed`` and its number, so that it follows from the trials before it
    alone: a comparison that goes on after a kill proposes again what it proposed, and finds those runs in the store.

    Args:
        sampler: ``"tpe"``, ``"gp"`` or ``"nsga2"``, here with the score as its one objective.
        space: what is tuned; the study's parameters are its coordinates, in [0, 1] or an index of a choice.
        study: its name in ``storage``; trials that are there already are taken as they are.
        storage: URL of a database that keeps the study, as Optuna reads it; None: memory.
    """

    def __init__(
        self, sampler: str, space: SearchSpace, trials: int, *, seed: int, study: str, storage: str | None = None
    ) -> None:
        import optuna

        self._sampler, self._space, self._trials, self._seed = sampler, space, trials, seed
        self._first = max(round(trials * _FIRST_SHARE), _FIRST_LEAST)
        self._names = ["learning rate", *space.ranges, *(f"preference {k}" for k in range(1, space.weights))]
        self._distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(list(range(count)))
            if count
            else optuna.distributions.FloatDistribution(0.0, 1.0)
            for name, count in zip(self._names, space.options, strict=True)
        }
        self._number = 0
        # where the defaults lie outside of the space, the study cannot hold the first trial and begins with the second
        default = space.default_point()
        self._skipped = int(default is None)
        first = [default, *halton(space.dimension, min(self._first, trials) - 1, seed=seed)]
        with _quiet():
            self._study = optuna.create_study(
                storage=storage, study_name=study, direction="maximize", load_if_exists=storage is not None
            )
            for point in first if not self._study.get_trials(deepcopy=False) else ():
                if point is not None:
                    self._study.enqueue_trial(self._parameters(point))

    def propose(self) -> Sequence[Point | None]:
        """One trial; None is the rule's defaults."""
        if self._number == self._trials:
            return []
        if self._number == 0 and self._skipped:
            return [None]
        point = self._point(self._asked(self._number - self._skipped))
        return [None if self._number == 0 else point]

    def observe(self, scores: Sequence[float]) -> None:
        """The score of that trial: where nothing finite came of it, 0, as for a run that dominates nothing."""
        import optuna

        (score,), number = scores, self._number - self._skipped
        self._number += 1
        if number >= 0 and self._study.get_trials(deepcopy=False)[number].state == optuna.trial.TrialState.RUNNING:
            self._study.tell(number, score)

    def _asked(self, number: int) -> dict[str, Any]:
        """The parameters of a trial; one that was begun before the comparison was killed is not asked for again."""
        from optuna.trial import TrialState

        known = self._study.get_trials(deepcopy=False)
        if number < len(known) and known[number].state != TrialState.WAITING:
            return dict(known[number].params)
        with _quiet():
            self._study.sampler = self._make_sampler(self._seed + number)
            return dict(self._study.ask(self._distributions).params)

    def _make_sampler(self, seed: int) -> Any:
        import optuna

        make = getattr(optuna.samplers, SAMPLERS[self._sampler])
        first = self._first - self._skipped
        size = {"population_size": self._first} if self._sampler == "nsga2" else {"n_startup_trials": first}
        return make(seed=seed, **size)

    def _parameters(self, point: Point) -> dict[str, Any]:
        pairs = zip(self._names, point, self._space.options, strict=True)
        return {name: min(int(u * count), count - 1) if count else u for name, u, count in pairs}

    def _point(self, parameters: dict[str, Any]) -> list[float]:
        """The middle of a choice's share of [0, 1] stands for it."""
        pairs = zip(self._names, self._space.options, strict=True)
        return [(parameters[name] + 0.5) / count if count else parameters[name] for name, count in pairs]


def require_optuna() -> None:
    """Raise ValueError where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError("tuning through Optuna needs optuna: pip install 'mtopt[tuning]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines on each study and trial, which the progress bar replaces."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
