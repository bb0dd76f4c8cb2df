"""Where the graph of the losses uses each parameter, and how each use is taken apart into samples.

The hooks say which layers were called; the graph says what else was done with their parameters. A parameter is taken
apart only if every use in the graph is one that is understood; there is no second-guessing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mtopt.autograd._layer_hooks import LayerCall
from mtopt.autograd._layer_parts import Factors, Part, is_batched, part_of, widen
from mtopt.autograd._reach import Edge, Node, edge_of

_CAST = "ToCopyBackward0"
PRODUCTS = {"AddmmBackward0": (1, "_saved_mat1"), "MmBackward0": (0, "_saved_self")}
"""Matrix products: which operand their left factor is, and where it is kept for the backward."""


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a parameter: the result in the graph whose gradient is wanted, and what makes the part of it.

    There is no part where the gradient has no samples along its first dimension after all.
    """

    edge: Edge
    part: Callable[[torch.Tensor], Part | None]


class LossGraph:
    """The graph behind the losses, looked at from below: who uses what."""

    def __init__(self, losses: Iterable[torch.Tensor]) -> None:
        self.users: dict[Node, list[Node]] = {edge_of(loss)[0]: [] for loss in losses}
        self.leaves: dict[int, Node] = {}  # by the id of the leaf tensor
        pending = list(self.users)
        while pending:
            node = pending.pop()
            variable = getattr(node, "variable", None)
            if variable is not None:
                self.leaves[id(variable)] = node
            for behind, _ in node.next_functions:
                if behind is None:
                    continue
                if behind not in self.users:
                    self.users[behind] = []
                    pending.append(behind)
                self.users[behind].append(node)

    def region(self, call: LayerCall) -> set[Node]:
        """The nodes between a call's inputs and its output, which is in this graph."""
        stops = {node for node, _ in call.inputs}
        found, pending = {call.edge[0]}, [call.edge[0]]
        while pending:
            for behind, _ in pending.pop().next_functions:
                if behind is not None and behind not in stops and behind not in found:
                    found.add(behind)
                    pending.append(behind)
        return found

    def users_past_casts(self, node: Node) -> list[tuple[Node, Node]]:
        """What uses ``node``, each with the node that it uses: ``node`` itself, or one that casts it."""
        found = []
        for user in self.users[node]:
            found += [(above, user) for above in self.users[user]] if user.name() == _CAST else [(user, node)]
        return found


def refuse_batch_statistics(graph: LossGraph) -> None:
    """Raise for batch normalisation in training mode: sample i's loss depends on all the others' activations."""
    for node in graph.users:
        name = node.name()
        training = "BatchNorm" in name and getattr(node, "_saved_training", False)
        # instance normalisation is batch normalisation of a batch of one with B times the channels
        if "SyncBatchNorm" in name or (training and len(node._saved_input) != 1):  # type: ignore[attr-defined]
            raise ValueError(
                "losses come through batch normalisation in training mode, where the loss of each sample depends on "
                "all samples of the batch, so that no layer's gradient falls apart into samples: put these layers "
                "into eval mode (module.eval()), use GroupNorm, or give mtopt.backward(list(losses), ...), which "
                "takes one backward pass per loss"
            )


def uses_of(
    graph: LossGraph, calls: Sequence[LayerCall], params: Iterable[torch.Tensor], batch: int
) -> dict[int, list[Use]]:
    """The uses of each parameter that is understood, by its id; of those in the graph that are not, there is no entry.

    A parameter that the losses do not reach has an empty list.
    """
    by_param: dict[int, list[tuple[LayerCall, str, set[Node]]]] = {}
    for call in calls:
        region = graph.region(call) if call.edge[0] in graph.users else set()
        for name, param in call.parameters.items():
            by_param.setdefault(id(param), []).append((call, name, region))
    found: dict[int, list[Use]] = {}
    for param in params:
        node = graph.leaves.get(id(param))
        if node is None:
            found[id(param)] = []
            continue
        of_layers = [entry for entry in by_param.get(id(param), ()) if node in entry[2]]
        if of_layers:
            uses = _uses_in_layers(graph, node, of_layers, batch)
        else:
            uses = _uses_by_itself(graph, node, param, batch)
        if uses is not None:
            found[id(param)] = uses
    return found


# -- in layers ----------------------------------------------------------------------------------------------------


def _uses_in_layers(
    graph: LossGraph, node: Node, entries: Sequence[tuple[LayerCall, str, set[Node]]], batch: int
) -> list[Use] | None:
    if not _stays_inside(graph, node, entries):
        return None
    uses: list[Use] = []
    for call, name, region in entries:
        if isinstance(call.module, nn.MultiheadAttention):
            fits = call.given.ndim == 3 and call.has_samples(batch)
            found = _uses_in_attention(graph, node, name, region, batch) if fits else None
        else:
            use = _use_in_layer(graph, call, name, batch)
            found = None if use is None else [use]
        if found is None:
            return None
        uses += found
    return uses


def _stays_inside(graph: LossGraph, node: Node, entries: Sequence[tuple[LayerCall, str, set[Node]]]) -> bool:
    """Whether nothing but these calls uses the parameter, or what they make of it (its cast to 16 bits, say)."""
    inside = set().union(*(region for _, _, region in entries))
    outputs = {call.edge[0] for call, _, _ in entries}
    pending, seen = [node], {node}
    while pending:
        for user in graph.users[pending.pop()]:
            if user not in inside:
                return False
            if user not in seen and user not in outputs:
                pending.append(user)
            seen.add(user)
    return True


def _use_in_layer(graph: LossGraph, call: LayerCall, name: str, batch: int) -> Use | None:
    module, given, shape = call.module, call.given, call.shape
    if not is_batched(module, given):
        return None
    has_samples = call.has_samples(batch)

    def part(cotangent: torch.Tensor) -> Part | None:
        if has_samples and cotangent.numel() == shape.numel():
            return part_of(module, name, given, cotangent.reshape(shape))
        cotangents = _unexpanded(cotangent, shape, batch)
        if cotangents is None:
            return None
        once = given[0] if cotangents.ndim == len(shape) else given
        return part_of(module, name, once.expand(batch, *once.shape), cotangents)

    if has_samples and not isinstance(module, nn.Embedding):
        return Use(call.edge, part)
    # Made once for all samples, as positions are: the samples come in where it is added to something of theirs. There
    # it shows, too, whether an embedding of as many positions as there are samples is one of samples.
    users = graph.users.get(call.output[0], [])
    if shape and len(users) == 1 and _passes_on(users[0], call.output[0]):
        return Use((users[0], 0), part)
    return Use(call.edge, part) if has_samples else None


def _passes_on(user: Node, node: Node) -> bool:
    """Whether the gradient of ``node`` is that of ``user``, summed over what was expanded."""
    name = user.name()
    operands = [position for position, (behind, _) in enumerate(user.next_functions) if behind is node]
    if len(operands) != 1:
        return False
    return name == "ExpandBackward0" or (
        name == "AddBackward0" and (operands == [0] or user._saved_alpha == 1)  # type: ignore[attr-defined]
    )


def _unexpanded(cotangent: torch.Tensor, shape: torch.Size, batch: int) -> torch.Tensor | None:
    """(B, *shape without a leading one), summed over what was expanded, but not over samples; None without samples."""
    inner = shape[1:] if len(shape) == cotangent.ndim and shape[0] == 1 else shape
    if cotangent.ndim <= len(inner) or len(cotangent) != batch:
        return None
    return cotangent.sum_to_size(batch, *(1,) * (cotangent.ndim - 1 - len(inner)), *inner).reshape(batch, *inner)


# -- nn.MultiheadAttention ----------------------------------------------------------------------------------------


def _uses_in_attention(graph: LossGraph, node: Node, name: str, region: set[Node], batch: int) -> list[Use] | None:
    """The uses in the projections, which are functions and no layers: the graph holds them, positions before samples.

    That is so whatever ``batch_first`` says.
    """
    uses = []
    for user, _ in graph.users_past_casts(node):
        if user not in region:
            continue  # another call's
        if name.endswith("bias"):
            if user.name() not in ("AddmmBackward0", "AddBackward0"):
                return None
            uses.append(_use_in_sum(user, batch))
        elif user.name() == "TBackward0":
            for product, _ in graph.users_past_casts(user):
                operand, saved = PRODUCTS.get(product.name(), (0, ""))
                if not saved or product.next_functions[operand][0] is user:
                    return None
                uses.append(_use_in_product(product, saved, batch))
        else:
            return None
    return uses


def _use_in_product(product: Node, saved: str, batch: int) -> Use:
    def part(cotangent: torch.Tensor) -> Part | None:
        left = _by_sample(cotangent, batch)
        right = _by_sample(getattr(product, saved), batch)
        return None if left is None or right is None else Factors(left, right, left.shape[2])

    return Use((product, 0), part)


def _use_in_sum(user: Node, batch: int) -> Use:
    def part(cotangent: torch.Tensor) -> Part | None:
        rows = _by_sample(cotangent, batch)
        return None if rows is None else rows.sum(1)

    return Use((user, 0), part)


def _by_sample(rows: torch.Tensor, batch: int) -> torch.Tensor | None:
    """(T B, n) or (T, B, n) as (B, T, n), in float32 at least."""
    width = rows.shape[-1]
    if rows.numel() % (batch * width) or (rows.ndim == 3 and rows.shape[1] != batch):
        return None
    return widen(rows.detach()).reshape(-1, batch, width).transpose(0, 1)


# -- parameters that are added to something, or multiplied with it ------------------------------------------------


def _uses_by_itself(graph: LossGraph, node: Node, param: torch.Tensor, batch: int) -> list[Use] | None:
    """Of positions, scales and class tokens: parameters in sums and products with a tensor that has samples."""
    uses = []
    for user, seen in graph.users_past_casts(node):
        if _passes_on(user, seen):
            factor = None
        elif user.name() == "MulBackward0" and user.next_functions[0][0] is not user.next_functions[1][0]:
            factor = "_saved_other" if user.next_functions[0][0] is seen else "_saved_self"
        else:
            return None
        uses.append(_use_in_arithmetic(user, factor, param, batch))
    return uses


def _use_in_arithmetic(user: Node, factor: str | None, param: torch.Tensor, batch: int) -> Use:
    def part(cotangent: torch.Tensor) -> Part | None:
        cotangent = widen(cotangent)
        if factor is not None:
            cotangent = cotangent * getattr(user, factor).detach()
        cotangents = _unexpanded(cotangent, param.shape, batch)
        return None if cotangents is None else cotangents.flatten(1) if cotangents.ndim > 1 else cotangents[:, None]

    return Use((user, 0), part)
