"""What several processes share: rows summed, products and flags agreed; and what cannot be yet, refused by name."""

from mtopt.distributed._agreement import Agreement
from mtopt.distributed._find import processes_of, unwrapped
from mtopt.distributed._processes import ALONE, NamedRow, OneProcess, Processes
from mtopt.distributed._ranks import RankError, Ranks
from mtopt.distributed._refused import refuse_ranks
from mtopt.distributed._rows import as_rows_of, cut_rows, empty_rows_of, join_rows, part_rows
from mtopt.distributed._sharded import is_sharded, refuse_sharded, shard_of
from mtopt.distributed._shards import Shards, as_gradient_of, cut_part, cut_row, shape_of_row
from mtopt.distributed._whole import cut_like, digest_of, load_whole, make_whole, release, reshard

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
    "as_rows_of",
    "cut_like",
    "cut_part",
    "cut_row",
    "cut_rows",
    "digest_of",
    "empty_rows_of",
    "is_sharded",
    "join_rows",
    "load_whole",
    "make_whole",
    "part_rows",
    "processes_of",
    "refuse_ranks",
    "refuse_sharded",
    "release",
    "reshard",
    "shape_of_row",
    "shard_of",
    "unwrapped",
]
