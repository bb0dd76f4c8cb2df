"""What the tests of the integrations share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> ModuleType:
    """One of docs/examples, as a module: its parts are tested, and not copies of them."""
    name_here = f"mtopt_example_{name}"
    if name_here not in sys.modules:
        spec = importlib.util.spec_from_file_location(name_here, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name_here] = module
        spec.loader.exec_module(module)
    return sys.modules[name_here]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: param.grad.clone() for name, param in model.named_parameters() if param.grad is not None}


def assert_same_direction(found, expected, scale=1.0) -> None:
    """Equal to 1e-6 of the direction's length, parameter for parameter."""
    assert found.keys() == expected.keys()
    assert found
    length = torch.stack([g.double().norm() for g in expected.values()]).norm()
    difference = torch.stack([(found[k].double() / scale - expected[k].double()).norm() for k in expected]).norm()
    assert length > 0
    assert difference <= 1e-6 * length


def assert_same_state(found, expected) -> None:
    """Bit for bit, in nested dictionaries and lists of tensors and plain values."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            assert_same_state(found[key], expected[key])
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_state(one, other)
    elif isinstance(found, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected
