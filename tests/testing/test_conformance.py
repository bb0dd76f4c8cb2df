"""Every rule passes the conformance suite; rules with a fault in them do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtopt
import mtopt.solvers
from mtopt.combiners import Combiner, combiner_class, create_combiner
from mtopt.combiners.every import Every
from mtopt.combiners.normalized import Normalized
from mtopt.combiners.per_group import PerGroup
from mtopt.combiners.smoothed import Smoothed
from mtopt.testing import check_answer, check_combiner, list_checks, samplers

ALL = mtopt.list_combiners()


@pytest.mark.parametrize("name", ALL)
def test_every_registered_rule_conforms(name: str) -> None:
    check_combiner(name)


# the dual's solution that RACO clips is not unique where gradients depend on each other
NOT_UNIQUE = {"raco": ("dependent_rows", "order_of_dependent_rows")}


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_every_registered_rule_conforms_on_thousands_of_dependent_rows(name: str) -> None:
    check_combiner(name, draws=2000, skip=NOT_UNIQUE.get(name, ()))


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {"preference": [0.2, 0.3, 0.5]}),
    ("linear", {"reduction": "sum"}),
    ("stch", {"log": True, "window": 1, "warmup": 1}),
    ("stch", {"log": True, "nadir": [1.0, 2.0, 3.0]}),
    ("famo", {"min_losses": [-3.0, -3.0, -3.0], "optimizer": "sgd"}),
    ("db_mtl", {"transform": None, "beta": 0.0}),
    ("dwa", {"window": 1, "sliding": True}),
    ("gradnorm", {"parametrization": "softmax"}),
    ("moco", {"projection": "softmax", "rescale": "loss"}),
    ("hamu", {"relative": True, "variant": "u"}),
    ("gru", {"max_norm": 0.1, "gamma": 1.0}),
    ("blur", {"lower": "retain", "retain": 1, "forget": 0}),
    ("pcgrad", {"reduction": "mean"}),
    ("graddrop", {"leak": [0.1, 0.2, 0.3]}),
    ("trimmed_mean", {"trim": 0}),
    ("uw", {"likelihood": "softmax"}),
    ("conicgrad", {"c": 0.9}),
    ("go4align", {"groups": 1, "step_size": 0.1}),
    ("gradops", {"alpha": -2.0}),
    ("ldc_mtl", {"price": "raw", "normalize": None, "lam": 0.4}),
    ("mstgd_style", {"memory": 0.5, "preference": [0.2, 0.3, 0.5]}),
    ("raco", {"preference": [0.2, 0.3, 0.5]}),
    ("sago", {"elsewhere": "both", "retain": 1, "forget": 0}),
]


@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_rules_conform_with_other_hyperparameters(name: str, hyperparameters: dict[str, Any]) -> None:
    each = any(isinstance(value, list) for value in hyperparameters.values())
    check_combiner(create_combiner(name, **hyperparameters), objectives=[3] if each else None, draws=1)


# -- wrappers ------------------------------------------------------------------------------------------------------

WRAPPED: list[Callable[[], Combiner]] = [
    lambda: Every(create_combiner("mgda"), 1),
    lambda: Every(create_combiner("pcgrad", seed=3), 2),
    lambda: Every(create_combiner("gls"), 3),
    lambda: Every(create_combiner("moco"), 2),
    lambda: Every(create_combiner("famo"), 2),
    lambda: Every(create_combiner("modo"), 2),
    lambda: Every(Every(create_combiner("mgda"), 3), 2),
    lambda: Smoothed(create_combiner("mgda"), 0.9),
    lambda: Smoothed(create_combiner("si"), 0.5),
    lambda: Smoothed(create_combiner("excess_mtl"), 0.5),
    lambda: Smoothed(create_combiner("modo"), 0.5),
    lambda: Smoothed(Every(create_combiner("mgda"), 3), 0.5),
    lambda: Every(Smoothed(create_combiner("mgda"), 0.5), 3),
    lambda: Normalized(create_combiner("mgda")),
    lambda: Normalized(create_combiner("mgda"), "loss+", applied_to="raw"),
    lambda: Normalized(create_combiner("linear"), "log"),
    lambda: Normalized(create_combiner("linear"), "loss+"),
    lambda: Normalized(create_combiner("ngdiff"), "loss"),
    lambda: Normalized(create_combiner("graddrop")),
    lambda: Normalized(create_combiner("moco"), "log"),
    lambda: Normalized(Smoothed(Every(create_combiner("mgda"), 2), 0.5)),
    lambda: Every(Normalized(create_combiner("mgda"), "log"), 2),
    lambda: Normalized(Normalized(create_combiner("mgda"), "loss"), "l2"),
]


@pytest.mark.parametrize("make", WRAPPED, ids=lambda make: repr(make()).replace(" ", ""))
def test_wrapped_rules_conform(make: Callable[[], Combiner]) -> None:
    rule = make()
    # MGDA's direction is unique where rows depend on each other, its weights are not: other rows tell them apart
    weighs_other_rows = isinstance(rule, Normalized) and rule.applied_to == "raw"
    skip = ["order_of_dependent_rows"] if weighs_other_rows else []
    check_combiner(rule, objectives=(1, 2, 4), draws=1, skip=skip)


@pytest.mark.parametrize("inner", ["mgda", "pcgrad", "moco", "trimmed_mean", "ngdiff"])
def test_rules_on_groups_of_columns_conform(inner: str) -> None:
    check_combiner(PerGroup(create_combiner(inner), [2, 4]), objectives=(1, 2, 4), columns=6, draws=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PerGroup(Smoothed(Every(create_combiner("mgda"), 2), 0.5), [2, 4]),
        lambda: Normalized(PerGroup(create_combiner("pcgrad"), [2, 4])),
        lambda: PerGroup(Normalized(create_combiner("mgda"), "loss+"), [2, 4]),
    ],
)
def test_groups_of_columns_compose(make: Callable[[], Combiner]) -> None:
    check_combiner(make(), objectives=(1, 2, 4), columns=6, draws=1)


# -- drawn inputs ----------------------------------------------------------------------------------------------------


@st.composite
def drawn(draw: st.DrawFn, exact: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    rows = draw(st.integers(1, 7)) if exact is None else exact
    columns = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 10**6))
    kind = draw(st.sampled_from(["rank", "stationary", "conflicting", "agreeing"]))
    if kind == "rank":
        jacobian = samplers.of_rank(seed, rows, columns, draw(st.integers(0, min(rows, columns))))
    elif kind == "stationary":
        jacobian = samplers.stationary(seed, rows, columns, draw(st.integers(1, rows)))
    else:
        jacobian = getattr(samplers, kind)(seed, rows, columns)
    jacobian = samplers.with_row_scales(jacobian, draw(st.sampled_from([0.0, 1.0, 3.0])), seed)
    return jacobian, samplers.losses(seed, rows)


@pytest.mark.parametrize("name", ALL)
def test_drawn_jacobians_have_answers(name: str) -> None:
    @given(drawn(combiner_class(name).exact_objectives))
    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    def holds(case: tuple[torch.Tensor, torch.Tensor]) -> None:
        check_answer(name, *case)

    holds()


# -- another package's rules -----------------------------------------------------------------------------------------


class InverseNorm(mtopt.GramianCombiner):
    """The example of the design page, with an answer for zero rows."""

    scale_invariant = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        squares = gramian.diagonal()
        return torch.where(squares > 0, squares.rsqrt(), 0.0)


class Momentum(mtopt.JacobianCombiner):
    """The mean gradient with momentum: state, coordinates, and no weights."""

    stateful = True
    state = ("_velocity",)

    def __init__(self, *, decay: float = 0.5) -> None:
        self.decay = decay
        self._velocity: torch.Tensor | None = None

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        mean = jacobian.double().mean(0)
        self._velocity = mean if self._velocity is None else self.decay * self._velocity + mean
        return self._velocity.to(jacobian.dtype)


@pytest.mark.parametrize("rule", [InverseNorm, InverseNorm(), Momentum, Momentum(decay=0.9)])
def test_a_rule_of_another_package_conforms(rule: Combiner | type[Combiner]) -> None:
    check_combiner(rule)


def test_a_rule_under_test_is_left_as_it_was() -> None:
    rule = create_combiner("moco")
    rule(samplers.generic(0, 2, 5))
    before = str(rule.state_dict())
    check_combiner(rule, objectives=(2,))
    assert str(rule.state_dict()) == before


def test_every_check_says_what_it_asks_for() -> None:
    assert len(list_checks()) >= 20
    assert all(text.endswith(".") for text in list_checks().values())
