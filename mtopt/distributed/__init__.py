"""What several processes share. Until they can train together, each way to do so is refused by name."""

from mtopt.distributed._ranks import refuse_ranks
from mtopt.distributed._sharded import refuse_sharded

__all__ = ["refuse_ranks", "refuse_sharded"]
