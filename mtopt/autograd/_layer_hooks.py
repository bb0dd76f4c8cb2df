"""The calls of a model's layers, taken down by forward hooks; the model is not wrapped, nor its outputs touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mtopt.autograd._layer_parts import is_known
from mtopt.autograd._reach import Edge, edge_of


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of one layer.

    Attributes:
        module: the layer.
        parameters: its own trainable ones, by name.
        given: its input, without its graph.
        inputs: where its inputs stand in the graph, those that are in it.
        output: where its output stands.
        edge: where what the output is a view of stands, if it is one; else the same.
        shape: of the output.
    """

    module: nn.Module
    parameters: Mapping[str, torch.Tensor]
    given: torch.Tensor
    inputs: tuple[Edge, ...]
    output: Edge
    edge: Edge
    shape: torch.Size

    def has_samples(self, count: int) -> bool:
        """Whether input and output are as long as ``count`` where samples lie: along the first dimension."""
        if isinstance(self.module, nn.MultiheadAttention) and not self.module.batch_first:
            return self.given.ndim == 3 and self.given.shape[1] == self.shape[1] == count
        return 0 not in (self.given.ndim, len(self.shape)) and len(self.given) == self.shape[0] == count


class LayerHooks:
    """All calls of the layers of ``model`` whose parameters' gradients can be told apart by sample."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.found: list[LayerCall] = []
        self.listening = False
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def listen(self) -> None:
        """Attach the hooks, and forget what was taken down before."""
        self.found, self.listening = [], True
        for name, module in self.model.named_modules():
            # a module whose whole call is compiled gives its layers' hooks no tensors to look at
            if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
                raise ValueError(
                    f"model is compiled (at {name or 'its top'!r}), and a compiled graph shows no layers: give the "
                    "model before torch.compile, or mtopt.backward(list(losses), ...), one backward pass per loss"
                )
        for module in self.model.modules():
            if isinstance(module, nn.MultiheadAttention) or is_known(module):
                self._handles.append(module.register_forward_hook(self._take_down, with_kwargs=True))

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _take_down(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self.listening:  # a checkpointed layer that is run again in the backward
            return
        is_attention = isinstance(module, nn.MultiheadAttention)
        result = output[0] if is_attention else output
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        # attention never calls the layer that holds its last projection
        owned = module.named_parameters() if is_attention else module.named_parameters(recurse=False)
        parameters = {name: param for name, param in owned if param.requires_grad}
        if not parameters or not isinstance(result, torch.Tensor) or not result.requires_grad or not inputs:
            return
        # Edges and no tensors: what is done to the output in place does not move them, and no memory is held. A view is
        # computed anew then, and the node behind it stays.
        before = tuple(edge_of(value) for value in inputs if value.requires_grad)
        output = edge_of(result)
        base = result._base
        whole = base is not None and base.requires_grad and base.numel() == result.numel()
        if base is None or not whole or not (base.is_contiguous() and result.is_contiguous()):
            base = result
        self.found.append(
            LayerCall(module, parameters, inputs[0].detach(), before, output, edge_of(base), result.shape)
        )
