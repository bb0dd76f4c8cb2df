"""The models that steps are timed on: a trunk that all the losses share, and a linear head for each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn


class Shared(nn.Module):
    """A trunk and ``tasks`` heads of one output, with a batch and targets to regress on.

    Args:
        trunk: gives (B, width), or (B, positions, width), of which the mean over positions is taken.
        width: of the trunk's output.
        tasks: K.
        shape: of the batch of inputs.
    """

    def __init__(self, trunk: nn.Module, width: int, tasks: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))
        self.register_buffer("inputs", torch.randn(*shape))
        self.register_buffer("targets", torch.randn(tasks, shape[0], 1))

    def features(self, inputs: torch.Tensor | None = None) -> torch.Tensor:
        """The trunk's output for the batch, or for other inputs."""
        found: torch.Tensor = self.trunk(self.inputs if inputs is None else inputs)
        return found.mean(1) if found.ndim == 3 else found

    def loss(self, k: int, features: torch.Tensor) -> torch.Tensor:
        """The mean squared error of head k."""
        return (self.heads[k](features) - self.targets[k]).square().mean()  # type: ignore[index,no-any-return]

    def losses_of(self, features: torch.Tensor) -> list[torch.Tensor]:
        """All K, on one graph."""
        return [self.loss(k, features) for k in range(len(self.heads))]

    def losses(self) -> list[torch.Tensor]:
        """A forward, and the K losses."""
        return self.losses_of(self.features())

    @property
    def shared_size(self) -> int:
        """D: entries of a gradient of the trunk."""
        return sum(param.numel() for param in self.trunk.parameters())


def dense(widths: Sequence[int]) -> nn.Module:
    """Linear layers of these widths, each with a ReLU."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def mlp(tasks: int) -> Shared:
    """256-1024-1024-1024-512, 2.89 M parameters, batch 128."""
    return Shared(dense((256, 1024, 1024, 1024, 512)), 512, tasks, (128, 256))


def transformer(tasks: int) -> Shared:
    """Four pre-norm encoder layers of width 192 on 16 sequences of 48, 1.78 M parameters."""
    layer = nn.TransformerEncoderLayer(192, 4, 768, dropout=0.0, batch_first=True, norm_first=True)
    return Shared(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), 192, tasks, (16, 48, 192))


def small(tasks: int) -> Shared:
    """64-128-128-128, 0.04 M parameters, batch 64: what a step costs beside its arithmetic."""
    return Shared(dense((64, 128, 128, 128)), 128, tasks, (64, 64))


MODELS: dict[str, Callable[[int], Shared]] = {"mlp": mlp, "transformer": transformer, "small": small}


def build(name: str, tasks: int, device: str = "cpu") -> Shared:
    """The model of that name, with the same numbers in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[name](tasks).to(device)
