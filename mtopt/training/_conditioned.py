"""Models that take a preference: one network for the whole front."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PreferenceConditioned(nn.Module):
    """A model that gets the preference as more input features: ``model(cat(x, preference), *more)``.

    Vectors (B, F) become (B, F + K), images (B, C, H, W) become (B, C + K, H, W) with K constant channels; so the
    first layer of ``model`` must take K more. Ruchte and Grabocka, "Scalable Pareto front approximation for deep
    multi-objective learning", ICDM 2021 (COSMOS).

    Args:
        model: takes the widened first input, and whatever other inputs there are.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *more: Any, preference: Tensor) -> Any:
        """The model's answer for ``x`` (B, F, ...) and one preference (K,), or one an example (B, K)."""
        if x.ndim < 2 or not x.is_floating_point():
            raise ValueError(
                f"x must be floating point of shape (B, F, ...), found {x.dtype} of shape {tuple(x.shape)}; condition "
                "what comes after an embedding, or use HyperNetwork"
            )
        if preference.ndim not in (1, 2) or (preference.ndim == 2 and len(preference) != len(x)):
            raise ValueError(
                f"preference must have shape (K,) or ({len(x)}, K), found {tuple(preference.shape)} for x of shape "
                f"{tuple(x.shape)}"
            )
        rows = preference.to(x).expand(len(x), preference.shape[-1])
        channels = rows.reshape(*rows.shape, *[1] * (x.ndim - 2)).expand(*rows.shape, *x.shape[2:])
        return self.model(torch.cat([x, channels], dim=1), *more)


class MadeForPreference(nn.Module, ABC):
    """A network whose parameters depend on the preference: ``model(*inputs, preference=p)``."""

    template: nn.Module
    num_objectives: int

    @abstractmethod
    def parameters_for(self, preference: Tensor) -> dict[str, Tensor]:
        """theta(p) by the template's names, differentiable, for a preference (K,)."""

    def forward(self, *inputs: Any, preference: Tensor) -> Any:
        """The template's answer for ``inputs`` with the parameters ``theta(preference)``."""
        return torch.func.functional_call(self.template, self.parameters_for(preference), inputs)

    @torch.no_grad()
    def extract(self, preference: Tensor) -> nn.Module:
        """A plain copy of the template with the parameters for one preference (K,)."""
        model = copy.deepcopy(self.template)
        for name, value in self.parameters_for(preference).items():
            model.get_parameter(name).copy_(value).requires_grad_(True)
        return model

    def _require(self, preference: Tensor) -> None:
        if preference.shape != (self.num_objectives,):
            raise ValueError(
                f"preference must have shape ({self.num_objectives},), found {tuple(preference.shape)}; a network is "
                "made for one preference at a time"
            )


class HyperNetwork(MadeForPreference):
    """A network whose parameters another network makes of the preference: ``theta(p) = theta_0 + W h(p) + b``.

    theta_0 are the parameters of ``template`` as they are, frozen; h is a perceptron; W and b start at zero, so that
    training starts from the template whatever the preference is. What the template has frozen, and its buffers, stay
    the template's own. With ``hidden=()`` there is no perceptron, and theta is linear in p: K corner models and the
    mixtures between them.

    W has (last hidden width) x (number of the template's parameters) entries. For a large model let the template be
    its last layers, and share the rest.

    Navon, Shamsian, Chechik and Fetaya, "Learning the Pareto front with hypernetworks", ICLR 2021, whose networks make
    theta without theta_0.

    Args:
        template: the network; a copy is taken.
        num_objectives: K.
        hidden: the widths of the perceptron's layers, each with a ReLU. Default: one of 100.
    """

    def __init__(self, template: nn.Module, num_objectives: int, *, hidden: Sequence[int] = (100,)) -> None:
        super().__init__()
        if isinstance(num_objectives, bool) or not isinstance(num_objectives, int) or num_objectives < 1:
            raise ValueError(f"num_objectives must be a positive int, found {num_objectives!r}")
        self.template = copy.deepcopy(template)
        made = {name: param for name, param in self.template.named_parameters() if param.requires_grad}
        if not made:
            raise ValueError("template must have parameters that require gradients, found none; unfreeze some")
        self.num_objectives = num_objectives
        self.shapes = {name: param.shape for name, param in made.items()}
        example = next(iter(made.values()))
        like: dict[str, Any] = {"device": example.device, "dtype": example.dtype}
        layers: list[nn.Module] = []
        width = num_objectives
        for wider in hidden:
            layers += [nn.Linear(width, wider, **like), nn.ReLU()]
            width = wider
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width, sum(shape.numel() for shape in self.shapes.values()), **like)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.template.requires_grad_(False)

    def parameters_for(self, preference: Tensor) -> dict[str, Tensor]:
        """theta(p) by the template's names, differentiable, for a preference (K,)."""
        self._require(preference)
        flat = self.head(self.trunk(preference.to(self.head.weight)))
        sizes = [shape.numel() for shape in self.shapes.values()]
        start = dict(self.template.named_parameters())
        return {
            name: start[name] + part.reshape(shape).to(start[name])
            for (name, shape), part in zip(self.shapes.items(), flat.split(sizes), strict=True)
        }
