"""Training with CUBER: no memory of examples, but of inputs' directions and of one gradient per task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import mtopt

from .cuber import Regime, input_basis, joint_basis, project, regime, remove
from .network import Scale
from .trainer import ContinualTrainer


@dataclass(frozen=True)
class Done:
    """What is kept of a task that was learned: a basis and a gradient for each layer."""

    bases: list[torch.Tensor]
    gradients: list[torch.Tensor]


class CuberTrainer(ContinualTrainer):
    """The regimes are decided before a task is learned, for each layer and each old task; see :func:`cuber.regime`.

    In a layer the gradient loses its part in the input spaces of all old tasks that are not free. A free task j adds
    ``penalty ||Proj_j(W - W_0)||²`` to the loss, where W_0 are the weights before the new task. For a task in the
    scaled regime the new one learns a matrix Q, started at the identity, and uses ``W - Proj_j(W) + W B Q B'``.

    Its thresholds and the order of the parts are second-hand: see docs/continual.md.

    Args:
        energy: share of the inputs' squares that a task's basis holds.
        sufficient, positive: the two thresholds.
        penalty: on changes in the space of a free task. With n free tasks and overlapping spaces, steps stay stable
            below ``1 / (n learning_rate)``.
        stream, others: as for :class:`ContinualTrainer`; every stage has one part, which comes once. Where each part
            has outputs of its own, the last layer is left out: no task reaches the rows of another.
    """

    def __init__(
        self,
        *arguments: Any,
        energy: float = 0.97,
        sufficient: float = 0.5,
        positive: float = 0.0,
        penalty: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, memory="none", **options)
        self.energy, self.sufficient, self.positive, self.penalty = energy, sufficient, positive, penalty
        self.done: dict[int, Done] = {}
        self.regimes: dict[int, list[dict[int, Regime]]] = {}
        self.scales: dict[int, list[list[Scale]]] = {}
        self.frozen: list[torch.Tensor | None] = []
        self.start: list[torch.Tensor] = []
        layers = self.classifier.weights()
        self.guarded = len(layers) if self.stream.outputs is None else len(layers) - 1

    def logits(self, images: torch.Tensor, part: int) -> torch.Tensor:
        found: torch.Tensor = self.classifier(images, self.scales.get(part))
        return found

    def start_stage(self) -> None:
        super().start_stage()
        (part,) = self.current
        gradients = self._gradients(part)
        options = {"sufficient": self.sufficient, "positive": self.positive}
        self.regimes[part] = [
            {
                old: regime(gradients[layer], done.bases[layer], done.gradients[layer], **options)
                for old, done in self.done.items()
            }
            for layer in range(self.guarded)
        ]
        kept = [
            [self.done[old].bases[layer] for old, kind in self.regimes[part][layer].items() if kind != "free"]
            for layer in range(self.guarded)
        ]
        self.frozen = [joint_basis(bases) for bases in kept]
        self.start = [weight.detach().clone() for weight in self.classifier.weights()]
        self.scales[part] = [self._new_scales(part, layer) for layer in range(len(self.start))]

    def end_stage(self) -> None:
        if self.stage >= 0:
            (part,) = self.current
            images, _ = self.stream.splits["train"][part]
            with torch.no_grad():
                inputs = self.classifier.inputs(images, self.scales.get(part))
            if all(each.isfinite().all() for each in inputs):  # of a model that has diverged nothing can be kept
                bases = [input_basis(inputs[layer], self.energy) for layer in range(self.guarded)]
                self.done[part] = Done(bases, self._gradients(part))
        super().end_stage()

    def on_gradients(self, batch: Any, record: mtopt.StepRecord) -> None:
        (part,) = self.current
        for layer, weight in enumerate(self.classifier.weights()[: self.guarded]):
            assert weight.grad is not None
            for old, kind in self.regimes[part][layer].items():
                if kind == "free":
                    change = project(weight.detach() - self.start[layer], self.done[old].bases[layer])
                    weight.grad += 2.0 * self.penalty * change
            weight.grad.copy_(remove(weight.grad, self.frozen[layer]))
        super().on_gradients(batch, record)

    def _gradients(self, part: int) -> list[torch.Tensor]:
        """Of the loss on all of a part's training examples, for each layer."""
        with torch.enable_grad():
            return list(torch.autograd.grad(self.loss([part]), self.classifier.weights()))

    def _new_scales(self, part: int, layer: int) -> list[Scale]:
        if layer >= self.guarded:
            return []
        found: list[Scale] = []
        for old, kind in self.regimes[part][layer].items():
            if kind == "scaled":
                basis = self.done[old].bases[layer]
                scale = torch.nn.Parameter(torch.eye(basis.shape[1]))
                self.optimizer.add_param_group({"params": [scale]})
                found.append((basis, scale))
        return found
