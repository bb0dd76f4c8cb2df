"""Checks of what a rule declares, carries and draws."""

from __future__ import annotations

import inspect
import io
import random
import re
from typing import Any

import numpy as np
import torch

from mtopt._errors import NonFiniteError
from mtopt.combiners import TRAITS, Combiner
from mtopt.testing._answers import direction_of
from mtopt.testing._subject import Subject, brief

STEPS = 3


def declarations(subject: Subject) -> None:
    """Traits, state and search space are what they can be."""
    rule = subject.rule
    needs = ("losses", "norms", "gramian", "jacobian")
    subject.expect(rule.needs in needs, f"needs is {rule.needs!r}, not one of {needs}")
    for trait in set(TRAITS) - {"needs", "draws", "exact_objectives"}:
        value = getattr(rule, trait)
        subject.expect(isinstance(value, bool), f"the trait {trait} is {value!r}, not True or False")
    subject.expect(rule.draws >= 1, f"draws is {rule.draws!r}")
    missing = [name for name in rule.state if not hasattr(rule, name)]
    subject.expect(not missing, f"state names {missing}, which a new rule does not have")
    subject.expect(rule.stateful or not rule.state, f"state names {list(rule.state)}, but stateful is False")
    saved = bool(rule.state) or "wrapped" in rule.state_dict()
    subject.expect(saved or not rule.stateful, "stateful is True, but state names nothing")
    unknown = set(rule.search_space) - set(rule.hyperparameter_defaults())
    subject.expect(not unknown, f"search_space names {sorted(unknown)}, which are no hyper-parameters")


def hyperparameters(subject: Subject) -> None:
    """Keyword-only, stored as given; the repr evaluates back to the rule, and ``fresh`` gives one like it."""
    rule = subject.rule
    lost = [name for name in rule.hyperparameter_defaults() if not hasattr(rule, name)]
    subject.expect(not lost, f"the hyper-parameters {lost} are not stored under their names")
    if not _inner(rule):
        parameters = inspect.signature(type(rule)).parameters.values()
        loose = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        subject.expect(not loose, f"the hyper-parameters {loose} are not keyword-only")
    again = rule.fresh()
    subject.expect(type(again) is type(rule), f"fresh() gave a {type(again).__name__}")
    subject.expect(repr(again) == repr(rule), f"fresh() gave {again!r}")
    if not re.search(r"<.*>", repr(rule)):  # a generator, or a function, has no repr that evaluates
        namespace = {type(part).__name__: type(part) for part in _all(rule)}
        evaluated = eval(repr(rule), namespace)
        subject.expect(repr(evaluated) == repr(rule), f"its repr evaluates to {evaluated!r}")


def determinism(subject: Subject) -> None:
    """The same rule on the same gradients gives the same directions, whatever the global generators are at, and
    leaves these where they are."""
    for rows in subject.objectives:
        found = []
        for seed in (0, 1):
            with _GlobalSeed(seed) as unchanged:
                found.append(_steps(subject, subject.fresh(), rows))
                subject.expect(unchanged(), "a global random generator was used; use the rule's own")
        subject.expect(torch.equal(*found), f"two runs gave {brief(found[0])} and {brief(found[1])}")


def state_is_declared(subject: Subject) -> None:
    """A rule that declares no state gives the same answer again, and changes nothing."""
    if subject.rule.stateful:
        return
    for rows in subject.objectives:
        rule, case = subject.fresh(), subject.generic(rows)
        before = rule.state_dict()
        first = subject.direction(case, rule)
        subject.direction(subject.generic(rows, 1), rule)
        again = subject.direction(case, rule)
        subject.expect(torch.equal(first, again), f"it gave {brief(first)}, later {brief(again)}; declare stateful")
        subject.expect(same(rule.state_dict(), before), "state_dict changed, but stateful is False")


def state_round_trip(subject: Subject) -> None:
    """A fresh rule that loads the state, through a file, goes on bit for bit."""
    for rows in subject.objectives:
        rule = subject.fresh()
        _steps(subject, rule, rows)
        file = io.BytesIO()
        torch.save(rule.state_dict(), file)
        expected = _steps(subject, rule, rows, start=STEPS)
        file.seek(0)
        resumed = subject.fresh()
        resumed.load_state_dict(torch.load(file, weights_only=True))
        found = _steps(subject, resumed, rows, start=STEPS)
        subject.expect(
            torch.equal(found, expected),
            f"after the state was loaded the next directions are {brief(found)}, without {brief(expected)}; "
            "name all that changes in state",
        )


def non_finite_rows(subject: Subject) -> None:
    """NaN or infinity in a row raises NonFiniteError and leaves the state as it is."""
    for rows in subject.objectives:
        for bad in (float("nan"), float("inf")):
            rule = subject.fresh()
            subject.direction(subject.generic(rows), rule)
            before = rule.state_dict()
            case = subject.generic(rows, 1)
            case.jacobian[rows - 1, 0] = bad
            try:
                found = subject.direction(case, rule)
            except NonFiniteError:
                subject.expect(same(rule.state_dict(), before), f"a row with {bad} changed the state")
                continue
            subject.fail(f"a row with {bad} gave {brief(found)}, not a NonFiniteError")


def absent_objectives(subject: Subject) -> None:
    """Steps without some of the losses have finite answers, and so have those after them."""
    for rows in subject.objectives:
        if rows == 1:
            continue
        everyone = list(range(rows))
        for start in (0, 1):
            rule = subject.fresh()
            for step, at in enumerate(([everyone, everyone[1:], everyone[:1], everyone])[start:]):
                case = subject.generic(rows, step).rows(at, f"objectives {at} of {rows}, step {step}")
                found = direction_of(subject, case, rule, at, rows)
                subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")
                subject.expect(rule.objectives == (), "objectives were not forgotten after the step; call combine")


def _steps(subject: Subject, rule: Combiner, rows: int, start: int = 0) -> torch.Tensor:
    cases = (subject.generic(rows, 100 + step) for step in range(start, start + STEPS))
    return torch.stack([subject.direction(case, rule) for case in cases])


def same(first: Any, second: Any) -> bool:
    """Equality of nested states, NaN equal to itself."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.equal(first.nan_to_num(0.5), second.nan_to_num(0.5))
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def _inner(rule: Combiner) -> list[Combiner]:
    return [value for value in rule.hyperparameters.values() if isinstance(value, Combiner)]


def _all(rule: Combiner) -> list[Combiner]:
    return [rule, *(part for inner in _inner(rule) for part in _all(inner))]


class _GlobalSeed:
    """All global generators at ``seed``, and as they were afterwards; gives a function that says if they moved."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> Any:
        self.before = _generators()
        torch.set_rng_state(torch.Generator().manual_seed(self.seed).get_state())
        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002  (the global generator is what is meant)
        seeded = _generators()
        return lambda: same(_generators(), seeded)

    def __exit__(self, *error: object) -> None:
        torch.set_rng_state(self.before["torch"])
        random.setstate(self.before["random"])
        np.random.set_state(self.before["numpy"])  # noqa: NPY002


def _generators() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    return {"torch": torch.get_rng_state(), "random": random.getstate(), "numpy": numpy}
