"""Which task comes next, and strata in batches."""

import collections

import pytest
import torch
from torch import nn

import mtopt
from mtopt.training import StratifiedBatches, TaskBatches

LOADERS = {"a": ["a0", "a1"], "b": ["b0"], "c": ["c0", "c1", "c2"]}


def test_uniform_draws_go_round_each_loader():
    drawn = list(TaskBatches(LOADERS, steps=3000))
    counts = collections.Counter(name for name, _ in drawn)
    assert all(900 < counts[name] < 1100 for name in LOADERS)
    for name, items in LOADERS.items():
        seen = [batch for task, batch in drawn if task == name]
        assert seen == [items[i % len(items)] for i in range(len(seen))]


def record(**losses):
    return mtopt.StepRecord(losses=losses)


def test_learning_progress_is_the_change_between_two_windows():
    tasks = TaskBatches(LOADERS, steps=10, progress=True, window=2, explore=0.2)
    for a, b, c in ((9.0, 1.0, 5.0), (7.0, 1.0, 5.0), (5.0, 2.0, 5.0)):
        tasks.on_step_end(None, record(a=a, b=b, c=c))
        assert tasks.probabilities() == pytest.approx([1 / 3] * 3)  # not two windows of each yet
    tasks.on_step_end(None, record(a=3.0, b=2.0, c=5.0, other=9.0))
    # 8 -> 4, 1 -> 2, 5 -> 5: progress 4, 1, 0, in whatever direction
    assert tasks.probabilities() == pytest.approx([0.2 / 3 + 0.8 * 4 / 5, 0.2 / 3 + 0.8 / 5, 0.2 / 3])
    tasks.on_step_end(None, record(a=float("nan")))
    assert tasks.losses["a"] == [9.0, 7.0, 5.0, 3.0]


class Tasks(mtopt.MultiLossTrainer):
    def losses(self, batch):
        name, x = batch
        return {task: (self.model(x) - k).square().mean() if task == name else None for k, task in enumerate("ab")}


def trained(steps, folder=None):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    x = torch.randn(8, 2)
    tasks = TaskBatches({"a": [x], "b": [x]}, steps=20, progress=True, window=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    trainer = Tasks(model, optimizer, "linear", callbacks=[tasks])
    trainer.fit(tasks, steps=steps, checkpoint_dir=folder)
    return model.weight.detach().clone(), tasks


def test_a_trainer_draws_by_progress_and_resumes(tmp_path):
    whole, tasks = trained(50)
    assert all(len(seen) == 6 for seen in tasks.losses.values())
    trained(27, tmp_path)
    resumed, _ = trained(50, tmp_path)
    assert torch.equal(whole, resumed)


def test_strata_keep_their_shares_in_every_batch():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 11)
    sampler = StratifiedBatches(labels, 10)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 11
    assert sorted(i for batch in batches for i in batch) == list(range(101))
    for batch in batches:
        counts = torch.bincount(labels[batch], minlength=3)
        assert all(abs(int(n) - s * 101 / 11) < 1 for n, s in zip(counts, sampler.shares, strict=True))
    assert list(sampler) != batches  # another epoch, another order
    assert list(StratifiedBatches(labels, 10)) == batches


def test_stratified_means_vary_less():
    """With strata that explain all variance, every batch of proportional counts has the same mean."""
    labels = torch.arange(4).repeat_interleave(25)
    data = torch.utils.data.TensorDataset(labels.double() ** 2)
    loader = torch.utils.data.DataLoader(data, batch_sampler=StratifiedBatches(labels, 20))
    means = torch.stack([batch.mean() for (batch,) in loader])
    torch.testing.assert_close(means, torch.full_like(means, 3.5))


def test_what_they_refuse():
    with pytest.raises(ValueError, match="loaders is empty"):
        TaskBatches({}, steps=1)
    with pytest.raises(ValueError, match="the loader of task 'a' holds no batch"):
        list(TaskBatches({"a": []}, steps=1))
    with pytest.raises(ValueError, match="explore must be in"):
        TaskBatches(LOADERS, steps=1, explore=2.0)
    with pytest.raises(ValueError, match="batch_size must be a positive int"):
        StratifiedBatches([0, 1], 0)
