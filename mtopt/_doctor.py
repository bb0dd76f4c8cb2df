"""What ``mtopt doctor`` tells of where it runs: versions, threads, devices, and which extras are there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

from mtopt._version import __version__

_SHOWN = ("torch", "numpy", "scipy", "matplotlib", "moocore", "joblib", "rich")
_NOT_EXTRAS = ("dev",)


def examine() -> dict[str, Any]:
    """Plain values, such as JSON holds; ``"troubles"`` are what keeps mtopt from working well, in words."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    needed, extras = _requirements()
    found: dict[str, Any] = {
        "mtopt": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _SHOWN},
        "threads": {"torch": threads, "cores": cores, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "devices": _devices(torch),
        "cuda": torch.version.cuda,
        "extras": {name: {"there": not missing, "missing": missing} for name, missing in extras.items()},
    }
    troubles = [f"{missing} is needed and not there: pip install --upgrade mtopt" for missing in needed]
    if threads > cores:
        troubles.append(f"torch computes with {threads} threads on {cores} cores; set OMP_NUM_THREADS={cores}")
    if torch.version.cuda is not None and not torch.cuda.is_available():
        troubles.append("torch is built for CUDA and finds no device: is the driver there, and new enough?")
    return {**found, "troubles": troubles}


def told(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same as lines of a name and a text."""
    threads = found["threads"]
    lines = [
        ("mtopt", found["mtopt"]),
        ("python", f"{found['python']}  {found['executable']}"),
        ("platform", found["platform"]),
        *((name, version or "not there") for name, version in found["packages"].items()),
        ("threads", f"{threads['torch']} of torch, on {threads['cores']} cores"),
        ("devices", ", ".join(found["devices"])),
    ]
    for name, extra in found["extras"].items():
        text = "there" if extra["there"] else f"without {', '.join(extra['missing'])}: pip install 'mtopt[{name}]'"
        lines.append((f"[{name}]", text))
    return [*lines, *(("trouble", trouble) for trouble in found["troubles"])]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(torch: Any) -> list[str]:
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """What is needed and not there, or too old; and the same for each extra. Empty where mtopt is not installed."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in importlib.metadata.requires("mtopt") or ()]
        names = importlib.metadata.metadata("mtopt").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return [], {}

    def missing(extra: str) -> list[str]:
        wanted = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": extra})]
        lacking = []
        for one in wanted:
            version = _version(one.name)
            if version is None or not one.specifier.contains(version, prereleases=True):
                lacking.append(f"{one.name}{one.specifier}" + (f" (found {version})" if version else ""))
        return sorted(lacking)

    needed = missing("")
    return needed, {
        name: [one for one in missing(name) if one not in needed] for name in names if name not in _NOT_EXTRAS
    }
