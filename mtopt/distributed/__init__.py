"""What several processes share: rows summed, products and flags agreed; and what cannot be yet, refused by name."""

from mtopt.distributed._agreement import Agreement
from mtopt.distributed._find import processes_of, unwrapped
from mtopt.distributed._processes import ALONE, NamedRow, OneProcess, Processes
from mtopt.distributed._ranks import RankError, Ranks
from mtopt.distributed._refused import refuse_ranks
from mtopt.distributed._sharded import refuse_sharded, shard_of
from mtopt.distributed._shards import Shards, as_gradient_of

__all__ = [
    "ALONE",
    "Agreement",
    "NamedRow",
    "OneProcess",
    "Processes",
    "RankError",
    "Ranks",
    "Shards",
    "as_gradient_of",
    "processes_of",
    "refuse_ranks",
    "refuse_sharded",
    "shard_of",
    "unwrapped",
]
