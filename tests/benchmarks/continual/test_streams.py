"""What comes in sequence, and when."""

from collections import Counter

import numpy as np
import pytest
import torch

from benchmarks.continual.streams import (
    ANGLES,
    InTurn,
    Places,
    Recurring,
    rotated_digits,
    single_digits,
    split_digits,
)
from benchmarks.multitask.multidigits import digits_of_splits

STREAMS = (split_digits, single_digits, rotated_digits)


def prints(images):
    return {image.numpy().tobytes() for image in images}


def sixteenths(images):
    """The whole numbers of the data set."""
    return (16 * images).round().astype(np.int8)


@pytest.mark.parametrize("make", [split_digits, single_digits])
def test_parts_of_classes_are_the_digits_and_each_image_is_in_one(make):
    stream = make()
    for split, parts in stream.splits.items():
        assert sum(len(labels) for _, labels in parts) == len(digits_of_splits()[split][1])
        kinds = [set(labels.tolist()) for _, labels in parts]
        assert set.union(*kinds) == set(range(10))
        assert sum(map(len, kinds)) == 10  # no digit in two parts
        if stream.outputs is not None:
            assert kinds == [set(outputs) for outputs in stream.outputs]


def test_rotated_training_images_are_in_one_part_each():
    parts = rotated_digits().splits["train"]
    upright = [
        np.rot90(sixteenths(images.numpy().reshape(-1, 8, 8)), -angle // 90, axes=(1, 2))
        for angle, (images, _) in zip(ANGLES, parts, strict=True)
        if angle % 90 == 0
    ]
    known = {image.tobytes() for image in sixteenths(digits_of_splits()["train"][0])}
    found = [{np.ascontiguousarray(image).tobytes() for image in images} for images in upright]
    assert all(each <= known for each in found)
    assert sum(map(len, found)) == len(set.union(*found))
    assert sum(len(labels) for _, labels in parts) == len(digits_of_splits()["train"][1])


@pytest.mark.parametrize("make", STREAMS)
def test_no_image_of_training_is_judged(make):
    splits = make().splits
    train = set().union(*(prints(images) for images, _ in splits["train"]))
    for split in ("validation", "test"):
        assert not train & set().union(*(prints(images) for images, _ in splits[split]))


def test_masks_leave_a_part_its_own_classes():
    masks = split_digits().masks()
    assert masks.shape == (5, 10)
    assert [row.isfinite().nonzero()[:, 0].tolist() for row in masks] == [[k, k + 1] for k in range(0, 10, 2)]
    assert not rotated_digits().masks().any()


def test_in_turn_every_part_has_as_many_steps():
    stages = [InTurn(5).stage(step, 100) for step in range(100)]
    assert stages == sorted(stages)
    assert Counter(stages) == dict.fromkeys(range(5), 20)
    assert InTurn(5).stage(100, 100) == 4  # a step more stays in the last
    assert [InTurn(5).parts(stage, 0) for stage in range(5)] == [(k,) for k in range(5)]


def test_recurring_parts_follow_from_the_seed_and_all_come_back():
    schedule = Recurring(10, together=2, length=5)
    drawn = [schedule.parts(stage, 3) for stage in range(2000)]
    assert drawn == [schedule.parts(stage, 3) for stage in range(2000)]
    assert drawn != [schedule.parts(stage, 4) for stage in range(2000)]
    assert all(a < b for a, b in drawn)
    counts = np.array(list(Counter(part for pair in drawn for part in pair).values()))
    assert len(counts) == 10
    assert ((counts - 400) ** 2 / 400).sum() < 35  # chi-squared of ten classes: 35 is beyond the 99.99th percentile
    assert [schedule.stage(step, 20) for step in (0, 4, 5, 19, 20)] == [0, 0, 1, 3, 3]


def test_an_epoch_goes_through_each_part_and_the_next_in_another_order():
    stream = split_digits()
    places = Places(stream, seed=0, batch_size=16)
    batches = list(places)
    assert len(batches) == len(places)
    for part, (_, labels) in enumerate(stream.splits["train"]):
        seen = torch.cat([batch[part] for batch in batches])
        assert seen.max() < len(labels)
        assert Counter(Counter(seen.tolist()).values()).keys() <= {1, 2}
    for one, other in zip(batches, list(places), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    places.set_epoch(1)
    assert not torch.equal(next(iter(places))[0], batches[0][0])
