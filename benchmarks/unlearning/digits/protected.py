"""DP2Unlearning on the digits: a base model trained with differential privacy, then fine-tuned on what is retained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..dp2unlearning import PrivacyConfig, protection_of, sampling
from .ensemble import Ensemble, Training, network
from .methods import EPOCHS, fine_tune
from .settings import CLASSES, Points, Setting


def privacy(epsilon: float) -> PrivacyConfig:
    """The base's training: as many epochs and as large batches as the original models', by SGD with clipping at 1."""
    training = Training()
    return PrivacyConfig(
        epsilon=epsilon, delta=1e-5, epochs=training.epochs, batch_size=training.batch_size, learning_rate=0.2
    )


def dp2unlearning(
    original: Ensemble,
    setting: Setting,
    *,
    seeds: Sequence[int],
    learning_rate: float,
    epochs: int = EPOCHS,
    epsilon: float = 10.0,
) -> Ensemble:
    """Trains a base on all images by DP-SGD from new weights, then fine-tunes it on the retain set alone.

    The first stage takes the place of the original training, so nothing of the original models but their width is used.
    What the base knows of the forget set is bounded by ``epsilon``, which counts for one image: for a set of k images
    it is k times as large.

    Args:
        original, setting, seeds: as for :mod:`mtopt_suites.unlearning.digits.methods`.
        learning_rate, epochs: of the second stage, by Adam.
        epsilon: the privacy budget of the first, see :func:`privacy`.
    """
    config = privacy(epsilon)
    noise = protection_of(config, len(setting.train.labels)).noise_multiplier
    base = noisy_descent(setting.train, seeds, config, noise, width=original.tensors[0].shape[1])
    return fine_tune(base, setting, seeds=seeds, learning_rate=learning_rate, epochs=epochs)


def noisy_descent(points: Points, seeds: Sequence[int], config: PrivacyConfig, noise: float, *, width: int) -> Ensemble:
    """DP-SGD from new weights, one model for each seed, with noise of deviation ``noise * max_norm``.

    Each step draws each image with probability ``batch_size / n``; models draw differently, so their batches are filled
    up with images that count for nothing. The noise is for experiments: a release needs a cryptographic generator.
    """
    count = len(points.labels)
    rate, steps = sampling(config, count)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    ensemble = Ensemble([network(seed, width) for seed in seeds])
    for _ in range(steps):
        drawn = torch.stack([torch.rand(count, generator=generator) < rate for generator in generators])
        longest = int(drawn.sum(1).max())
        counted, places = drawn.float().topk(longest, dim=1)
        batch = Points(points.images[places], points.labels[places])
        with torch.no_grad():
            for parameter, total in zip(
                ensemble.tensors, clipped_sum(ensemble, batch, counted, config.max_norm), strict=True
            ):
                normal = torch.stack([torch.randn(total.shape[1:], generator=generator) for generator in generators])
                total += noise * config.max_norm * normal
                parameter -= config.learning_rate / config.batch_size * total
    return ensemble


def clipped_sum(ensemble: Ensemble, batch: Points, counted: Tensor, max_norm: float) -> list[Tensor]:
    """For each model the sum of its images' gradients, each clipped to ``max_norm`` over all weights.

    A linear layer's gradient from one image is an outer product, whose norm is that of its two sides; so no image's
    gradient is written out.

    Args:
        ensemble: N models.
        batch: images (N, B, 64) and labels (N, B).
        counted: (N, B), what each image counts for, 1 or 0.
        max_norm: of one image's gradient.
    """
    first, first_bias, second, second_bias = ensemble.tensors
    hidden = torch.baddbmm(first_bias[:, None], batch.images, first.mT).relu()
    logits = torch.baddbmm(second_bias[:, None], hidden, second.mT)
    outer = logits.softmax(-1) - one_hot(batch.labels, CLASSES)
    inner = (outer @ second) * (hidden > 0)
    squares = sum(
        side.square().sum(-1) * (features.square().sum(-1) + 1)  # the bias' feature is 1
        for side, features in ((outer, hidden), (inner, batch.images))
    )
    factors = (counted * (max_norm / torch.as_tensor(squares).sqrt()).clamp(max=1.0))[..., None]
    outer, inner = factors * outer, factors * inner
    return [inner.mT @ batch.images, inner.sum(1), outer.mT @ hidden, outer.sum(1)]
