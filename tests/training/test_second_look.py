"""Losses that are run once more for their values leave no trace: not in buffers, not in generators, not in a graph."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt.training import AdaptiveBatchSize, Callback, Evaluator
from tests.training.support import BATCH, data_set, loader


class Noisy(nn.Module):
    """Draws from every kind of generator, and writes buffers of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.own = torch.Generator().manual_seed(7)
        self.numbers = np.random.default_rng(8)
        self.plain = random.Random(9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        noise = torch.randn(x.shape, generator=self.own) + self.numbers.normal() + self.plain.gauss(0.0, 1.0)
        noise = noise + np.random.normal() + random.gauss(0.0, 1.0)  # noqa: NPY002
        return self.head(self.body(x + 0.1 * noise))


class NoisyTrainer(mtopt.MultiLossTrainer):
    """A second module, which is not among the model's, normalises and draws, too."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.outside = nn.BatchNorm1d(2)
        self.draws = torch.Generator().manual_seed(10)
        self.seen = []

    def metrics(self, batch):
        return {"score": self.model(batch[0]).mean() + torch.rand((), generator=self.draws)}

    def losses(self, batch):
        inputs, targets = batch
        left, right = (
            (self.outside(self.model(inputs)) - targets + torch.rand(2, generator=self.draws)).square().mean(0)
        )
        self.seen.append((float(left.detach()), float(right.detach())))
        return {"left": 1 + left, "right": 1 + right}


def trainer_with(rule, *callbacks, **options):
    torch.manual_seed(1), np.random.seed(2), random.seed(3)  # noqa: NPY002
    model = Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # so that the second look sees the same parameters
    return NoisyTrainer(model, optimizer, rule, callbacks=callbacks, **options)


def traces(trainer):
    """All that a forward may leave behind."""
    buffers = [*trainer.model.buffers(), *trainer.outside.buffers()]
    own = [trainer.model.own.get_state(), trainer.draws.get_state(), torch.get_rng_state()]
    states = [trainer.model.numbers.bit_generator.state, trainer.model.plain.getstate(), random.getstate()]
    return [tensor.clone() for tensor in (*buffers, *own)], str([*states, np.random.get_state(legacy=False)])  # noqa: NPY002


def same(first, second):
    assert first[1] == second[1]
    assert all(torch.equal(one, other) for one, other in zip(first[0], second[0], strict=True))


class Looks(Callback):
    """Looks at the losses in every way there is."""

    def on_gradients(self, trainer, batch, record):
        trainer.loss_values(batch)


def batches():
    inputs, targets = data_set().tensors
    return [(inputs[k : k + BATCH], targets[k : k + BATCH]) for k in range(0, 40, BATCH)]


def after_fit(rule, *callbacks, **options):
    trainer = trainer_with(rule, *callbacks, **options)
    data = batches()
    trainer.fit(data, epochs=1)
    return trainer


def own_learning_rate(rule):
    trainer = trainer_with(rule)
    trainer.optimizer.param_groups[0]["lr"] = 1e-9
    trainer.callbacks.append(mtopt.GeN(trainer.optimizer, every=1, startup=0))
    trainer.fit(batches(), epochs=1)
    return trainer


def growing_batch(rule):
    data = type("Batches", (list,), {"batch_size": BATCH})(batches())
    trainer = trainer_with(rule, AdaptiveBatchSize(data, every=1, parts=2, largest=BATCH + 1))
    trainer.fit(data, epochs=1)
    return trainer


@pytest.mark.parametrize(
    "looking",
    [
        lambda: after_fit("famo"),
        lambda: after_fit("linear", Looks()),
        lambda: after_fit("linear", Evaluator(batches(), every=1)),
        lambda: own_learning_rate("linear"),
        lambda: growing_batch("linear"),
        lambda: after_fit("moco_plus"),
        lambda: after_fit("mgda", plan="matrix_free"),
        lambda: after_fit("mgda", plan=mtopt.MatrixFree(product="displacement")),
    ],
    ids=["famo", "values", "evaluation", "gen", "batch size", "revisits", "exact product", "displacement"],
)
def test_a_second_look_leaves_no_trace(looking):
    found = looking()
    now = traces(found)
    plain = after_fit("linear")
    assert int(plain.model.calls) == int(plain.outside.num_batches_tracked) == len(batches())
    same(now, traces(plain))


def test_the_second_look_of_famo_draws_the_numbers_of_the_first():
    trainer = after_fit("famo", accumulate=2)
    # at a rate of zero nothing but the numbers drawn could make a difference
    first, second = trainer.seen[:2], trainer.seen[2:4]
    assert first == second
    assert first[0] != first[1]


def test_a_probe_in_a_loop_of_ones_own_draws_the_same_numbers_at_every_point():
    torch.manual_seed(1)
    model = Noisy()
    inputs, _ = data_set().tensors
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-300)  # all points are one
    gen = mtopt.GeN(optimizer, every=1, startup=0)
    model(inputs).square().mean().backward()
    state = model.own.get_state()
    probe = gen.step(lambda: model(inputs).square().mean())
    assert probe.losses[0] == probe.losses[1] == probe.losses[2]
    assert torch.equal(model.own.get_state(), state)


def test_evaluating_leaves_the_models_buffers():
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(6, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    class Trainer(mtopt.MultiLossTrainer):
        def losses(self, batch):
            left, right = (self.model(batch[0]) - batch[1]).square().mean(0)
            return [left, right]

    model = Counting()
    Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "linear").evaluate(loader())
    assert int(model.calls) == 0


@pytest.mark.parametrize("alone", [False, True])
def test_revisits_of_losses_that_are_returned_as_callables_draw_the_same_numbers(alone):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    x = torch.randn(12, 6)
    drawn = []

    def loss(index):
        noise = torch.rand(())
        drawn.append(float(noise))
        return (model(x)[:, index] - noise).square().mean()

    losses = {"first": lambda: loss(0), "second": lambda: loss(1)}
    rule = mtopt.create_combiner("moco_plus")
    for step in range(1, 3):
        mtopt.backward(losses if alone else lambda: losses, model, rule)
        assert int(model[1].num_batches_tracked) == 2 * step
    assert len(drawn) == 6
    assert drawn[2:4] == drawn[4:]
    after = torch.rand(())
    torch.manual_seed(0)
    nn.Linear(6, 8), nn.Linear(8, 2), torch.randn(12, 6)
    for _ in range(4):
        torch.rand(()), torch.nn.functional.dropout(torch.ones(12, 8))
    assert float(torch.rand(())) == float(after)
