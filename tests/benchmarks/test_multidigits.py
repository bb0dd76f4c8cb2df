"""MultiDigits: made as MultiMNIST is, and nothing of the test split seen in training."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import mtopt
from benchmarks.multitask.multidigits import SPLITS, MultiDigits, digits_of_splits, overlaid


def fingerprints(images):
    return {image.tobytes() for image in images}


def test_every_digit_is_in_exactly_one_split():
    splits = digits_of_splits()
    assert sum(len(images) for images, _ in splits.values()) == len(load_digits().images)
    prints = {name: fingerprints(images) for name, (images, _) in splits.items()}
    for first in prints:
        for second in prints:
            if first != second:
                assert not prints[first] & prints[second]


@pytest.mark.parametrize("split", SPLITS)
def test_images_are_two_digits_of_their_split(split):
    images, left, right = overlaid(split).tensors
    assert len(images) == len(left) == len(right) == SPLITS[split]
    digits, labels = digits_of_splits()[split]
    corners = fingerprints(digits[:, :3, :3])  # the part of the left digit that the right one never covers
    generator = np.random.default_rng(0)
    for index in generator.integers(len(images), size=20):
        canvas = images[index, 0].numpy()
        assert np.ascontiguousarray(canvas[:3, :3]).tobytes() in corners
        # some pair of digits with these labels gives exactly this canvas
        lefts = digits[labels == int(left[index])]
        rights = digits[labels == int(right[index])]
        alone = (lefts[:, :3, :] == canvas[:3, :8]).all((1, 2)) & (lefts[:, :, :3] == canvas[:8, :3]).all((1, 2))
        below = (rights[:, 5:, :] == canvas[8:, 3:]).all((1, 2)) & (rights[:, :, 5:] == canvas[3:, 8:]).all((1, 2))
        assert any(
            np.array_equal(np.maximum(a[3:, 3:], b[:5, :5]), canvas[3:8, 3:8])
            for a in lefts[alone]
            for b in rights[below]
        )


def test_same_images_on_every_call():
    first = overlaid.__wrapped__("test").tensors
    assert all(torch.equal(a, b) for a, b in zip(first, overlaid("test").tensors, strict=True))


def test_seed_decides_model_and_order_and_the_rule_does_not():
    task = MultiDigits()

    def start(rule, seed):
        trainer = task.trainer(mtopt.create_combiner(rule), learning_rate=1e-3, seed=seed, point=0, points=1)
        batch = next(iter(task.data("train", seed=seed)))
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), batch[0]

    for a, b in zip(start("linear", 3), start("mgda", 3), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(start("linear", 3), start("linear", 4), strict=True):
        assert not torch.equal(a, b)


def test_error_rates_are_counted_on_the_named_split():
    task = MultiDigits()
    trainer = task.trainer(mtopt.create_combiner("linear"), learning_rate=1e-3, seed=0, point=0, points=1)
    values = task.values(trainer, "test", seed=0)
    images, left, _ = overlaid("test").tensors
    with torch.no_grad():
        predicted = trainer.model.left(trainer.model.trunk(images)).argmax(1)
    assert values["left"] == pytest.approx(1 - float((predicted == left).double().mean()))
    assert values["left"] > 0.7  # untrained


def test_training_learns_both_tasks():
    task = MultiDigits()
    trainer = task.trainer(mtopt.create_combiner("mgda"), learning_rate=3e-3, seed=0, point=0, points=1)
    trainer.fit(task.data("train", seed=0), steps=150)
    values = task.values(trainer, "validation", seed=0)
    assert values["left"] < 0.3
    assert values["right"] < 0.3
