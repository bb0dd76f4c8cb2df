"""Trained weights on disk, by the hash of everything that determines them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtopt.files import folder_written_whole, read_json, write_bytes, write_text


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/mtopt/unlearning``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtopt" / "unlearning"


def key_of(recipe: Mapping[str, Any]) -> str:
    """The name of an entry: a hash of its recipe, which must be JSON."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:20]


def read(folder: Path, model: Any) -> dict[str, Any] | None:
    """Fills the model with the entry's weights and returns its record; None where there is no entry.

    An entry that is not whole (a file missing, cut short or changed) is reported with a warning and treated as absent.
    """
    if not folder.is_dir():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load

    record_path, weights_path = folder / "record.json", folder / "weights.safetensors"
    if not (record_path.is_file() and weights_path.is_file()):
        _discard(folder, "a file is missing")
        return None
    try:
        record: dict[str, Any] = read_json(record_path, kind=dict, hint="it cannot be read")
    except ValueError as error:
        _discard(folder, str(error))
        return None
    content = weights_path.read_bytes()
    if record.get("sha256") != hashlib.sha256(content).hexdigest():
        _discard(folder, "weights.safetensors is not what was written")
        return None
    try:
        weights = load(content)
    except SafetensorError as error:
        _discard(folder, f"weights.safetensors cannot be read: {error}")
        return None
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if {name: value.shape for name, value in weights.items()} != shapes:
        _discard(folder, "weights.safetensors holds another model")
        return None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return record


def write(folder: Path, model: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the model's parameters and the record in place in one move, so that no reader sees half an entry.

    Where another process has just written the same entry, its entry stays.
    """
    from safetensors.torch import save

    content = save({name: parameter.detach().contiguous() for name, parameter in model.named_parameters()})
    full = {**record, "sha256": hashlib.sha256(content).hexdigest()}
    with folder_written_whole(folder, keep=True) as ready:
        write_bytes(ready / "weights.safetensors", content)
        write_text(ready / "record.json", json.dumps(full, indent=1))
    return full


def _discard(folder: Path, why: str) -> None:
    warnings.warn(f"the cached model {folder} is damaged ({why}); it is trained again", stacklevel=4)
    shutil.rmtree(folder)
