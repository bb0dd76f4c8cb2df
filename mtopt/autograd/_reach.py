"""Which losses reach which parameter: what the autograd graph or the rows tell, and the groups that follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import Call
from mtopt.combiners import Combiner
from mtopt.distributed import Processes, shard_of
from mtopt.linalg import Place, Row, RowMatrix

Node = torch.autograd.graph.Node
Edge = tuple[Node, int]

Reach = tuple[int, ...]
"""The losses that reach a parameter, as positions among those present."""


@dataclass(slots=True)
class Group:
    """Parameters, by their indices, that the same losses reach."""

    reach: Reach
    shared: bool  # the rule is applied to it
    indices: list[int] = field(default_factory=list)

    @property
    def loss(self) -> int:
        """The one that reaches a group which is not shared."""
        (k,) = self.reach
        return k


@dataclass(slots=True)
class Grouping:
    """The parameters by the losses that reach them; those that none reaches are in no group.

    Attributes:
        shared: those that a rule is applied to, the one that the most losses reach first: its weights are the step's.
        own: those that a single loss reaches, and that are not shared.
        rules: for each shared group the rule, with a state of its own for all but the first.
    """

    shared: list[Group]
    own: list[Group] = field(default_factory=list)
    rules: list[Combiner] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        reaches: Sequence[Reach],
        places: Sequence[Place],
        count: int,
        *,
        combined: bool,
        trunk: Set[int] | None = None,
    ) -> Grouping:
        """Groups of ``places`` by the reach of each among ``count`` losses.

        ``combined``: a parameter that some of the losses reach counts as one that all do. ``trunk``: the ids of
        parameters that are shared whatever reaches them in this step; None when nobody said.
        """
        groups: dict[tuple[Reach, bool], Group] = {}
        everyone = tuple(range(count))
        for index, (reach, place) in enumerate(zip(reaches, places, strict=True)):
            if not reach:
                continue
            if combined:
                reach = everyone
            # With a single loss in the step its gradient cannot tell shared parameters from its own: the rule takes all
            in_trunk = id(place.parameter) in trunk if trunk is not None else count == 1
            shared = len(reach) > 1 or in_trunk or combined
            group = groups.get((reach, shared))
            if group is None:
                group = groups[reach, shared] = Group(reach, shared)
            group.indices.append(index)
        found = [group for group in groups.values() if group.shared]
        if len(found) > 1:
            found.sort(key=lambda group: (len(group.reach), _size(group, places)), reverse=True)
        return cls(found, [group for group in groups.values() if not group.shared])

    @property
    def indices(self) -> list[int]:
        """Those of all parameters that a loss reaches."""
        return [index for group in (*self.shared, *self.own) for index in group.indices]


def _size(group: Group, places: Sequence[Place]) -> int:
    """Of the whole parameters, where they are sharded: all processes sort groups alike."""
    params = [places[index].parameter for index in group.indices]
    return sum(2 * param.numel() if param.is_complex() else param.numel() for param in params)


def reach_of_rows(rows: Sequence[Row], matrix: RowMatrix | None = None) -> list[Reach]:
    """Which losses reach each parameter, as their gradients tell."""
    reaches: list[list[int]] = [[] for _ in rows[0]]
    stored, absent = ((), ()) if matrix is None else (matrix.columns, matrix.absent)
    for k, row in enumerate(rows):
        for index, gradient in enumerate(row):
            if gradient is not None or (index in stored and (k, index) not in absent):
                reaches[index].append(k)
    return [tuple(reach) for reach in reaches]


def leaves_behind(tensors: Iterable[torch.Tensor], *, stop_at: Iterable[torch.Tensor] = ()) -> set[int]:
    """The ids of the leaf tensors that ``tensors`` were computed from, without passing through ``stop_at``."""
    leaves: set[int] = set()
    for node, _ in _edges_behind(map(edge_of, tensors), set(map(edge_of, stop_at))):
        variable = getattr(node, "variable", None)  # only the nodes that accumulate into a leaf have it
        if variable is not None:
            leaves.add(id(shard_of(variable)))
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
            reach[id(shard_of(variable))] = members[mask]
    return reach


def losses_on_graph(batch: Batch, call: Call) -> list[torch.Tensor]:
    """The losses of a batch of tensors, signed and scaled, once it is known that a pass sees all parameters."""
    losses = batch.losses()
    refuse_reentrant(losses)
    agree_on_shards(batch.names, losses, call.params, call.processes)
    return losses


def reach_on_graph(losses: Sequence[torch.Tensor], call: Call, batch: Batch) -> Sequence[Reach]:
    """Which losses reach each parameter, as their graph tells."""
    found = reach_behind(losses)
    reaches = reach_on_all([found.get(id(param), ()) for param in call.params], len(losses), call.processes)
    reached = set().union(*reaches)
    for k, name in enumerate(batch.names):
        if k not in reached:
            raise ValueError(_unreached(name))
    return reaches


def agree_on_shards(
    names: Sequence[str], losses: Sequence[torch.Tensor], params: Sequence[torch.Tensor], processes: Processes
) -> None:
    """Raise where a loss reaches other sharded parameters on one process than on others.

    The gradients of those that are reached are laid one after the other and added up over the processes: of others,
    in other places, torch would add those of one parameter to those of another, without a word.
    """
    if processes.shards is None:
        return
    found = reach_behind(losses)
    for k, name in enumerate(names):
        indices = [n for n, param in enumerate(params) if k in found.get(id(param), ())]
        processes.note(f"which of params loss {name!r} reaches, under fully_shard", _in_words(indices))
    processes.meet()


def _in_words(indices: Sequence[int]) -> str:
    """``0-3, 7``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs) or "none"


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


def require_dense(names: Sequence[str], gradients: Sequence[torch.Tensor | None]) -> None:
    """Raise where a gradient of the losses of these names is sparse."""
    for gradient in gradients:
        if gradient is not None and gradient.layout != torch.strided:
            which = f"loss {names[0]!r} has" if len(names) == 1 else f"losses {', '.join(map(repr, names))} have"
            raise TypeError(
                f"{which} a sparse gradient of shape {tuple(gradient.shape)}; rules need dense ones: "
                "build the embedding with sparse=False"
            )


def require_reach(name: str, row: Row) -> None:
    """Raise when a loss reaches none of the parameters."""
    if all(gradient is None for gradient in row):
        raise ValueError(_unreached(name))


def _unreached(name: str) -> str:
    return f"loss {name!r} reaches none of params: give the parameters it was computed from, or None for the loss"


def trunk_of(
    boundary: Sequence[torch.Tensor], losses: Sequence[torch.Tensor], call: Call
) -> tuple[set[int], str | None]:
    """The ids of the parameters behind ``boundary``, and why it does not stand for them all; None where it does.

    The features of one process will do for all only if those of each will.
    """
    trunk = leaves_behind(boundary)
    around = leaves_behind(losses, stop_at=boundary) & trunk & {id(param) for param in call.params}
    obstacle = None
    if around:
        obstacle = f"{len(around)} of the parameters behind features are reached around it, too"
    elif nested(boundary):
        obstacle = "one of the features is computed from another"
    obstacle = call.processes.join_words(obstacle or "") or None
    return on_all(trunk, call), obstacle


def trunk_of_call(call: Call) -> set[int] | None:
    """The ids of the parameters behind the features of a call; None without any."""
    return None if call.features is None else on_all(leaves_behind(boundary_of(call.features)), call)


def on_all(leaves: set[int], call: Call) -> set[int]:
    """The ids of the parameters that are among these leaves on any of the processes."""
    found = [(0,) if id(param) in leaves else () for param in call.params]
    reaches = reach_on_all(found, 1, call.processes)
    return {id(param) for param, reach in zip(call.params, reaches, strict=True) if reach}


def reach_on_all(reaches: Sequence[Reach], count: int, processes: Processes) -> Sequence[Reach]:
    """Which of ``count`` losses reach each parameter on any of the processes."""
    if not processes.several:
        return reaches
    masks = [sum([1 << n for n, reach in enumerate(reaches) if k in reach]) for k in range(count)]
    joined = processes.join_masks(masks, len(reaches))
    return [tuple([k for k in range(count) if joined[k] >> n & 1]) for n in range(len(reaches))]


def boundary_of(features: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``features`` as a list without repetitions."""
    boundary = [features] if isinstance(features, torch.Tensor) else list(features)
    for index, feature in enumerate(boundary):
        if not feature.requires_grad:
            raise ValueError(
                f"features[{index}] must be a tensor with a graph: what the trunk gave and the losses came from"
            )
    return list({edge_of(feature): feature for feature in boundary}.values())
