"""What the ranks found, against one process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from tests.distributed.spawned import Raised

SECONDS = 5.0
"""Within which trouble on one rank has come to its end on all."""


def check_steps(found: Sequence[Any], truth: dict[str, Any], *, within: float = 1e-12, says: str = "") -> None:
    """The directions of all ranks are those of one process, and the ranks are alike to the last bit."""
    assert not any(isinstance(each, Raised) for each in found), found
    largest = float(truth["directions"].abs().max())
    assert largest > 1e-3  # there is something to compare
    for each in found:
        torch.testing.assert_close(each["directions"], truth["directions"], rtol=0.0, atol=within * largest)
        assert torch.equal(each["end"], found[0]["end"])
        assert each["records"] == found[0]["records"]
    for mine, one in zip(found[0]["records"], truth["records"], strict=True):
        torch.testing.assert_close(mine[0], one[0], rtol=1e-6 if within > 1e-12 else 1e-11, atol=1e-12)  # the losses
    if says:
        assert says in found[0]["records"][-1][-1]


def check_trouble(found: Sequence[Any], what: str, here: str, there: str) -> None:
    """What it is, as the second rank (the one in trouble) says ``here``, and the others ``there``; nothing changed."""
    assert not any(isinstance(each, Raised) for each in found), found
    for rank, each in enumerate(found):
        kind, text, losses = each["outcome"]
        expected, pattern = (what, here) if rank == 1 or not there.startswith("rank 1 raised") else ("RankError", there)
        assert kind == expected
        assert re.search(pattern, text), text
        assert each["seconds"] < SECONDS
        assert not each["changed"]
        assert losses == found[0]["outcome"][2]
        assert torch.equal(each["after"], found[0]["after"])  # they go on together
        assert bool(each["after"].any())
