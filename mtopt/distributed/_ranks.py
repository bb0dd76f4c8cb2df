"""Several processes: refused, since each would combine its own gradients."""

import torch


def refuse_ranks() -> None:
    """Several ranks would each combine their own gradients and drift apart without a word: refuse."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"mtopt.backward does not average gradients over ranks yet, and {distributed.get_world_size()} run; "
            "average the rows yourself and call combiner(jacobian), or train in one process"
        )
