"""Adaptive batches: the estimates against known variances, the tests against their formulas, the position."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import mtopt
from mtopt.combiners import gramian_of
from mtopt.training import AdaptiveBatches, AdaptiveBatchSize, MultiLossTrainer
from mtopt.training.callbacks._batch_size import GradientNoise
from tests.training.support import data_set, fingerprint, two_losses

SPREAD = torch.tensor([2.0, 1.0, 0.5])
CENTRE = torch.tensor([1.0, -1.0, 2.0])


class Means(MultiLossTrainer):
    """``l_k = mean_i ||w - x_ik||^2 / 2``: an example's gradient of l_k is w - x_ik, whatever w is."""

    def losses(self, batch):
        return [0.5 * (self.model.w - x).square().sum(1).mean() for x in batch]


class Vector(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))


def samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [CENTRE * (k + 1) + SPREAD * torch.randn(count, 3, generator=generator) for k in range(2)]


def trained(data, rule="linear", steps=1, lr=0.0, **options):
    callback = AdaptiveBatchSize(data, every=1, **options)
    model = Vector()
    trainer = Means(model, torch.optim.SGD(model.parameters(), lr=lr), rule, callbacks=[callback])
    trainer.fit(data, steps=steps)
    return callback, trainer


# -- estimates ----------------------------------------------------------------------------------------------------


def test_with_a_part_an_example_the_numbers_are_the_definitions():
    tensors = samples(24)
    data = AdaptiveBatches(TensorDataset(*tensors), 23, shuffle=False)
    callback, _ = trained(data, mtopt.create_combiner("linear", preference=(0.3, 0.7)), parts=23, largest=24)
    noise = callback.noise
    g = -(0.3 * tensors[0] + 0.7 * tensors[1])[:23].double().numpy()
    mean = g.mean(0)
    scale = 2.0 if callback.noise.squared_norm > 3 * (mean @ mean) else 1.0  # the rule's sum or mean
    g, mean = scale * g, scale * mean
    across = g - np.outer(g @ mean / (mean @ mean), mean)
    assert noise.squared_norm == pytest.approx(mean @ mean, rel=1e-5)
    assert noise.variance == pytest.approx(g.var(0, ddof=1).sum(), rel=1e-5)
    assert noise.along == pytest.approx((g @ mean).var(ddof=1), rel=1e-5)
    assert noise.across == pytest.approx(across.var(0, ddof=1).sum(), rel=1e-5)


@pytest.mark.parametrize(("parts", "size"), [(2, 16), (8, 4), (32, 1)])
def test_micro_batches_estimate_the_known_variance_without_bias(parts, size):
    """The trace of the covariance of an example's gradient is that of the data, whatever the size of the parts."""
    trials = 4000
    generator = torch.Generator().manual_seed(3)
    x = CENTRE + SPREAD * torch.randn(trials, parts, size, 3, generator=generator, dtype=torch.float64)
    estimates = np.array([GradientNoise.of(rows @ rows.T, size).variance for rows in -x.mean(2)])
    truth = float(SPREAD.square().sum())
    error = estimates.std() / math.sqrt(trials)
    assert abs(estimates.mean() - truth) < 4 * error
    assert error < 0.05 * truth


def test_the_batch_that_the_norm_test_asks_for_is_the_closed_form():
    """On the data's own mean and covariance: b = tr(Sigma) / (eta^2 ||g||^2)."""
    tensors = samples(4096, seed=5)
    data = AdaptiveBatches(TensorDataset(tensors[0]), 4096)
    callback, _ = trained(data, eta=0.01, parts=64)
    assert callback.changes == []  # it is as large as the data
    data = AdaptiveBatches(TensorDataset(tensors[0]), 2048)
    callback, _ = trained(data, eta=0.02, parts=1024)
    expected = float(SPREAD.square().sum() / (0.02**2 * CENTRE.square().sum()))
    assert 2048 < expected < 4096
    assert data.batch_size == pytest.approx(expected, rel=0.1)
    assert callback.changes == [(1, data.batch_size)]
    along = (SPREAD * CENTRE).square().sum() / CENTRE.square().sum() ** 2
    wanted = callback.noise.batch_size("inner_product", norm=1, inner_product=0.1, orthogonality=1)
    assert wanted == pytest.approx(float(along) / 0.1**2, rel=0.15)
    across = SPREAD.square().sum() - (SPREAD * CENTRE).square().sum() / CENTRE.square().sum()
    wanted = callback.noise.batch_size("augmented", norm=1, inner_product=100, orthogonality=0.1)
    assert wanted == pytest.approx(float(across / CENTRE.square().sum()) / 0.1**2, rel=0.15)


def test_degenerate_noise():
    same = GradientNoise.of(torch.ones(4, 4, dtype=torch.float64), 2)
    assert (same.variance, same.along, same.across) == (0, 0, 0)
    assert same.batch_size("augmented", norm=1, inner_product=1, orthogonality=1) == 1
    opposite = gramian_of(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64))
    assert GradientNoise.of(opposite, 3).batch_size("norm", norm=1, inner_product=1, orthogonality=1) == math.inf
    assert GradientNoise.of(opposite, 3).variance == 6


# -- in training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["norm", "inner_product", "augmented"])
def test_batches_grow_as_the_gradient_vanishes_and_never_shrink(test):
    data = AdaptiveBatches(TensorDataset(*samples(600, seed=7)), 16)
    callback, _ = trained(data, "linear", steps=40, lr=0.3, test=test, largest=300)
    sizes = [size for _, size in callback.changes]
    assert sizes == sorted(set(sizes))
    assert sizes[0] > 16
    assert sizes[-1] == data.batch_size == 300
    assert len(sizes) >= 2


def resumable(data):
    return two_losses("ngdiff", callbacks=[AdaptiveBatchSize(data, every=2, parts=4, eta=0.7)])


def test_resuming_ends_the_same_bit_for_bit(tmp_path):
    """Dropout and batch norm: the estimates leave no trace, and sizes, order and position are found again."""

    def make():
        return AdaptiveBatches(data_set(), 8, seed=4, drop_last=True)

    whole_data = make()
    whole = resumable(whole_data)
    whole.fit(whole_data, steps=14)
    assert whole.callbacks[0].changes
    for stop in (1, 3, 6, 11, 14):
        torch.rand(stop)
        data = make()
        resumed = resumable(data)
        resumed.fit(data, steps=stop, checkpoint_dir=tmp_path, checkpoint_every=1000)
    assert fingerprint(resumed) == fingerprint(whole)
    assert resumed.callbacks[0].changes == whole.callbacks[0].changes
    assert data.state_dict() == whole_data.state_dict()
    plain = two_losses("ngdiff")
    fixed = make()
    plain.fit(fixed, steps=whole.callbacks[0].changes[0][0])
    measured = resumable(again := make())
    measured.fit(again, steps=whole.callbacks[0].changes[0][0])
    assert fingerprint(measured) == fingerprint(plain)


# -- the batches --------------------------------------------------------------------------------------------------


def test_an_epoch_has_every_item_once_whatever_the_sizes():
    data = AdaptiveBatches(TensorDataset(torch.arange(50)), 4, seed=1)
    orders = []
    for _ in range(2):
        seen = []
        for (batch,) in data:
            seen += batch.tolist()
            data.batch_size = data.batch_size % 7 + 2
        orders.append(seen)
        assert sorted(seen) == list(range(50))
    assert orders[0] != orders[1]
    plain = AdaptiveBatches(list(range(5)), 2, shuffle=False)
    assert [batch.tolist() for batch in plain] == [[0, 1], [2, 3], [4]]
    dropping = AdaptiveBatches(list(range(5)), 2, shuffle=False, drop_last=True, collate=tuple)
    assert list(dropping) == [(0, 1), (2, 3)] == list(dropping)


def test_a_position_in_other_data_is_refused():
    state = AdaptiveBatches(list(range(5)), 2).state_dict()
    with pytest.raises(mtopt.CheckpointError, match="one in 5 items, and dataset has 6"):
        AdaptiveBatches(list(range(6)), 2).load_state_dict(state)


def test_wrong_arguments():
    data = AdaptiveBatches(list(range(5)), 2)
    with pytest.raises(ValueError, match="batch_size must be a positive int"):
        data.batch_size = 0
    with pytest.raises(ValueError, match="no items"):
        AdaptiveBatches([], 2)
    with pytest.raises(TypeError, match=r"give AdaptiveBatches\(dataset, batch_size\)"):
        AdaptiveBatchSize([1, 2])
    with pytest.raises(ValueError, match="test must be"):
        AdaptiveBatchSize(data, test="t")
    with pytest.raises(ValueError, match="eta must be positive"):
        AdaptiveBatchSize(data, eta=0.0)
    with pytest.raises(ValueError, match="parts at least 2"):
        AdaptiveBatchSize(data, parts=1)
    tensors = AdaptiveBatches(TensorDataset(*samples(8)), 4)
    with pytest.raises(ValueError, match="needs one batch per step and a rule with weights"):
        trained(tensors, "graddrop")
    with pytest.raises(ValueError, match="parts=8 micro-batches need as many examples, and the batch has 4"):
        trained(tensors)
