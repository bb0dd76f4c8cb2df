"""A small multi-task regression with a trained model, whose conflict between the tasks is a parameter."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mtopt.problems._base import check_count


@dataclass(frozen=True, slots=True)
class SyntheticRegression:
    """K regressions ``y_k = teachers[k] . x + noise`` on shared inputs.

    Attributes:
        inputs: (n, d), standard normal.
        targets: (n, K).
        teachers: (K, d), each of the length ``scales[k]``. The cosine between any two is ``1 - conflict K / (K - 1)``.
        scales: (K,), the norms of the teachers.
        conflict: in [0, 1], the share of the tasks' variance that no function common to all of them explains: the least
            mean of ``||t_k / scales[k] - t||²`` over t, reached by the mean of the unit teachers, is ``conflict``. At 0
            the unit teachers are one and the same; at 1 they add up to zero, as far apart as K vectors can be.
        noise: standard deviation of the noise in a target, over the length of its teacher.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    teachers: torch.Tensor
    scales: torch.Tensor
    conflict: float
    noise: float

    @property
    def num_tasks(self) -> int:
        return self.targets.shape[1]

    def model(
        self, hidden: int = 32, depth: int = 2, *, heads: Literal["one", "own"] = "one", seed: int = 0
    ) -> TrunkAndHeads:
        """A trunk of ``depth`` tanh layers of width ``hidden`` under linear heads.

        With one head for all tasks the conflict is the data's. Each with a head of its own, tasks compete for features
        only, of which K - 1 at conflict 1 or K between do for all (0: one): a head may turn a feature's sign.
        """
        tasks = self.num_tasks
        return TrunkAndHeads(self.inputs.shape[1], tasks, hidden, depth, 1 if heads == "one" else tasks, seed=seed)

    def losses(self, model: nn.Module, rows: torch.Tensor | slice = slice(None)) -> list[torch.Tensor]:
        """The mean squared error of each task over some of the rows."""
        answers = model(self.inputs[rows])
        targets = self.targets[rows]
        if all(answer is answers[0] for answer in answers):  # in one go, as each loss reaches all there is
            return list((answers[0][:, None] - targets).square().mean(0).unbind())
        return [(answer - targets[:, k]).square().mean() for k, answer in enumerate(answers)]


class TrunkAndHeads(nn.Module):
    """A shared trunk and linear heads: from (n, d) to a list of K answers (n,), one per task."""

    def __init__(self, inputs: int, tasks: int, hidden: int, depth: int, heads: int, *, seed: int) -> None:
        super().__init__()
        check_count("hidden", hidden)
        check_count("depth", depth)
        self.tasks = tasks
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([inputs, *[hidden] * depth]):
            layers += [_linear(before, after), nn.Tanh()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(_linear(hidden, 1) for _ in range(heads))
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as it does itself, from a generator of its own
                bound = 1.0 / math.sqrt(module.in_features)
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        features = self.trunk(inputs)
        answers = [head(features)[:, 0] for head in self.heads]
        return answers * (self.tasks // len(answers))


def _linear(before: int, after: int) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, before, after)  # type: ignore[no-untyped-call]  # nothing is drawn from the global generator
    return layer


def synthetic_regression(
    num_tasks: int,
    conflict: float,
    *,
    num_inputs: int | None = None,
    num_samples: int = 512,
    spread: float = 1.0,
    noise: float = 0.1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> SyntheticRegression:
    """Draw a :class:`SyntheticRegression`; the same for the same arguments, on every machine.

    The teachers are ``scales[k] u_k``; the unit vectors u_k have equal cosines: a fixed K x K root of their Gramian
    times K orthonormal rows that are drawn.

    Args:
        num_tasks: K, at least 2.
        conflict: in [0, 1].
        num_inputs: d, at least K. Default: K.
        num_samples: n.
        spread: the longest teacher over the shortest, >= 1; the lengths are geometrically spaced, their mean logarithm
            is zero. A factor r in a teacher is one of r² in the scale of its loss.
        noise: standard deviation, over the teacher's length.
        seed: of the teachers, the inputs and the noise.
        dtype: of what is returned; the draw is float64.
    """
    check_count("num_tasks", num_tasks, 2)
    check_count("num_samples", num_samples)
    inputs = num_tasks if num_inputs is None else num_inputs
    check_count("num_inputs", inputs, num_tasks)
    if not 0.0 <= conflict <= 1.0:
        raise ValueError(f"conflict must be in [0, 1], found {conflict}")
    if not 1.0 <= spread < math.inf:
        raise ValueError(f"spread must be finite and at least 1, found {spread}")
    if not 0.0 <= noise < math.inf:
        raise ValueError(f"noise must be finite and non-negative, found {noise}")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = spread ** torch.linspace(-0.5, 0.5, num_tasks, dtype=torch.float64)
    axes = torch.linalg.qr(draw(inputs, num_tasks)).Q.T
    teachers = scales[:, None] * (_root(num_tasks, conflict) @ axes)
    points = draw(num_samples, inputs)
    targets = points @ teachers.T + noise * scales * draw(num_samples, num_tasks)
    points, targets, teachers, scales = (t.to(dtype) for t in (points, targets, teachers, scales))
    return SyntheticRegression(points, targets, teachers, scales, conflict, noise)


def _root(count: int, conflict: float) -> torch.Tensor:
    """The root ``a (I - P) + b P`` of the Gramian of unit vectors with equal cosines; P projects on equal entries."""
    equal = torch.full((count, count), 1.0 / count, dtype=torch.float64)
    apart, together = math.sqrt(conflict * count / (count - 1)), math.sqrt(count * (1.0 - conflict))
    return apart * (torch.eye(count, dtype=torch.float64) - equal) + together * equal
