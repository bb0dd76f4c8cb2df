"""How far a classifier is from one that never saw the forget set: accuracies, tug-of-war, membership inference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from .ensemble import Ensemble, cross_entropies
from .settings import Points, Setting

Array = NDArray[np.float64]


def accuracies(ensemble: Ensemble, setting: Setting, split: str = "test") -> dict[str, Array]:
    """Of each model on the forget set, the retain set and what is held out in ``split``: (N,) each, in [0, 1].

    On the forget set, what counts is the label that was trained on: in the confusion setting a model that remembers
    has a high accuracy there, and is wrong.
    """
    parts = {"forget": setting.forget, "retain": setting.retain, "test": setting.heldout(split)}
    with torch.no_grad():
        return {
            name: (ensemble(points.images).argmax(2) == points.labels).double().mean(1).numpy()
            for name, points in parts.items()
        }


def means(values: Mapping[str, Array]) -> dict[str, float]:
    """The mean over the models, of each."""
    return {name: float(value.mean()) for name, value in values.items()}


def tug_of_war(accuracy: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """``prod_s (1 - |a_s - a_s^retrained|)`` over the forget, retain and test set: 1 for a model that is as good as the
    retrained one on all three, 0 for one that is wrong by everything on one of them.

    Zhao et al., "What makes unlearning hard and what to do about it" (arXiv 2406.01257). With the accuracy of a
    membership attack in the place of the forget set's it is their ToW-MIA.

    Args:
        accuracy: by set, in [0, 1].
        retrained: of the same sets; the mean over several retrained models.
    """
    if set(accuracy) != set(retrained):
        raise ValueError(f"both need the same sets, found {sorted(accuracy)} and {sorted(retrained)}")
    return float(np.prod([1.0 - abs(accuracy[name] - retrained[name]) for name in accuracy]))


def point_losses(ensemble: Ensemble, points: Points) -> Array:
    """(N, n): the cross-entropy of each point under each model, in nats."""
    with torch.no_grad():
        return cross_entropies(ensemble(points.images), points.labels).double().numpy()


def loss_attack(forget: Array, unseen: Array, *, seed: int = 0) -> float:
    """Can a threshold on the loss tell what was forgotten from what was never seen? The accuracy of a logistic
    regression on the losses of as many of both, the mean over ten stratified shuffled splits (a tenth is tested on).

    0.5 is ideal if both are of one distribution; what a retrained model has is the number to compare with. The attack
    of the NeurIPS 2023 unlearning challenge's starting kit.

    Args:
        forget: losses (n,) of the forget set.
        unseen: losses (m,) of images of the same distribution, which no model was trained on.
        seed: of the choice among the more numerous ones, and of the splits.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    count = min(len(forget), len(unseen))
    if count < 10:
        raise ValueError(f"the attack needs at least 10 losses of each, found {len(forget)} and {len(unseen)}")
    random = np.random.default_rng(seed)
    chosen = [np.asarray(losses)[random.permutation(len(losses))[:count]] for losses in (forget, unseen)]
    losses, labels = np.concatenate(chosen)[:, None], np.repeat([0, 1], count)
    attack = LogisticRegression(solver="newton-cholesky")
    splits = StratifiedShuffleSplit(n_splits=10, random_state=seed).split(losses, labels)
    scores = [attack.fit(losses[known], labels[known]).score(losses[asked], labels[asked]) for known, asked in splits]
    return float(np.mean(scores))


def confidence_attack(retain: Array, unseen: Array, forget: Array, *, seed: int = 0) -> float:
    """SalUn's MIA-Efficacy: the share of the forget set that an attack takes for unseen, in [0, 1].

    A support vector machine (RBF kernel, C = 3) learns from the confidence ``p(y | x)`` to tell retained from unseen
    images, as many of both, and is asked about the forget set. High is forgotten, but the number to compare with is the
    retrained model's. Fan et al., "SalUn", ICLR 2024 (arXiv 2310.12508); of the five attacks in their code, this is the
    one that they report.

    Args:
        retain: confidences (n,) of the retain set.
        unseen: confidences (m,) of held-out images.
        forget: confidences (k,) of the forget set.
        seed: of the choice among the more numerous ones.
    """
    from sklearn.svm import SVC

    count = min(len(retain), len(unseen))
    if not count or not len(forget):
        raise ValueError(
            f"the attack needs all three, found {len(retain)}, {len(unseen)} and {len(forget)} confidences"
        )
    random = np.random.default_rng(seed)
    known, new = (np.asarray(sample)[random.permutation(len(sample))[:count]] for sample in (retain, unseen))
    machine = SVC(C=3.0, gamma="auto", kernel="rbf")
    machine.fit(np.concatenate([known, new])[:, None], [1] * count + [0] * count)
    return 1.0 - float(machine.predict(np.asarray(forget)[:, None]).mean())


def attacks(ensemble: Ensemble, setting: Setting, split: str = "test") -> dict[str, Array]:
    """Both attacks on each model, (N,) each: ``"loss attack"`` and ``"confidence attack"``.

    The unseen images of the first are of the forget set's distribution, and labelled as it is; those of the second are
    what is held out.
    """
    forget, retain = point_losses(ensemble, setting.forget), point_losses(ensemble, setting.retain)
    like_forget, heldout = (point_losses(ensemble, unseen(split)) for unseen in (setting.like_forget, setting.heldout))
    confidences = zip(*(np.exp(-losses) for losses in (retain, heldout, forget)), strict=True)
    return {
        "loss attack": np.array([loss_attack(*losses) for losses in zip(forget, like_forget, strict=True)]),
        "confidence attack": np.array([confidence_attack(*each) for each in confidences]),
    }
