"""A checkpoint of sharded parameters: a directory in which each process writes what it has, by torch's own files.

``torch.distributed.checkpoint`` writes the DTensors, and reads them for any number of processes, sharded in any way.
All else is in a file as one process writes it, which is the last to be written.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mtopt._checkpoints import read_checkpoint, write_checkpoint
from mtopt._content import check_mapping
from mtopt._errors import CheckpointError
from mtopt.distributed import Processes, empty_rows_of, is_sharded, make_whole, reshard, shape_of_row, unwrapped
from mtopt.training.checkpoint._position import of_all_ranks
from mtopt.training.checkpoint._rule_state import KEY, joined_state, sharded_params, with_parted_rule
from mtopt.training.checkpoint._swap import swap

REST = "state.pt"
PARTIAL = ".partial"
_STAND_IN = "mtopt_shards_of"
_FILES = "files"


def holds_shards(state: Mapping[str, Any]) -> bool:
    """Whether a trainer's state is of sharded parameters."""
    return bool(sharded_params(state))


def write_shards(path: Path, state: Mapping[str, Any], processes: Processes) -> None:
    """Write a trainer's state to the directory ``path``; all processes call it, wait, and learn how it went.

    What was there is read as long as not all is written, even after a kill.

    Raises:
        ValueError: the rule keeps something of each process's shard, and mtopt is not told what.
    """
    params, tensors = sharded_params(state), dict[str, torch.Tensor]()
    rest = make_whole(_taken_out(with_parted_rule(state, processes), tensors, params), processes)
    rest = of_all_ranks(rest, processes)
    partial = path.with_name(path.name + PARTIAL)
    if processes.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    processes.meet()
    _files_of_torch().save(tensors, checkpoint_id=partial)
    mine = sorted(partial.glob(f"__{_global_rank()}_*")) + ([partial / ".metadata"] if processes.rank == 0 else [])
    digests = {name: found for each in processes.gather(_digests(mine)) for name, found in each.items()}
    if processes.rank == 0:
        write_checkpoint(partial / REST, {**rest, _FILES: digests})
        swap(partial, path)
    processes.meet()


def read_rest(path: Path) -> Any:
    """What a directory has beside shards, once all its files are there and as long as they were.

    Raises:
        CheckpointError: one is not.
    """
    if not (path / REST).is_file():
        raise CheckpointError(f"{path} has no {REST}: it is not a checkpoint, or writing it was interrupted")
    rest = check_mapping(read_checkpoint(path / REST), "state", (_FILES,))
    for name, (size, _) in rest[_FILES].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size:
            raise CheckpointError(f"checkpoint {path} is damaged: {name} is missing or not {size} bytes long")
    return rest


def with_shards(path: Path, rest: Mapping[str, Any], model: torch.nn.Module, processes: Processes) -> Any:
    """The state of a directory as a trainer of ``model`` has it, with its shards or whole tensors; all processes call.

    Raises:
        CheckpointError: a file does not match its checksum, on all processes.
    """
    model = unwrapped(model)
    reshard(model)
    names = sorted(rest[_FILES])[processes.rank :: processes.size]
    found = _digests([path / name for name in names])
    if processes.meet(any(found[name][1] != rest[_FILES][name][1] for name in names)):
        raise CheckpointError(f"checkpoint {path} is damaged: a file in it does not match its checksum; delete it")
    params = dict(model.named_parameters())
    tensors: dict[str, torch.Tensor] = {}

    def fill(stand_in: Mapping[str, Any], keys: tuple[Any, ...]) -> torch.Tensor:
        return tensors.setdefault(stand_in["at"], _room_for(stand_in, params))

    state = _put_in({name: part for name, part in rest.items() if name != _FILES}, fill)
    known = {keys: tensor for keys, tensor in tensors.items() if not tensor.is_meta}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process means to be one
        _files_of_torch().load(known, checkpoint_id=path, no_dist=not processes.several)
    rule = state["combiner"]
    if not any(tensor.is_meta for tensor in tensors.values()):  # else it is of another model, and refused as such
        rule = {**rule, "state": joined_state(rule["state"], params)}
    return {**state, "combiner": rule}


def _room_for(stand_in: Mapping[str, Any], params: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Memory for what lies here of a tensor; none, where it does not belong to this model."""
    shape, dtype, param = tuple(stand_in["shape"]), stand_in["dtype"], params.get(stand_in[_STAND_IN])
    own = () if param is None else tuple(param.shape) if dtype.is_complex else tuple(shape_of_row(param))
    if param is None or shape[len(shape) - len(own) :] != own:
        return torch.empty(shape, dtype=dtype, device="meta")
    if not is_sharded([param]):
        return torch.empty(shape, dtype=dtype, device=param.device)
    return torch.empty_like(param, dtype=dtype) if dtype.is_complex else empty_rows_of(param, shape, dtype)


def _taken_out(state: Mapping[str, Any], tensors: dict[str, torch.Tensor], params: Mapping[str, Any]) -> Any:
    """The state with stand-ins for the DTensors of parameters, which are put into ``tensors``."""
    of_optimizer = [name for group in state["optimizer"]["parameters"] for name in group]
    of_rule = {
        (*entry["at"], number): name
        for entry in state["combiner"]["state"].get(KEY, ())
        for number, name in enumerate(entry["parameters"])
    }

    def name_at(keys: tuple[Any, ...]) -> str | None:
        if keys[0] == "model":
            return str(keys[1])
        if keys[:3] == ("optimizer", "state", "state"):
            return str(of_optimizer[keys[3]])
        return of_rule.get(keys[2:]) if keys[:2] == ("combiner", "state") else None

    def take(value: torch.Tensor, keys: tuple[Any, ...]) -> Any:
        name = name_at(keys)
        if name not in params or not hasattr(value, "placements"):
            return value
        at = "/".join(map(str, keys))
        tensors[at] = value
        return {_STAND_IN: name, "at": at, "shape": list(value.shape), "dtype": value.dtype}

    return _walked(state, (), lambda value: isinstance(value, torch.Tensor), take)


def _put_in(state: Mapping[str, Any], fill: Callable[[Mapping[str, Any], tuple[Any, ...]], torch.Tensor]) -> Any:
    """The state with tensors for stand-ins."""
    return _walked(state, (), lambda value: isinstance(value, Mapping) and _STAND_IN in value, fill)


def _walked(value: Any, keys: tuple[Any, ...], meant: Callable[[Any], bool], change: Callable[..., Any]) -> Any:
    if meant(value):
        return change(value, keys)
    if isinstance(value, dict):
        rebuilt = copy.copy(value)  # which may know the versions of its layers
        for key, entry in value.items():
            rebuilt[key] = _walked(entry, (*keys, key), meant, change)
        return rebuilt
    if type(value) in (list, tuple):
        return type(value)(_walked(entry, (*keys, number), meant, change) for number, entry in enumerate(value))
    return value


def _files_of_torch() -> Any:
    import torch.distributed.checkpoint

    return torch.distributed.checkpoint


def _global_rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _digests(files: list[Path]) -> dict[str, tuple[int, str]]:
    """By name the size and the SHA-256 of files."""
    found = {}
    for file in files:
        with open(file, "rb") as content:
            found[file.name] = file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest()
    return found
