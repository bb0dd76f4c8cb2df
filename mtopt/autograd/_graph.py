"""Looking at the autograd graph without running it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

import torch

Node = torch.autograd.graph.Node
Edge = tuple[Node, int]


def leaves_behind(tensors: Iterable[torch.Tensor], *, stop_at: Iterable[torch.Tensor] = ()) -> set[int]:
    """The ids of the leaf tensors that ``tensors`` were computed from, without passing through ``stop_at``."""
    leaves: set[int] = set()
    for node, _ in _edges_behind(map(edge_of, tensors), set(map(edge_of, stop_at))):
        variable = getattr(node, "variable", None)  # only the nodes that accumulate into a leaf have it
        if variable is not None:
            leaves.add(id(variable))
    return leaves


def reach_behind(tensors: Sequence[torch.Tensor]) -> dict[int, tuple[int, ...]]:
    """The id of every leaf tensor behind ``tensors``, with the positions of those that were computed from it."""
    masks: dict[Node, int] = {}  # one bit a tensor
    for position, tensor in enumerate(tensors):
        node, _ = edge_of(tensor)
        masks[node] = masks.get(node, 0) | 1 << position
    reach: dict[int, tuple[int, ...]] = {}
    members: dict[int, tuple[int, ...]] = {}  # by the bits
    for node, behind in _top_down(list(masks)):
        mask = masks[node]
        for other in behind:
            masks[other] = masks.get(other, 0) | mask
        variable = None if behind else getattr(node, "variable", None)  # a leaf's node has none behind it
        if variable is not None:
            if mask not in members:
                members[mask] = tuple(k for k in range(len(tensors)) if mask >> k & 1)
            reach[id(variable)] = members[mask]
    return reach


def refuse_reentrant(tensors: Iterable[torch.Tensor]) -> None:
    """Raise where a re-entrant activation checkpoint is behind ``tensors``.

    Its node hides the parameters that are used inside: gradients by ``inputs`` would be had of what lies outside alone.
    """
    for node in nodes_behind(tensors):
        if type(node).__name__.endswith("CheckpointFunctionBackward"):  # torch's, and those made after it
            raise ValueError(
                "losses were computed through re-entrant activation checkpointing, which hides the parameters inside: "
                "they would not be trained. Use the other form, torch.utils.checkpoint.checkpoint(..., "
                "use_reentrant=False); in transformers gradient_checkpointing_kwargs={'use_reentrant': False}"
            )


def nodes_behind(tensors: Iterable[torch.Tensor]) -> set[Node]:
    """All nodes of the graph of ``tensors``."""
    pending = [node for node, _ in map(edge_of, tensors)]
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend([function for function, _ in node.next_functions if function is not None])
    return seen


def _top_down(roots: Iterable[Node]) -> list[tuple[Node, list[Node]]]:
    """``roots`` and all that is behind them, each before what it was computed from, with the nodes right behind it."""
    finished: list[tuple[Node, list[Node]]] = []
    behind: dict[Node, list[Node]] = {}
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            finished.append((node, behind[node]))
        elif node not in behind:
            behind[node] = [function for function, _ in node.next_functions if function is not None]
            stack.append((node, True))
            stack.extend((other, False) for other in behind[node] if other not in behind)
    return finished[::-1]


def nested(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether one of ``tensors`` was computed from another of them."""
    edges = set(map(edge_of, tensors))
    inputs = [edge for node in {node for node, _ in edges} for edge in _next(node)]
    return any(edge in edges for edge in _edges_behind(inputs))


def edge_of(tensor: torch.Tensor) -> Edge:
    """Where ``tensor`` stands in the graph: equal for two tensors that are one and the same result."""
    edge = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _edges_behind(edges: Iterable[Edge], stops: Set[Edge] = frozenset()) -> Iterator[Edge]:
    """``edges`` and all that is behind them, each once, without those in ``stops`` and what only they lead to."""
    pending = list(edges)
    seen: set[Edge] = set()
    expanded: set[Node] = set()
    while pending:
        edge = pending.pop()
        if edge in seen or edge in stops:
            continue
        seen.add(edge)
        yield edge
        if edge[0] not in expanded:
            expanded.add(edge[0])
            pending.extend(_next(edge[0]))


def _next(node: Node) -> list[Edge]:
    return [(function, index) for function, index in node.next_functions if function is not None]
