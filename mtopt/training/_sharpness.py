"""Sharpness-aware minimisation of several losses: each gradient is taken where its loss is near its worst."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from mtopt._losses import Losses, LossValue, Objective, read_losses
from mtopt._replay import Generators, buffers_kept
from mtopt.distributed import refuse_ranks

Vector = list[torch.Tensor]
"""A tensor a parameter."""


Again = Callable[[int, Vector, float], AbstractContextManager[torch.Tensor]]
"""Loss k with the parameters moved."""


class SharpnessAware:
    """SAM for several objectives, under any rule: the losses here, with gradients from perturbed parameters.

    ::

        flat = mtopt.training.SharpnessAware(model.parameters(), rho=0.05)
        record = mtopt.backward(flat(lambda: losses(batch)), model.parameters(), combiner)

    The gradient of loss k is that at ``theta + rho v_k / ||v_k||``. Without ``beta``, ``v_k = grad l_k``: K perturbed
    points, 2K backward passes (FS-MTL, Phan et al., arXiv 2211.13723). With ``beta``, tensor by tensor,
    ``v_k = (1 - beta) g + beta ||g|| z_k``, where g is the gradient of the mean loss and z_k a random unit vector with
    the sign along which the loss rises, as two forward passes see it: 1 + K backward and 1 + 3K forward passes (SAMO,
    ICCV 2025, arXiv 2507.07883, as the authors' code has it). ``beta=0`` is one point for all, 1 + K of each.

    Args:
        params: what is trained and perturbed.
        rho: radius, > 0. Default: 0.05.
        beta: share of a loss's own direction, in [0, 1]; None, the default, for its gradient.
        still: trained and not perturbed, such as tasks' heads. (The authors perturb a head by itself.)
        eps: distance of the pairs, > 0. Default: 0.01.
        seed: of the z_k.

    Everything that the losses draw, and buffers, are the same at all points, and the parameters return bit for bit.
    Gradients are made when it is called; where they are disabled the losses pass through. No scaler is applied.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        *,
        rho: float = 0.05,
        beta: float | None = None,
        still: Iterable[torch.nn.Parameter] = (),
        eps: float = 1e-2,
        seed: int = 0,
    ) -> None:
        self.params = [param for param in params if param.requires_grad]
        self.still = [param for param in still if param.requires_grad]
        if not self.params:
            raise ValueError("params must hold a parameter that requires gradients, found none")
        if not rho > 0 or not eps > 0:
            raise ValueError(f"rho and eps must be positive, found rho={rho}, eps={eps}")
        if beta is not None and not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1] or None, found {beta}")
        self.rho, self.beta, self.eps, self.seed = rho, beta, eps, seed
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, losses: Callable[[], Losses]) -> Losses:
        """The losses of one batch, whose gradients are those at the perturbed points.

        Args:
            losses: runs the model and returns its losses as :func:`mtopt.backward` takes them, tensors all.
        """
        if not torch.is_grad_enabled():
            return losses()
        refuse_ranks("SharpnessAware")
        generators = Generators({param.device for param in self.params})
        with generators.recorded():
            objectives, here = _tensors(losses())

        @contextmanager
        def again(k: int, direction: Vector, factor: float) -> Iterator[torch.Tensor]:
            """Loss k elsewhere; buffers are put back once it is done with."""
            with generators.replayed(), buffers_kept(), self._moved(direction, factor):
                yield _there(_tensors(losses())[1][k])

        everything = [*self.params, *self.still]
        found: dict[Objective, LossValue] = dict.fromkeys(objectives)
        directions: Iterable[Vector | None] = self._directions(objectives, here, again)
        if self.beta is None:  # all of them before a buffer of the graph behind them changes
            directions = list(directions)
        for k, direction in enumerate(directions):
            if direction is None:
                continue
            with again(k, direction, self.rho / _norm(direction)) as value:
                gradients = torch.autograd.grad(value, everything, allow_unused=True)
            used = [pair for pair in zip(everything, gradients, strict=True) if pair[1] is not None]
            found[objectives[k]] = _given(_there(here[k]).detach(), *itertools.chain.from_iterable(used))
        return found

    def _directions(
        self, objectives: Sequence[Objective], here: Sequence[LossValue], again: Again
    ) -> Iterator[Vector | None]:
        """v_k of each loss, before the point it leads to is visited; None for a loss that is absent."""
        pairs = zip(objectives, here, strict=True)
        signed = [None if value is None else o.sign * _there(value) for o, value in pairs]
        present = [value for value in signed if value is not None]
        mean = [] if self.beta is None else _gradient(torch.stack(present).mean(), self.params)
        for k, value in enumerate(signed):
            if value is None:
                yield None
            elif self.beta is None:
                yield _gradient(value, self.params, keep=any(other is not None for other in signed[k + 1 :]))
            elif self.beta == 0:
                yield mean
            else:
                own = self._rising(k, objectives[k].sign, again)
                norms = [self.beta * grad.norm() for grad in mean]
                yield [(1 - self.beta) * g + norm * z for g, norm, z in zip(mean, norms, own, strict=True)]

    @torch.no_grad()
    def _rising(self, k: int, sign: float, again: Again) -> Vector:
        """A random direction along which loss k rises, each tensor of length one."""
        drawn = [torch.randn(param.shape, generator=self.generator).to(param) for param in self.params]
        ends = []
        for factor in (self.eps, -self.eps):
            with again(k, drawn, factor) as value:
                ends.append(sign * float(value))
        rises = 1.0 if ends[0] >= ends[1] else -1.0
        return [rises * z / z.norm().clamp(min=torch.finfo(z.dtype).tiny) for z in drawn]

    @contextmanager
    def _moved(self, direction: Vector, factor: float) -> Iterator[None]:
        """The parameters elsewhere. They are exchanged and not copied back, so that the return is exact."""
        here = [param.data for param in self.params]
        torch.clear_autocast_cache()  # it knows a parameter by its identity, not by its value
        try:
            for param, step in zip(self.params, direction, strict=True):
                param.data = param.data + factor * step.to(param.dtype)
            yield
        finally:
            for param, value in zip(self.params, here, strict=True):
                param.data = value
            torch.clear_autocast_cache()

    def state_dict(self) -> dict[str, Any]:
        """That of the generator of the z_k."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the z_k that come next."""
        self.generator.set_state(state_dict["generator"])


class _Given(torch.autograd.Function):
    """A value whose gradients are given: ``apply(value, param, gradient, param, gradient, ...)``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: torch.Tensor, *pairs: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[2::2])

    @staticmethod
    def backward(ctx: Any, *of_value: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        given: list[torch.Tensor | None] = [None]
        for gradient in ctx.saved_tensors:
            given += [gradient * of_value[0].to(gradient.dtype), None]
        return tuple(given)


_given: Callable[..., torch.Tensor] = _Given.apply


def _tensors(losses: Losses) -> tuple[list[Objective], list[LossValue]]:
    objectives, values = read_losses(losses)
    tensors = [value is None or isinstance(value, torch.Tensor) for value in values]
    called = [objective.name for objective, tensor in zip(objectives, tensors, strict=True) if not tensor]
    if called:
        raise TypeError(f"SharpnessAware runs all losses together, and {called} are callables; return their tensors")
    return objectives, values


def _there(value: LossValue) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ValueError("losses must be the same whenever they are run, found one that is there and then is not")
    return value


def _gradient(value: torch.Tensor, params: Sequence[torch.Tensor], keep: bool = False) -> Vector:
    return list(torch.autograd.grad(value, params, allow_unused=True, materialize_grads=True, retain_graph=keep))


def _norm(vector: Vector) -> float:
    """Of a vector, or infinity for one that is zero: it leads nowhere."""
    square = sum(float(part.double().square().sum()) for part in vector)
    return float(square**0.5) if square > 0.0 else float("inf")
