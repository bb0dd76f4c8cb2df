"""AdAdaGrad's tests: the batch grows when its gradient is no longer told from noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mtopt._counts import check_count
from mtopt._replay import buffers_kept
from mtopt.autograd import StepRecord
from mtopt.distributed import refuse_ranks
from mtopt.linalg import Gradients
from mtopt.training._closure import weighted_sum
from mtopt.training._evaluation import count_examples
from mtopt.training._gradients import generators_of, losses_of
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import SteppingTraining

Test = Literal["norm", "inner_product", "augmented"]


@dataclass(frozen=True, slots=True)
class GradientNoise:
    """How gradients of single examples scatter, estimated from those of micro-batches.

    Attributes:
        squared_norm: ``||g||^2`` of the mean gradient.
        variance: ``sum_j Var_i(g_ij)``, the trace of the covariance of an example's gradient.
        along: ``Var_i(g_i . g)``.
        across: the variance of what is orthogonal to g, ``sum_j Var_i(o_ij)`` with ``o_i = g_i - (g_i . g / ||g||^2)
            g``.
    """

    squared_norm: float
    variance: float
    along: float
    across: float

    @classmethod
    def of(cls, gramian: torch.Tensor, size: int) -> GradientNoise:
        """From the Gramian (m, m) of the mean gradients of m micro-batches of ``size`` examples each.

        The mean of ``size`` examples scatters ``size`` times less than one of them, so the sample variance of the m
        means (with m - 1) times ``size`` is an unbiased estimate of one example's.
        """
        count = len(gramian)
        products = gramian.mean(1)  # g_i . g
        squared_norm = max(float(products.mean()), 0.0)
        total = float(gramian.diagonal().sum()) - count * squared_norm
        along = float((products - products.mean()).square().sum()) / (count - 1)
        variance = max(total, 0.0) / (count - 1)
        across = max(variance - along / squared_norm, 0.0) if squared_norm > 0 else variance
        return cls(squared_norm, size * variance, size * along, size * across)

    def batch_size(self, test: Test, *, norm: float, inner_product: float, orthogonality: float) -> float:
        """The smallest batch that passes; infinite where the gradient is zero and scatters."""
        if test == "norm":
            return _ratio(self.variance, norm**2 * self.squared_norm)
        along = _ratio(self.along, inner_product**2 * self.squared_norm**2)
        if test == "inner_product":
            return along
        return max(along, _ratio(self.across, orthogonality**2 * self.squared_norm))


class AdaptiveBatchSize(Callback):
    """Grows the batch until the noise of the combined direction passes a test, as AdAdaGrad does.

    With the gradients g_i of single examples and their mean g, a batch of b passes

    - the norm test when ``sum_j Var_i(g_ij) / b <= eta^2 ||g||^2``,
    - the inner-product test when ``Var_i(g_i . g) / b <= theta^2 ||g||^4``,
    - the augmented test when it passes that and the orthogonality test, ``sum_j Var_i(o_ij) / b <= nu^2 ||g||^2`` with
      ``o_i = g_i - (g_i . g / ||g||^2) g``.

    Every ``every`` steps the batch size becomes the smallest that passes, rounded up, if that is more than it is and at
    most ``largest``; it never shrinks. Lau, Liu and Kolar, "AdAdaGrad: adaptive batch size schemes for adaptive
    gradient methods", arXiv 2402.11215; their code adds inner products up tensor by tensor, here they are those of
    whole gradients.

    The direction is ``sum_k w_k l_k`` differentiated, with the rule's weights of the step held fixed, which is the sum
    over examples of something; a task's head counts with its loss's weight, too. The variances are estimated from the
    gradients of ``parts`` equal micro-batches of the step's batch (one backward each, without hooks on ``.grad``; with
    as many parts as examples they are per-example ones). Generators and buffers are kept. With BatchNorm each
    micro-batch is normalised by itself.

    Args:
        data: has an attribute ``batch_size`` that may be set, such as :class:`AdaptiveBatches`; what ``fit`` trains on.
        test: ``"norm"`` (default), ``"inner_product"`` or ``"augmented"``.
        eta: of the norm test. Default: 0.5.
        theta, nu: of the inner-product and the orthogonality test. Defaults: 0.5 and 1.
        largest: no batch will be larger, and none tested then. Default: no limit but the data's number of items.
        every: steps between tests. Default: 10.
        parts: micro-batches, at least 2. Default: 8.

    Attributes:
        changes: (step, batch size) of each growth.
        noise: what the last test was made with, a :class:`GradientNoise`.

    Raises:
        TypeError, ValueError: a wrong argument; in training, a rule without weights, or one on several draws.
    """

    def __init__(
        self,
        data: Any,
        *,
        test: Test = "norm",
        eta: float = 0.5,
        theta: float = 0.5,
        nu: float = 1.0,
        largest: int | None = None,
        every: int = 10,
        parts: int = 8,
    ) -> None:
        if not hasattr(data, "batch_size") or isinstance(data, torch.utils.data.DataLoader):
            raise TypeError(
                f"data must have a batch_size that may change, found {type(data).__name__}; "
                "give AdaptiveBatches(dataset, batch_size)"
            )
        if test not in ("norm", "inner_product", "augmented"):
            raise ValueError(f"test must be 'norm', 'inner_product' or 'augmented', found {test!r}")
        for name, value in (("eta", eta), ("theta", theta), ("nu", nu)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive, found {value!r}")
        if check_count("every", every) is None or check_count("parts", parts) in (None, 1):
            raise ValueError(f"every must be a positive int and parts at least 2, found {every!r} and {parts!r}")
        self.data, self.test, self.eta, self.theta, self.nu = data, test, eta, theta, nu
        self.largest, self.every, self.parts = check_count("largest", largest), every, parts
        self.changes: list[tuple[int, int]] = []
        self.noise: GradientNoise | None = None

    def on_fit_start(self, trainer: SteppingTraining) -> None:
        refuse_ranks("AdaptiveBatchSize", "leave it out, or train in one process")
        rule = trainer.combiner
        if not rule.weighted or rule.draws > 1 or trainer.batches_per_step > 1:
            raise ValueError(
                f"AdaptiveBatchSize needs one batch per step and a rule with weights, found {rule!r} and "
                f"{trainer.batches_per_step} batches; take one of list_combiners(weighted=True, draws=1), and leave "
                "accumulate at 1"
            )

    def on_gradients(self, trainer: SteppingTraining, batch: Any, record: StepRecord) -> None:
        step = trainer.step + 1
        limit = self._limit()
        if step % self.every or self.data.batch_size >= limit or record.weights is None:
            return
        examples = count_examples(batch)
        size = examples // self.parts
        if size == 0:
            raise ValueError(
                f"parts={self.parts} micro-batches need as many examples, and the batch has {examples}; "
                "lower parts, or drop the last, smaller batch"
            )
        rows = self._rows(trainer, batch, record.weights, examples, size)
        self.noise = GradientNoise.of(Gradients(rows).gramian, size)
        wanted = self.noise.batch_size(self.test, norm=self.eta, inner_product=self.theta, orthogonality=self.nu)
        new = math.ceil(min(wanted, limit)) if math.isfinite(min(wanted, limit)) else self.data.batch_size
        if new > self.data.batch_size:
            self.data.batch_size = new
            self.changes.append((step, new))

    def state_dict(self) -> dict[str, Any]:
        """The growth so far; the size itself is in the data's state."""
        return {"changes": [list(change) for change in self.changes]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.changes = [(step, size) for step, size in state_dict["changes"]]

    def _limit(self) -> float:
        dataset = getattr(self.data, "dataset", None)
        items = math.inf if dataset is None else len(dataset)
        return min(items, math.inf if self.largest is None else self.largest)

    def _rows(
        self, trainer: SteppingTraining, batch: Any, weights: Mapping[str, float], examples: int, size: int
    ) -> list[list[torch.Tensor]]:
        """The gradients of the micro-batches: one list of tensors each."""
        groups = trainer.optimizer.param_groups
        params = [param for group in groups for param in group["params"] if param.requires_grad]
        rows = []
        with generators_of(trainer).replayed(), buffers_kept(trainer):
            for part in range(self.parts):
                piece = _slice(batch, part * size, (part + 1) * size, examples)
                total = weighted_sum(losses_of(trainer, piece), weights)
                found = torch.autograd.grad(total, params, allow_unused=True, materialize_grads=True)
                rows.append(list(found))
        trainer.features = None
        return rows


def _slice(batch: Any, start: int, stop: int, examples: int) -> Any:
    """Examples ``start`` to ``stop`` of a batch: tensors with one row an example are cut, all else is shared."""
    if isinstance(batch, torch.Tensor):
        return batch[start:stop] if batch.ndim and len(batch) == examples else batch
    if isinstance(batch, Mapping):
        return {key: _slice(value, start, stop, examples) for key, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        cut = [_slice(value, start, stop, examples) for value in batch]
        return type(batch)(*cut) if hasattr(batch, "_fields") else type(batch)(cut)  # type: ignore[call-arg]
    return batch


def _ratio(above: float, below: float) -> float:
    if above == 0.0:
        return 1.0
    return above / below if below > 0 else math.inf
