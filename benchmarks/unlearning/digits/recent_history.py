"""Mini-Unlearning on the digits: the last steps of a training again, without what is to be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..mini_unlearning import GradientSum, descend, mini_unlearn
from .ensemble import Ensemble
from .settings import CLASSES, Points, Setting

KEEP = 100


def mini_unlearning(
    original: Ensemble, setting: Setting, *, seeds: Sequence[int], learning_rate: float, keep: int = KEEP
) -> Ensemble:
    """:func:`~mtopt_suites.unlearning.mini_unlearning.mini_unlearn` from each of the original models.

    The method needs the last steps of a training by full-batch gradient descent, and the originals are made by Adam in
    small batches; so their training goes on for ``keep`` such steps on all images, of which the history is kept, and
    these are what is made again. Curvature is exact, by one product with the Hessian a step. Nothing is random: the
    seeds are there because every method takes them.

    Args:
        original, setting, seeds: as for :mod:`mtopt_suites.unlearning.digits.methods`.
        learning_rate: of gradient descent on the mean loss.
        keep: k, steps of the history.
    """
    everything, forget = (
        sum_gradient(points, original.tensors[0].shape[1]) for points in (setting.train, setting.forget)
    )
    unlearned = []
    for place in range(len(original)):
        model = original.member(place)
        start = parameters_to_vector(model.parameters()).detach()
        examples = len(setting.train.labels)
        _, history = descend(everything, start, examples=examples, learning_rate=learning_rate, steps=keep, keep=keep)
        end = mini_unlearn(history, forget, forgotten=len(setting.forget.labels), curvature=product_with(everything))
        vector_to_parameters(end, model.parameters())
        unlearned.append(model)
    return Ensemble(unlearned)


def sum_gradient(points: Points, width: int) -> GradientSum:
    """w (D,) -> the gradient of the summed cross-entropy of the network with these weights, (D,)."""
    features, classes = points.images.shape[1], CLASSES
    shapes = ((width, features), (width,), (classes, width), (classes,))
    sizes = [torch.Size(shape).numel() for shape in shapes]

    def loss(w: Tensor) -> Tensor:
        first, first_bias, second, second_bias = (
            part.view(shape) for part, shape in zip(torch.split(w, sizes), shapes, strict=True)
        )
        hidden = linear(points.images, first, first_bias).relu()
        return cross_entropy(linear(hidden, second, second_bias), points.labels, reduction="sum")

    gradient: GradientSum = torch.func.grad(loss)
    return gradient


def product_with(gradient: GradientSum) -> Callable[[Tensor, Tensor], Tensor]:
    """``(w, v) -> H(w) v`` of the loss that the gradient is of."""

    def product(w: Tensor, v: Tensor) -> Tensor:
        along: Tensor = torch.func.vjp(gradient, w)[1](v)[0]  # H is symmetric
        return along

    return product
