"""The published baselines of class unlearning, on many models at once.

Each takes the original models, and gives new ones: ``method(original, setting, seeds=..., learning_rate=...)``. An
epoch is one pass over the retain set; the seeds, one a model, decide the order and the random labels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from .batches import paired_epoch, single_epoch
from .ensemble import Ensemble, adam, cross_entropies, descend, network
from .settings import Points, Setting

EPOCHS = 10


def fine_tune(
    original: Ensemble, setting: Setting, *, seeds: Sequence[int], learning_rate: float, epochs: int = EPOCHS
) -> Ensemble:
    """Training goes on, with the retain set alone."""
    models = copy.deepcopy(original)
    batches = (batch for epoch in range(epochs) for batch in single_epoch(setting.retain, seeds, epoch))
    descend(models, (partial(_cross_entropy, models, batch) for batch in batches), learning_rate=learning_rate)
    return models


def train_anew(
    original: Ensemble, setting: Setting, *, seeds: Sequence[int], learning_rate: float, epochs: int = EPOCHS
) -> Ensemble:
    """Retraining in as many epochs as the others have: :func:`fine_tune` of new weights. What a base model is worth
    shows beside it."""
    width = original.tensors[0].shape[1]
    fresh = Ensemble([network(seed, width) for seed in seeds])
    return fine_tune(fresh, setting, seeds=seeds, learning_rate=learning_rate, epochs=epochs)


def neg_grad_plus(
    original: Ensemble,
    setting: Setting,
    *,
    seeds: Sequence[int],
    learning_rate: float,
    epochs: int = EPOCHS,
    beta: float = 0.95,
) -> Ensemble:
    """NegGrad+: ``beta CE(retain) - (1 - beta) CE(forget)`` is minimised.

    Kurmanji et al., "Towards unbounded machine unlearning", NeurIPS 2023 (arXiv 2302.09880). This is the rule
    ``linear`` with the preference (beta, 1 - beta) and the forget loss as an objective to maximise.
    """
    if not 0 < beta <= 1:
        raise ValueError(f"beta must be in (0, 1], found {beta}")
    models = copy.deepcopy(original)

    def loss(retain: Points, forget: Points, wrong_labels: Tensor) -> Tensor:
        return beta * _cross_entropy(models, retain) - (1 - beta) * _cross_entropy(models, forget)

    batches = _paired(setting, seeds, epochs)
    descend(models, (partial(loss, *batch) for batch in batches), learning_rate=learning_rate)
    return models


def random_labels(
    original: Ensemble,
    setting: Setting,
    *,
    seeds: Sequence[int],
    learning_rate: float,
    epochs: int = EPOCHS,
    alpha: float = 1.0,
) -> Ensemble:
    """The forget set is trained on with labels that are wrong, beside the retain set: ``CE(forget, y') + alpha
    CE(retain)``, each y' drawn anew among the nine others whenever its image is used.

    Golatkar et al., "Eternal sunshine of the spotless net", CVPR 2020 (arXiv 1911.04933), as SalUn has it. Some code
    draws among all ten labels.
    """
    return _relabel(original, setting, seeds, learning_rate, epochs, alpha, None)


def salun(
    original: Ensemble,
    setting: Setting,
    *,
    seeds: Sequence[int],
    learning_rate: float,
    epochs: int = EPOCHS,
    alpha: float = 1.0,
    share: float = 0.5,
) -> Ensemble:
    """SalUn: :func:`random_labels`, but only the weights are trained that are salient for the forget set.

    They are the ``share`` of all weights with the largest ``|d CE(forget) / d w|`` at the original model. Fan et al.,
    "SalUn", ICLR 2024 (arXiv 2310.12508): the median is the threshold, 0.5 here. The authors' code adds the gradients
    up while the model already moves; here it stands still, as in the paper.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], found {share}")
    return _relabel(original, setting, seeds, learning_rate, epochs, alpha, saliency(original, setting.forget, share))


def scrub(
    original: Ensemble,
    setting: Setting,
    *,
    seeds: Sequence[int],
    learning_rate: float,
    epochs: int = EPOCHS,
    forget_epochs: int = 3,
    forget_batch: int = 16,
    alpha: float = 0.5,
    gamma: float = 1.0,
    temperature: float = 2.0,
    rewind: bool = False,
) -> Ensemble:
    """SCRUB: away from the original model on the forget set, then back to it on the retain set, in turn.

    In each of the first ``forget_epochs`` epochs, one pass over the forget set (``forget_batch`` images per step)
    maximises ``KL(original || model)``; in every epoch one over the retain set minimises ``gamma CE + alpha KL``. KL is
    that of the outputs softened by the ``temperature``, times its square, as in distillation.

    With ``rewind`` it is SCRUB+R: of the models after each epoch, that is taken whose error on the forget set is
    nearest to the last model's error on validation images of the same distribution, the earlier of equals.

    Kurmanji et al., "Towards unbounded machine unlearning", NeurIPS 2023 (arXiv 2302.09880).
    """
    if not 0 <= forget_epochs <= epochs:
        raise ValueError(f"forget_epochs must be between 0 and epochs={epochs}, found {forget_epochs}")
    models = copy.deepcopy(original)
    optimizer = adam(models, learning_rate)
    checkpoints = []

    def divergence(batch: Points) -> Tensor:
        with torch.no_grad():
            teachers = original(batch.images)
        return distillation(teachers, models(batch.images), temperature)

    def keep(batch: Points) -> Tensor:
        return gamma * _cross_entropy(models, batch) + alpha * divergence(batch)

    def lose(batch: Points) -> Tensor:
        return -divergence(batch)

    for epoch in range(epochs):
        if epoch < forget_epochs:
            away = single_epoch(setting.forget, seeds, epoch, batch_size=forget_batch)
            descend(models, (partial(lose, b) for b in away), learning_rate=learning_rate, optimizer=optimizer)
        back = single_epoch(setting.retain, seeds, epoch)
        descend(models, (partial(keep, b) for b in back), learning_rate=learning_rate, optimizer=optimizer)
        checkpoints.append(copy.deepcopy(models))
    return _rewound(checkpoints, setting) if rewind else models


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(teacher || student)`` of the outputs softened by T, (..., n, 10) each: the mean over the n images."""
    target, own = ((logits / temperature).log_softmax(-1) for logits in (teacher, student))
    divergence: Tensor = (target.exp() * (target - own)).sum(-1).mean(-1)
    return divergence * (temperature * temperature)


def saliency(models: Ensemble, forget: Points, share: float) -> list[Tensor]:
    """For each parameter a mask (N, ...): 1 on the ``share`` of each model's weights with the largest gradients."""
    models = copy.deepcopy(models)
    torch.autograd.backward(_cross_entropy(models, forget).sum())
    sizes = [parameter[0].numel() for parameter in models.parameters()]
    gradients = torch.cat([p.grad.flatten(1) for p in models.parameters() if p.grad is not None], 1).abs()
    chosen = gradients.topk(round(share * gradients.shape[1]), dim=1).indices
    masks = torch.zeros_like(gradients).scatter_(1, chosen, 1.0)
    return [mask.view_as(p) for mask, p in zip(torch.split(masks, sizes, 1), models.parameters(), strict=True)]


def _relabel(
    original: Ensemble,
    setting: Setting,
    seeds: Sequence[int],
    learning_rate: float,
    epochs: int,
    alpha: float,
    masks: list[Tensor] | None,
) -> Ensemble:
    models = copy.deepcopy(original)

    def loss(retain: Points, forget: Points, wrong_labels: Tensor) -> Tensor:
        return _cross_entropy(models, Points(forget.images, wrong_labels)) + alpha * _cross_entropy(models, retain)

    batches = _paired(setting, seeds, epochs)
    descend(models, (partial(loss, *batch) for batch in batches), learning_rate=learning_rate, masks=masks)
    return models


def _paired(setting: Setting, seeds: Sequence[int], epochs: int) -> Iterator[tuple[Points, Points, Tensor]]:
    forget, retain = setting.forget, setting.retain
    for epoch in range(epochs):
        yield from paired_epoch(forget, retain, seeds, epoch)


def _cross_entropy(models: Ensemble, points: Points) -> Tensor:
    return cross_entropies(models(points.images), points.labels).mean(1)


def _rewound(checkpoints: Sequence[Ensemble], setting: Setting) -> Ensemble:
    unseen = _errors(checkpoints[-1], setting.like_forget("validation"))
    errors = torch.stack([_errors(models, setting.forget) for models in checkpoints])
    chosen = (errors - unseen).abs().argmin(0)
    return Ensemble([checkpoints[int(epoch)].member(place) for place, epoch in enumerate(chosen)])


def _errors(models: Ensemble, points: Points) -> Tensor:
    with torch.no_grad():
        logits: Tensor = models(points.images)
    return (logits.argmax(2) != points.labels).double().mean(1)
