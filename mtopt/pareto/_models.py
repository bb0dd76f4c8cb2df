"""The models of a front's points: states of modules, in memory or in files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtopt._checkpoints import plain, read_checkpoint, write_checkpoint
from mtopt._errors import CheckpointError

State = dict[str, Any]


def model_file(index: int) -> str:
    """The file of a point's model in the front's folder."""
    return f"model-{index:05d}.pt"


def read_state(model: Any) -> State:
    """A copy of a module's state on the CPU, or of the state that was given.

    Raises:
        TypeError: it is neither, or holds what no file may hold.
    """
    state = model.state_dict() if isinstance(model, torch.nn.Module) else model
    if not isinstance(state, Mapping):
        raise TypeError(
            f"models are kept as a module or its state_dict(), found {type(model).__name__}; return the values and "
            "the model from train"
        )
    copied = {name: _copied(value) for name, value in state.items()}
    plain(copied, "the model's state")
    return copied


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def write_state(path: Path, state: State) -> None:
    """Write a model's state, whole or not at all, with a checksum."""
    write_checkpoint(path, {"model": state})


def state_in(path: Path) -> State:
    """The state in a file that :func:`write_state` or a :class:`mtopt.training.FrontArchive` wrote.

    Raises:
        CheckpointError: the file is damaged, or holds no model.
    """
    content = read_checkpoint(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise CheckpointError(f"{path} holds no model of a front; give a folder that Front.save wrote")
    return dict(content["model"])


def packed(state: State) -> bytes:
    """The state as bytes that travel between processes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> State:
    """What :func:`packed` packed."""
    state: State = torch.load(io.BytesIO(content), weights_only=True)
    return state
