"""DP2Unlearning: a base model trained with differential privacy, from which every request starts anew."""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ._fit import EncodedRow, FitConfig, fit
from .encoding import collate
from .losses import nll


@dataclass(frozen=True)
class PrivacyConfig:
    """DP-SGD on the rows' answers. The defaults are the authors' for Phi-1.5; their weight decay of 0.01 is left out.

    Args:
        epsilon, delta: The budget, for adding or removing one row.
        max_norm: To which each row's gradient is clipped.
        epochs: Times each row is expected to be drawn.
        batch_size: Rows expected in a batch; each is drawn on its own (Poisson sampling).
        learning_rate: Of SGD, for the mean over ``batch_size``.
    """

    epsilon: float = 0.5
    delta: float = 1e-12
    max_norm: float = 1.0
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 5e-5

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta", "max_norm", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Protection:
    """What a base model was protected by: noise (in units of ``max_norm``), steps, and the epsilon that they cost."""

    noise_multiplier: float
    steps: int
    epsilon: float


def protect(model: Any, rows: Sequence[EncodedRow], config: PrivacyConfig, *, pad_id: int, seed: int = 0) -> Protection:
    """First stage: trains ``model`` in place on all rows by DP-SGD, so that none of them shows beyond epsilon.

    Each step draws each row with probability ``batch_size / len(rows)``, adds their clipped gradients and normal noise
    of deviation ``noise_multiplier * max_norm``, divides by ``batch_size`` and steps. Opacus finds the noise for the
    budget and accounts for it (RDP). Gradients are made row by row: slow, and with one row's memory.

    Al Mahmud et al., "DP2Unlearning: an efficient and guaranteed unlearning framework for LLMs", Neural Networks 2025
    (arXiv 2504.13774), with DP-SGD. Their other way, DP-MLM, is not here: it rewrites the texts word by word with a
    masked language model and the exponential mechanism, and trains on them as usual. It needs such a model, and neither
    which words are rewritten nor how their scores are bounded is settled by what is published. For texts rewritten
    elsewhere the two stages are :func:`~mtopt_suites.unlearning.models.fit` and :func:`deploy`. The noise comes from
    torch's generator with ``seed``, for experiments; a release of real data needs a cryptographic one.

    Raises:
        ModuleNotFoundError: Opacus is not installed.
    """
    if not rows:
        raise ValueError("rows is empty: give at least one encoded row")
    rate, steps = sampling(config, len(rows))
    protection = protection_of(config, len(rows))
    generator = torch.Generator().manual_seed(seed)
    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.SGD(params, lr=config.learning_rate)
    model.train()
    for _ in range(steps):
        drawn = (torch.rand(len(rows), generator=generator) < rate).nonzero().flatten().tolist()
        totals = clipped_sum(model, [rows[place] for place in drawn], max_norm=config.max_norm, pad_id=pad_id)
        for param, total in zip(params, totals, strict=True):
            disturbance = torch.randn(param.shape, generator=generator).to(total)
            param.grad = (total + protection.noise_multiplier * config.max_norm * disturbance) / config.batch_size
        optimizer.step()
    optimizer.zero_grad()
    model.eval()
    return protection


def sampling(config: PrivacyConfig, count: int) -> tuple[float, int]:
    """The probability with which a step draws each of ``count`` rows, and the steps that make the epochs."""
    rate = min(1.0, config.batch_size / count)
    return rate, math.ceil(config.epochs / rate)


@cache
def protection_of(config: PrivacyConfig, count: int) -> Protection:
    """The noise that meets the budget on ``count`` rows, and what it costs; finding it takes seconds."""
    rate, steps = sampling(config, count)
    noise, spent = _account(config, rate, steps)
    return Protection(noise, steps, spent)


def clipped_sum(model: Any, rows: Sequence[EncodedRow], *, max_norm: float, pad_id: int) -> list[Tensor]:
    """The sum of the rows' gradients of the mean NLL, each clipped to ``max_norm`` over all trained parameters."""
    params = [param for param in model.parameters() if param.requires_grad]
    totals = [torch.zeros_like(param) for param in params]
    for row in rows:
        batch = {key: value.to(params[0].device) for key, value in collate([row], pad_id).items()}
        gradients = torch.autograd.grad(nll(model, batch), params)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
        factor = min(1.0, max_norm / norm) if norm > 0 else 1.0
        for total, gradient in zip(totals, gradients, strict=True):
            total.add_(gradient, alpha=factor)
    return totals


def deploy(base: Any, rows: Sequence[EncodedRow], config: FitConfig, *, pad_id: int, seed: int = 0) -> Any:
    """Second stage: a copy of the protected base, fine-tuned without privacy on ``rows``.

    All rows at first; at each request those that are left, with the deployed model thrown away. What was removed then
    shows through the base alone. The base stays as it is.
    """
    model = copy.deepcopy(base)
    fit(model, rows, config, pad_id=pad_id, seed=seed)
    return model


def _account(config: PrivacyConfig, rate: float, steps: int) -> tuple[float, float]:
    """The noise that meets the budget over so many steps at that sampling rate, and the epsilon that it costs."""
    try:
        accountants = importlib.import_module("opacus.accountants")  # it has no types
        utilities = importlib.import_module("opacus.accountants.utils")
    except ModuleNotFoundError as error:
        if error.name != "opacus":
            raise
        raise ModuleNotFoundError(
            'DP2Unlearning needs `opacus`: pip install "mtopt[privacy]"', name="opacus"
        ) from error
    with warnings.catch_warnings():
        # the search for the noise passes through values at which the bound is loose; the last one is reported
        warnings.filterwarnings("ignore", "Optimal order is the (largest|smallest) alpha", UserWarning)
        noise = utilities.get_noise_multiplier(
            target_epsilon=config.epsilon, target_delta=config.delta, sample_rate=rate, steps=steps, accountant="rdp"
        )
        accountant = accountants.RDPAccountant()
        accountant.history = [(noise, rate, steps)]
        return float(noise), float(accountant.get_epsilon(delta=config.delta))
