"""mtopt in the training loops of other libraries, one module each; a module is imported when it is first named.

- ``mtopt.integrations.transformers``: a mixin for ``transformers.Trainer``;
- ``mtopt.integrations.lightning``: a mixin for ``LightningModule``, and a step for Fabric;
- ``mtopt.integrations.accelerate``: a step for Accelerate.

Each needs the extra of its name: ``pip install 'mtopt[lightning]'``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["accelerate", "lightning", "transformers"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return list(__all__)
