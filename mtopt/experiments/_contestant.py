"""What is entered in a comparison: a rule, with some of its settings fixed if need be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtopt.combiners import Combiner, combiner_class
from mtopt.experiments._importing import import_module


@dataclass(frozen=True)
class Contestant:
    """A rule under a name of its own in the table.

    ::

        Contestant("GDiff(0.9)", "linear", hyperparameters={"preference": (0.9, 0.1)})
        Contestant("NGDiff+GeN", "ngdiff", options={"automatic_rate": True}, tuned=False)

    Args:
        name: its row in the table, and how ``--combiners`` names it.
        combiner: the rule's name in mtopt's registry, or ``"module:Class"``.
        hyperparameters: what is fixed; the rest of the rule's ``search_space`` is tuned, as for any rule.
        options: further keyword arguments of :meth:`Task.trainer`, for what a rule alone does not say: another loss,
            an automatic learning rate.
        tuned: False for a method that claims to need no tuning: it runs with the middle learning rate of the task and
            its defaults, and tries nothing else.
    """

    name: str
    combiner: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = True

    @property
    def rule(self) -> type[Combiner]:
        """The class of the rule.

        Raises:
            UnknownNameError: no rule of that name is registered.
            ValueError: ``"module:Class"`` leads to no rule.
        """
        return rule_class(self.combiner)


def rule_class(name: str) -> type[Combiner]:
    """The rule of a registered name or alias, or of ``"module:Class"``."""
    if ":" not in name:
        return combiner_class(name)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module, f"rule {name!r}"), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"rule {name!r}: {error}; name it as MODULE:CLASS, importable from here") from error
    if not (isinstance(found, type) and issubclass(found, Combiner)):
        raise ValueError(f"rule {name!r} is {found!r}, not a subclass of mtopt.Combiner")
    return found


def as_contestant(rule: str | Contestant, known: Mapping[str, Contestant] | None = None) -> Contestant:
    """The contestant of that name among ``known``, else the rule alone, under its own name."""
    if isinstance(rule, Contestant):
        return rule
    if known and rule in known:
        return known[rule]
    return Contestant(rule_class(rule).name if ":" not in rule else rule, rule)
