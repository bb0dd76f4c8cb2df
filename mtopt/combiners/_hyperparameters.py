"""The hyper-parameters of a rule, stored as given: its ``repr`` evaluates back to it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Hashable
from typing import Any, Self, cast

import numpy as np
import torch


class HasHyperparameters:
    """A rule's hyper-parameters are the arguments of its class, and attributes under their names."""

    @classmethod
    def hyperparameter_defaults(cls) -> dict[str, Any]:
        """The names of the rule's hyper-parameters and their defaults."""
        return dict(_defaults_of(cast(Hashable, cls)))

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


@functools.cache
def _defaults_of(rule: Any) -> dict[str, Any]:
    parameters = inspect.signature(rule).parameters.values()
    return {p.name: p.default for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
