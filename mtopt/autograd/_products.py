"""``J d`` for K losses at once: one forward-mode product, or one forward at a displaced point."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtopt.autograd._generators import Generators
from mtopt.autograd._objective import Objective, read_losses
from mtopt.autograd._second_forward import forward_with, graph_where_needed
from mtopt.linalg import Array, Place, norm_of


@dataclass(frozen=True, slots=True)
class Point:
    """Where the products of a step are taken.

    Attributes:
        model: its parameters are replaced for the second forward.
        losses: the callable, or the callables.
        generators: as they were before the first forward.
        objectives, present, values: of the first forward, as the user knows them.
        dtypes: of the losses.
        scale: a GradScaler's factor, which directions carry; 1 without one.
        needs_graph: the losses differentiate inside.
    """

    model: nn.Module
    losses: Any
    generators: Generators
    objectives: Sequence[Objective]
    present: Sequence[int]
    values: Array
    dtypes: Sequence[torch.dtype]
    scale: float
    needs_graph: bool = False

    def again(self, replaced: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        """The losses present, signed, from a forward with some parameters, by their ids, replaced."""
        with graph_where_needed(self.needs_graph, "mtopt.MatrixFree (or to the trainer)"):
            if self.needs_graph:  # they may differentiate with respect to parameters, too
                replaced = {key: tensor.requires_grad_() for key, tensor in replaced.items()}
            objectives, values = read_losses(forward_with(self.model, self.losses, replaced, self.generators))
        present = [k for k, value in enumerate(values) if value is not None]
        if (objectives, present) != (list(self.objectives), list(self.present)):
            raise ValueError(
                "losses must give the same objectives when they are run again, found first "
                f"{[self.objectives[k].name for k in self.present]}, then {[objectives[k].name for k in present]}"
            )
        found = [(values[k].reshape(()), objectives[k].sign) for k in present]  # type: ignore[union-attr]
        return [-value if sign < 0.0 else value for value, sign in found]  # a factor would have a tangent, slowly


Product = Callable[[Point, Sequence[Place], Sequence[torch.Tensor], float, Array], Array]
"""``J d`` (K,) at a point, for d over some of the parameters (its tensors carry the point's scale), of a given length
without that scale, which was made with weights (K,)."""


def exact(
    point: Point, places: Sequence[Place], direction: Sequence[torch.Tensor], length: float, weights: Array
) -> Array:
    """The directional derivatives of all losses, by forward-mode differentiation."""
    # a tangent as long as the parameters: those of the activations are then of their size, in 16 bits, too
    _load_formulas()
    size = _rough_norm([place.parameter for place in places]) or 1.0
    with torch.no_grad(), forward_ad.dual_level(), _differentiable(point.model):
        replaced = {}
        factor = size / (length * point.scale)
        for place, along, tangent in zip(places, direction, _scratch(point.model, places), strict=True):
            replaced[id(place.parameter)] = _dual(place.parameter, torch.mul(along, factor, out=tangent))
        # Zeros for heads: torch takes a millisecond an operation to add up a tangent and one that is not there.
        for param in point.model.parameters():
            if param.requires_grad and id(param) not in replaced:
                replaced[id(param)] = _dual(param, torch.zeros_like(param))
        try:
            found = [forward_ad.unpack_dual(loss) for loss in point.again(replaced)]  # type: ignore[no-untyped-call]
        except NotImplementedError as error:
            if "forward" not in str(error):
                raise
            raise NotImplementedError(
                f"plan='matrix_free' differentiates forwards, and the model has a part that cannot: "
                f"{str(error).splitlines()[0]} Use plan=mtopt.MatrixFree(product='displacement'), which needs no "
                "derivative"
            ) from error
    values = _on_cpu([loss.primal for loss in found])
    _check_same(point, values)
    slopes = _on_cpu([torch.zeros_like(loss.primal) if loss.tangent is None else loss.tangent for loss in found])
    return slopes * (length / size)


def displaced(share: float | None) -> Product:
    """``(L(x) - L(x - e d)) / e``: one more forward, without a graph.

    Along d the weighted losses fall by ``e ||d||²`` to first order. With a fall of ``share`` of their size, rounding to
    relative precision u costs ``u / share`` of the result, and curvature about ``share`` of it (a quarter of
    it for a quadratic loss with minimum zero, a half for an exponential): both are small and alike at
    ``share = sqrt(u)``, whatever the units of the losses and the parameters. Near a stationary point, where the losses
    do not fall, e is bounded by a displacement of ``cbrt(u)`` of the parameters' norm.
    """

    def product(
        point: Point, places: Sequence[Place], direction: Sequence[torch.Tensor], length: float, weights: Array
    ) -> Array:
        params = [place.parameter.detach() for place in places]
        unit = max(torch.finfo(dtype).eps for dtype in [*point.dtypes, *(param.dtype for param in params)])
        size = float(weights @ np.abs(point.values))
        fall = (math.sqrt(unit) if share is None else share) * size / length  # e ||d||
        bound = unit ** (1.0 / 3.0) * _rough_norm(params)
        far = min(fall, bound) if bound > 0.0 and fall > 0.0 else max(fall, bound)
        if not far > 0.0:
            raise ValueError(
                "the parameters and the losses are all zero, and tell no length to displace by; use product='exact'"
            )
        step = far / (length * point.scale)
        replaced = {}
        with torch.no_grad():
            for place, along, moved in zip(places, direction, _scratch(point.model, places), strict=True):
                replaced[id(place.parameter)] = torch.add(place.parameter, along, alpha=-step, out=moved)
            values = _on_cpu(point.again(replaced))
        signs = np.array([point.objectives[k].sign for k in point.present])
        return np.asarray((point.values * signs - values) * (length / far))

    return product


_kept: WeakKeyDictionary[nn.Module, dict[str, torch.Tensor]] = WeakKeyDictionary()


def _scratch(model: nn.Module, places: Sequence[Place]) -> list[torch.Tensor]:
    """A tensor like each parameter, to be written to; on a CPU the same ones in every step, as long as the model lives.

    New memory of this size comes from the operating system page by page, a tenth of a step of a wide model.
    """
    kept = _kept.setdefault(model, {})
    found = []
    for place in places:
        param, name = place.parameter.detach(), str(place.name)
        tensor = kept.get(name)
        if tensor is None or (tensor.shape, tensor.dtype, tensor.device) != (param.shape, param.dtype, param.device):
            tensor = torch.empty_like(param)
            if param.device.type == "cpu":
                kept[name] = tensor
        found.append(tensor)
    return found


def _check_same(point: Point, values: Array) -> None:
    signs = np.array([point.objectives[k].sign for k in point.present])
    change = float(np.linalg.norm(values * signs - point.values))
    if change > 1e-2 * float(np.linalg.norm(point.values)):
        raise ValueError(
            f"losses must give the same values when they are run again, found a change of {change:.2g}: draw the batch "
            "outside of them, and random numbers from torch's, numpy's or Python's global generators; where fused "
            "attention drops out on a GPU, train with SDPBackend.MATH or use product='displacement'"
        )


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Kernels that have a forward-mode formula, in place of faster ones that lack it."""
    fast = torch.backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn] if recurrent else []
    enabled = [backend.enabled for backend in backends]
    torch.backends.mha.set_fastpath_enabled(False)
    for backend in backends:
        backend.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, was in zip(backends, enabled, strict=True):
            backend.enabled = was


@functools.cache
def _load_formulas() -> None:
    """What torch loads at the first forward-mode product, in versions of which it warns of its own code."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        _dual(torch.zeros(1), torch.zeros(1))


def _dual(param: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = forward_ad.make_dual(param.detach(), tangent)  # type: ignore[no-untyped-call]
    return made


def _rough_norm(tensors: Sequence[torch.Tensor]) -> float:
    """The norm of all of them together to a few digits, in one pass: a length to measure others by."""
    wide = [torch.promote_types(tensor.dtype, torch.float32) for tensor in tensors]
    parts = [torch.linalg.vector_norm(t.detach(), dtype=dtype).double() for t, dtype in zip(tensors, wide, strict=True)]
    found = float(torch.linalg.vector_norm(torch.stack([part.cpu() for part in parts])))
    return found if 1e-12 < found < 1e15 else norm_of(tensors)


def _on_cpu(scalars: Sequence[torch.Tensor]) -> Array:
    return np.asarray(torch.stack([s.detach().reshape(()).double() for s in scalars]).cpu().numpy())
