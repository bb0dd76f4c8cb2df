"""Ways to train in several processes that are not there yet: refused by name."""

import torch


def refuse_ranks(what: str, instead: str = "train in one process") -> None:
    """Raise where several ranks run, each of which would combine its own gradients and drift apart without a word."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"{what} does not average gradients over ranks yet, and {distributed.get_world_size()} run; {instead}"
        )
