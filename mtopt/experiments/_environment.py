"""What a run was made with, and by which code."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mtopt._version import __version__


@cache
def environment() -> dict[str, Any]:
    """Versions, machine and device of this process; ``code`` is a hash of mtopt's own sources."""
    import numpy
    import scipy

    return {
        "mtopt": __version__,
        "code": _hash_of_sources(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": torch.multiprocessing.cpu_count(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
    }


def _hash_of_sources() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
