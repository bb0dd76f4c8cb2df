"""What a step is to cost, in time and memory, made up from its parts.

With the plain step S (forward, one backward, optimizer), one backward of the trunk b, a forward without a graph f, and
r, what the rule does to a (K, D) Jacobian, all measured in the same rounds as the steps:

- a rule on losses, and one on the gradients of the features: S;
- K rows, in a loop, in a batch, or features first: S + (K - 1) b + r;
- rows not kept: S + K (1 + (B - 1) / 4) b + r, with B = ceil(K / 2) rounds; K rows at K = 2;
- the rule every n steps: S + ((K - 1) b + r) / n;
- matrix-free: S + f by displacement; S + 3 f by a forward-mode product, where every product of the forward is three.

In bytes, with P of one gradient and M of the plain step: M + (K - 1) P for K rows, or M + K P where all tensors are
small and go to one matrix; M + P for sums of rows, M + K P / 2 in 16 bits. These are bytes of tensors that live
together; an allocator may hold more.
"""

from __future__ import annotations

import math

from .step import Cell

EVERY = 10

SMALL = 1.0
"""MiB of a tensor from which on it stays where it is."""

PLAIN = ("linear", "uw", "mgda_ub")
ROWS = ("hand-written, mgda", "mgda, rows", "mgda, batched", "mgda, features first", "mgda, bfloat16", "ngdiff")


def seconds(line: str, cell: Cell) -> float | None:
    """Of a step; None for a line that the model says nothing of."""
    parts = ("plain sum", "trunk backward", "forward without a graph", "rule: mgda")
    if any(part not in cell.seconds for part in parts):
        return None
    plain, backward, forward, rule = (cell.median(part) for part in parts)
    count = cell.tasks
    if line in PLAIN:
        return plain
    rows = plain + (count - 1) * backward + rule
    if line in ROWS:
        return rows
    if line == "mgda, recompute":
        rounds = math.ceil(count / 2)
        return rows if count <= 2 else plain + count * (1 + (rounds - 1) / 4) * backward + rule
    if line == f"Every(mgda, {EVERY})":
        return plain + (rows - plain) / EVERY
    if line.endswith("matrix-free exact"):
        return plain + 3 * forward
    if line.endswith("matrix-free displacement"):
        return plain + forward
    return None


def mebibytes(line: str, count: int, plain: float, gradient: float, largest: float) -> float | None:
    """Of tensors alive at once in a step; ``largest``: of the gradient of the largest parameter."""
    if line in ("linear", "uw"):
        return plain
    if line == "mgda_ub":
        return plain + gradient
    if line == "hand-written, mgda":
        return plain + count * gradient  # the buffer, and the row that is copied into it
    if line in ("mgda, rows", "mgda, features first", "mgda, batched", f"Every(mgda, {EVERY})"):
        moved = largest < SMALL and line != "mgda, batched"  # the matrix, and the row on its way to it
        return plain + (count if moved else count - 1) * gradient
    if line == "mgda, bfloat16":
        return plain + count * gradient / 2
    if line == "ngdiff":
        return plain + gradient
    if line == "mgda, recompute":
        return plain + gradient if count <= 2 else plain - gradient + max(2 * gradient, count * largest)
    if line.endswith("matrix-free displacement"):
        return plain + gradient  # the direction and the displaced parameters
    if line.endswith("matrix-free exact"):
        return plain + gradient  # the direction and the tangent
    return None
