"""The model before unlearning, which some losses compare with: a copy of it, or what it still holds of itself."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .metrics.scoring import evaluating


class AdaptersOff:
    """A model's own frozen weights without their adapters, called as the model is: no second copy of them.

    It runs in evaluation mode and without a graph; afterwards adapters and modes are as before.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model: Any = model

    def __call__(self, **inputs: Any) -> Any:
        with evaluating(self.model), self.model.disable_adapter():
            return self.model(**inputs)


def reference_of(model: torch.nn.Module) -> torch.nn.Module | AdaptersOff:
    """The model as it is now: with fresh adapters its base, or else a frozen copy of all its weights."""
    if _has_fresh_adapters(model):
        return AdaptersOff(model)
    return copy.deepcopy(model).requires_grad_(False).eval()


def _has_fresh_adapters(model: torch.nn.Module) -> bool:
    """Whether all that PEFT has added are low-rank products that are still zero, so that the base is the model."""
    if not hasattr(model, "disable_adapter"):
        return False
    trained = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    seconds = [param for name, param in trained if "lora_B" in name or "lora_embedding_B" in name]
    only_lora = all("lora_" in name for name, _ in trained)
    return bool(seconds) and only_lora and not any(bool(param.any()) for param in seconds)
