"""Models with several losses, and what ``mtopt.backward`` must give for them, computed by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

import mtopt
from mtopt.combiners import Combiner, LossCombiner, combiner_class
from mtopt.combiners.db_mtl import DBMTL

FIVE = ("linear", "mgda", "pcgrad", "moco", "ngdiff")
GRADIENT_RULES = ("mgda", "pcgrad", "moco", "ngdiff")


def every_rule() -> list[str]:
    """The registered rules that a step on one batch can run with their defaults."""
    return [
        name
        for name in mtopt.list_combiners(draws=1, revisits=False)
        if inspect.Parameter.empty not in combiner_class(name).hyperparameter_defaults().values()
    ]


class MultiHead(nn.Module):
    """A trunk, and one head for each loss; every loss is positive."""

    def __init__(self, heads: int = 2, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(heads))
        for param in self.parameters():
            nn.init.normal_(param, std=0.7, generator=generator)
        inputs = torch.randn(9, 4, generator=generator)
        targets = torch.randn(9, heads, generator=generator)
        self.register_buffer("inputs", inputs)
        self.register_buffer("targets", targets)
        self.to(dtype)

    def features(self) -> torch.Tensor:
        return self.trunk(self.inputs)

    def loss(self, k: int, features: torch.Tensor) -> torch.Tensor:
        error = self.heads[k](features)[:, 0] - self.targets[:, k]
        return (k + 1) * error.square().mean() + 0.1

    def losses(self) -> list[torch.Tensor]:
        features = self.features()
        return [self.loss(k, features) for k in range(len(self.heads))]

    @property
    def trunk_size(self) -> int:
        return sum(p.numel() for p in self.trunk.parameters())


def flat_gradient(params: Sequence[torch.Tensor]) -> torch.Tensor:
    """All ``.grad`` in one vector, zeros where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in params])


@dataclass
class Reference:
    """K gradients by K calls of ``autograd.grad``, and the direction by explicit matrix algebra."""

    jacobian: torch.Tensor  # (K, D) over all parameters in order, zeros where a loss does not reach
    reach: torch.Tensor  # (K, D), whether loss k reaches the coordinate
    losses: torch.Tensor  # (K,) as minimised

    @classmethod
    def of(cls, losses: Callable[[], Sequence[torch.Tensor]], params: Sequence[torch.Tensor]) -> Reference:
        rows, reach, values = [], [], []
        for k in range(len(losses())):
            loss = losses()[k]  # a graph of its own for every gradient
            gradients = torch.autograd.grad(loss, list(params), allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip(params, gradients, strict=True)]
            rows.append(torch.cat([g.reshape(-1) for g in filled]))
            pairs = zip(params, gradients, strict=True)
            reach.append(torch.cat([torch.full((p.numel(),), g is not None) for p, g in pairs]))
            values.append(loss.detach().double())
        return cls(torch.stack(rows), torch.stack(reach), torch.stack(values))

    def direction(self, rule: Combiner) -> torch.Tensor:
        """Loss rules weigh whole rows; gradient rules combine what all losses reach, the rest is each loss's own.

        A head's own gradient is that of the loss; under DB-MTL, that of its logarithm.
        """
        if isinstance(rule, LossCombiner):
            return rule.weights(self.losses).to(self.jacobian) @ self.jacobian
        own = self.jacobian / self.losses[:, None] if isinstance(rule, DBMTL) else self.jacobian
        result = own.sum(0)  # right where a single loss reaches
        shared = self.reach.all(0)
        result[shared] = rule(self.jacobian[:, shared], self.losses)
        return result


def extra_pass(record: mtopt.StepRecord) -> int:
    """One, where a weight is so far from one that a head's own gradient is not had by dividing the weighted one."""
    assert record.weights is not None
    return int(any(not 1e-3 <= abs(weight) <= 1e3 for weight in record.weights.values()))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    """Equal to a tolerance relative to the largest entry."""
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=0, atol=tolerance * float(expected.abs().max()) + 1e-300
    )
