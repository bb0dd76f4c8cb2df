"""The tasks of the multitask suite: what they are made of, what they judge, and that they can be learned."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate
from scipy.stats import entropy
from sklearn.datasets import load_diabetes, load_linnerud

import mtopt
from benchmarks.multitask import suite
from benchmarks.multitask.distillation import KNOWN, TEMPERATURE, Distillation, divergence, taught, teacher
from benchmarks.multitask.fairness import FairDiabetes, grouped_patients
from benchmarks.multitask.linnerud import TARGETS, Linnerud, exercise
from benchmarks.multitask.multidigits import MultiDigitsReconstruction, digits_of_splits, overlaid
from benchmarks.multitask.regression import Diabetes, diabetes, patients, rows_of_splits
from benchmarks.multitask.three_heads import COPIES, LARGEST, ThreeHeads, turned

SPLITS = ("train", "validation", "test")


def train(task, rule="linear", *, steps, seed=0, **hyperparameters):
    low, high = task.learning_rates
    combiner = mtopt.create_combiner(rule, **hyperparameters)
    trainer = task.trainer(combiner, learning_rate=(low * high) ** 0.5, seed=seed, point=0, points=1)
    if steps:
        trainer.fit(task.data("train", seed=seed), steps=steps)
    return trainer


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("task", suite.tasks, ids=lambda task: task.name)
def test_seed_decides_the_start_and_the_rule_does_not(task):
    assert torch.equal(parameters(train(task, steps=0)), parameters(train(task, "mgda", steps=0)))
    assert not torch.equal(parameters(train(task, steps=0)), parameters(train(task, steps=0, seed=1)))
    for one, other in zip(*(next(iter(task.data("train", seed=3))) for _ in range(2)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("task", suite.tasks, ids=lambda task: task.name)
def test_a_short_training_is_better_than_none_at_every_loss(task):
    batch = task.dataset("train").tensors
    losses = []
    for trainer in (train(task, steps=0), train(task, steps=80)):
        with torch.no_grad():
            losses.append({name: float(value) for name, value in trainer.losses(batch).items()})
        trainer.features = None
    if isinstance(task, FairDiabetes):  # an untrained model says the same of everybody
        losses = [{"error": each["error"]} for each in losses]
    if isinstance(task, Distillation):  # the sum: on two of the digits one loss is paid for with the other
        losses = [{"sum": sum(each.values())} for each in losses]
    assert all(losses[1][name] < losses[0][name] for name in losses[0]), losses


@pytest.mark.parametrize("task", suite.tasks, ids=lambda task: task.name)
def test_values_of_both_splits_have_the_declared_names(task):
    trainer = train(task, steps=0)
    values = [task.values(trainer, split) for split in ("validation", "test")]
    assert set(values[0]) == set(values[1]) >= {objective.name for objective in task.objectives}
    assert (values[0] == values[1]) is not task.splits_differ


# -- MultiDigits with the image ---------------------------------------------------------------------------------------


def test_drawing_the_mean_image_has_an_error_of_one():
    task = MultiDigitsReconstruction()
    images, left, right = overlaid("train").tensors
    mean = images.flatten(1).mean(0).expand(len(images), -1)
    logits = torch.zeros(len(images), 10)
    values = task.errors({"left": logits, "right": logits, "image": mean}, (images, left, right))
    assert values["image"] == pytest.approx(1.0, rel=1e-5)
    assert (
        task.errors({"left": logits, "right": logits, "image": images.flatten(1)}, (images, left, right))["image"] == 0
    )


# -- turned digits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_turned_back_by_its_angle_an_image_is_the_digit(split):
    images, labels, angles = (part.numpy() for part in turned(split).tensors)
    digits, kinds = digits_of_splits()[split]
    assert len(images) == COPIES[split] * len(digits)
    assert np.abs(angles).max() <= 1
    assert angles.std() == pytest.approx(3**-0.5, rel=0.05)  # uniform on [-1, 1]
    for place in np.random.default_rng(0).integers(len(images), size=30):
        source = place % len(digits)
        assert labels[place] == kinds[source]
        whole = np.pad(digits[source], 2)
        likeness = [
            np.corrcoef(rotate(images[place, 0], -turn * LARGEST * angles[place], reshape=False, order=1).ravel(),
                        whole.ravel())[0, 1]
            for turn in (1, -1)
        ]  # fmt: skip
        assert likeness[0] > 0.9
        assert likeness[0] > likeness[1] or abs(angles[place]) < 0.1


def test_errors_of_three_heads_on_outputs_made_by_hand():
    labels, angles = torch.tensor([3, 4, 7, 0]), torch.tensor([0.5, -0.5, 1.0, 0.0])
    outputs = {
        "class": torch.nn.functional.one_hot(torch.tensor([3, 4, 7, 1]), 10).float(),  # one of four wrong
        "parity": torch.tensor([[1.0], [1.0], [1.0], [-1.0]]),  # of 4, wrong
        "angle": torch.tensor([[0.5], [0.0], [0.5], [0.0]]),  # off by 0, 0.5, 0.5, 0; the angles' sizes add up to 2
    }
    values = ThreeHeads().errors(outputs, (torch.zeros(4, 1, 12, 12), labels, angles))
    assert values == pytest.approx({"class": 0.25, "parity": 0.25, "angle": 0.5, "angle, degrees": 0.25 * LARGEST})


# -- regression -------------------------------------------------------------------------------------------------------


def test_rows_are_in_one_split_each_in_the_shares_of_the_groups():
    groups = np.repeat([0, 1], [300, 100])
    rows = rows_of_splits(400, groups)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(400))
    assert [len(rows[split]) for split in SPLITS] == [200, 80, 120]
    assert all(groups[rows[split]].mean() == pytest.approx(0.25, abs=0.01) for split in SPLITS)


def test_no_target_of_the_patients_is_among_their_inputs():
    inputs, targets = patients()
    raw = load_diabetes(scaled=False)
    assert np.array_equal(targets[:, 0], raw.target)
    for column in targets.T:
        assert not any(abs(np.corrcoef(column, other)[0, 1]) > 0.99 for other in inputs.T)
    assert sorted(map(tuple, np.hstack([inputs, targets[:, 1:]]).T)) == sorted(map(tuple, raw.data.T))


def test_scales_are_of_the_training_rows_alone():
    for part in diabetes("train").tensors:
        assert torch.allclose(part.mean(0), torch.zeros(part.shape[1]), atol=1e-5)
        assert torch.allclose(part.var(0, unbiased=False), torch.ones(part.shape[1]), atol=1e-5)
    assert not torch.allclose(diabetes("test").tensors[0].mean(0), torch.zeros(8), atol=1e-5)


def test_always_saying_the_mean_has_an_error_of_one():
    task, batch = Diabetes(), diabetes("train").tensors
    outputs = {objective.name: torch.zeros(len(batch[0]), 1) for objective in task.objectives}
    assert list(task.errors(outputs, batch).values()) == pytest.approx([1.0, 1.0, 1.0], rel=1e-5)


# -- linnerud ---------------------------------------------------------------------------------------------------------


def best_of_one(k):
    """The smallest share of unexplained variance of target k alone: ordinary least squares."""
    data = load_linnerud()
    inputs = np.column_stack([np.ones(20), data.data])
    _, (residual,), *_ = np.linalg.lstsq(inputs, data.target[:, k], rcond=None)
    return residual / (20 * data.target[:, k].var())


def test_the_front_of_linnerud_reaches_least_squares_in_each_objective():
    front = Linnerud().front(20_000)
    assert front.min(0) == pytest.approx([best_of_one(k) for k in range(3)], abs=1e-3)


def test_points_of_the_front_of_linnerud_are_fits_of_rank_one():
    # minimise over the model itself, from many starts: no weighted sum gets below the front, and each gets to it
    task = Linnerud()
    front = task.front(20_000)
    for shares in ((0.6, 0.3, 0.1), (0.2, 0.2, 0.6)):
        ends = [train(task, steps=150, seed=seed, preference=shares) for seed in range(2)]
        found = min(float(np.dot(shares, list(task.values(end, "test").values()))) for end in ends)
        assert found == pytest.approx((front @ np.array(shares)).min(), abs=1e-3)


def test_no_rule_gets_below_the_front_of_linnerud():
    task = Linnerud()
    for rule in ("mgda", "pcgrad"):
        point = np.array(list(task.values(train(task, rule, steps=100), "test").values()))
        assert not (task.front(20_000) > point + 1e-3).all(1).any()


def test_hypervolume_of_the_front_of_linnerud_is_that_of_random_directions():
    # an estimate of its own: directions at random, and the share of a cloud of points that one of them dominates
    random = np.random.default_rng(0)
    inputs, targets = (part.numpy() for part in exercise().tensors)
    forms = inputs @ np.linalg.inv(np.linalg.cholesky(inputs.T @ inputs)).T @ random.normal(size=(3, 3000))
    forms /= np.linalg.norm(forms, axis=0)
    values = 1 - (forms.T @ targets) ** 2 / (targets**2).sum(0)
    cloud = random.uniform(size=(4000, 3))
    dominated = np.mean([(values <= point).all(1).any() for point in cloud])
    assert Linnerud().front_hypervolume() == pytest.approx(dominated, abs=4 * (dominated / 4000) ** 0.5)


def test_linnerud_has_no_row_held_out():
    assert Linnerud().dataset("train") is Linnerud().dataset("test")
    assert tuple(name.lower() for name in load_linnerud().target_names) == TARGETS


# -- fairness ---------------------------------------------------------------------------------------------------------


def test_groups_and_labels_are_halves_in_every_split():
    shares = [
        [
            float((fast.bool() == a).logical_and(older == b).double().mean())
            for a, b in itertools.product((0, 1), (0, 1))
        ]
        for _, fast, older in (grouped_patients(split).tensors for split in SPLITS)
    ]
    assert np.ptp(shares, axis=0).max() < 0.01
    assert np.sum(shares, axis=1) == pytest.approx([1.0, 1.0, 1.0])


def test_gaps_of_outputs_made_by_hand():
    older = torch.tensor([True, True, True, True, False, False, False, False])
    fast = torch.tensor([True, True, False, False, True, True, False, False])
    probability = torch.tensor([0.9, 0.9, 0.9, 0.3, 0.9, 0.2, 0.2, 0.3])
    values = FairDiabetes().errors({"fast": probability.logit()[:, None]}, (torch.zeros(8, 10), fast, older))
    assert values == pytest.approx(
        {
            "error": 2 / 8,  # the third of the old, the second of the young
            "gap": 0.75 - 0.4,
            "gap of decisions": 3 / 4 - 1 / 4,
            "gap of true positive rates": 1.0 - 0.5,
        }
    )


def test_the_gap_has_a_price():
    # with nothing asked of the gap it is wide; asked for, it closes
    task = FairDiabetes()
    gaps = [task.values(train(task, steps=150, preference=(1 - s, s)), "test")["gap"] for s in (0.02, 0.98)]
    assert gaps[1] < 0.5 * gaps[0]


# -- distillation -----------------------------------------------------------------------------------------------------


def test_divergence_is_scipys_of_the_tempered_distributions():
    random = torch.Generator().manual_seed(0)
    logits, wanted = (3 * torch.randn(6, 10, generator=random, dtype=torch.float64) for _ in range(2))
    p, q = (torch.softmax(each / TEMPERATURE, 1).numpy() for each in (wanted, logits))
    assert float(divergence(logits, wanted)) == pytest.approx(TEMPERATURE**2 * entropy(p, q, axis=1).mean())
    assert float(divergence(logits, logits + 5)) == pytest.approx(0.0, abs=1e-12)


def test_the_teacher_knows_eight_digits_and_never_says_another():
    for split in ("validation", "test"):
        _, labels, logits = taught(split).tensors
        said = logits.argmax(1)
        assert (said < KNOWN).all()
        assert float((said == labels)[labels < KNOWN].double().mean()) > 0.95


def test_the_teacher_is_the_same_on_every_call_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    with torch.no_grad():
        again = teacher.__wrapped__()
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(again.parameters(), teacher().parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_student_pleases_the_labels_and_the_teacher():
    task = Distillation()
    ends = [task.values(train(task, steps=150, preference=(s, 1 - s)), "test") for s in (0.98, 0.02)]
    assert ends[0]["error"] < 0.5 * ends[1]["error"]
    assert ends[1]["divergence"] < 0.5 * ends[0]["divergence"]
