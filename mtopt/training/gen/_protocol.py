"""What GeN needs of the trainer whose losses it probes."""

from __future__ import annotations

from typing import Protocol

from mtopt.autograd import Probe
from mtopt.training._protocol import Stepping


class Probed(Stepping, Protocol):
    """A trainer that keeps what was found, for the step's record."""

    probe: Probe | None
