"""Training in sequence: what is remembered, what is counted, and what GEM promises."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import mtopt
from benchmarks.continual import suite
from benchmarks.continual.network import Classifier
from benchmarks.continual.scole import suite as scole
from benchmarks.continual.streams import InTurn, Places, Stream, rotated_digits, single_digits, split_digits
from benchmarks.continual.trainer import ContinualTrainer

TASKS = {task.name: task for task in (*suite.tasks, *scole.tasks)}
ENTRIES = [
    (task, name)
    for each in (suite, scole)
    for task in each.tasks
    for name in (*(contestant.name for contestant in each.contestants), "linear", "ngdiff")
]


def start(stream, rule="linear", *, schedule=None, learning_rate=0.1, memory="together", size=20, **hyperparameters):
    torch.manual_seed(0)
    combiner = mtopt.create_combiner(rule, **hyperparameters)
    return ContinualTrainer(
        Classifier(),
        combiner,
        stream,
        schedule or InTurn(len(stream.names)),
        learning_rate=learning_rate,
        seed=0,
        memory=memory,
        memory_size=size,
    )


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize(("task", "name"), ENTRIES, ids=lambda each: getattr(each, "name", each))
def test_every_contestant_trains_and_is_judged(task, name):
    known = {each.name: each for each in (*suite.contestants, *scole.contestants)}
    options, fixed, rule = {}, {}, name
    if name in known:
        options, fixed, rule = known[name].options, known[name].hyperparameters, known[name].combiner
    trainer = task.trainer(
        mtopt.create_combiner(rule, **fixed), learning_rate=0.1, seed=1, point=0, points=1, **options
    )
    trainer.fit(task.data("train", seed=1), steps=50)
    values = task.values(trainer, "validation")
    assert all(np.isfinite(value) for value in values.values())
    assert min(values["new"], values["old"]) >= 0
    assert max(values["new"], values["old"]) < 1


def test_accuracies_are_those_of_the_model_at_the_end_of_each_stage():
    stream = rotated_digits()
    trainer = start(stream)
    looked = []

    def count():
        images = [images for images, _ in stream.splits["test"]]
        with torch.no_grad():
            said = [trainer.model(part).argmax(1) for part in images]
        return [float((s == y).double().mean()) for s, (_, y) in zip(said, stream.splits["test"], strict=True)]

    class Looks(mtopt.Callback):
        def on_step_end(self, trainer, record):
            if record.step % 12 == 0:
                looked.append(count())

    looked.append(count())
    trainer.callbacks.append(Looks())
    trainer.fit(Places(stream, seed=0, batch_size=32), steps=60)
    assert np.allclose(trainer.matrix("test"), looked)
    assert trainer.matrix("test").shape == (6, 5)


def test_a_sequence_is_judged_at_its_end():
    trainer = start(split_digits())
    with pytest.raises(ValueError, match="judged at its end"):
        trainer.matrix("test")
    with pytest.raises(ValueError, match="steps="):
        trainer.training_step(next(iter(Places(split_digits(), seed=0, batch_size=8))))
    with pytest.raises(ValueError, match="memory must be"):
        start(split_digits(), memory="all")


def test_nothing_is_old_in_the_first_stage_and_then_all_that_was():
    trainer = start(split_digits(), memory="each")
    given = []

    class Looks(mtopt.Callback):
        def on_step_end(self, trainer, record):
            given.append((trainer.stage, trainer.old, [name for name in record.losses if name != "new"]))

    trainer.callbacks.append(Looks())
    trainer.fit(Places(split_digits(), seed=0, batch_size=16), steps=10)
    names = split_digits().names
    for stage, old, losses in given:
        assert old == list(range(stage))
        assert losses == [f"old: {name}" for name in names[:stage]]
    assert [stage for stage, *_ in given] == [k for k in range(5) for _ in range(2)]


def test_what_comes_back_is_not_old_meanwhile():
    trainer = start(single_digits(), schedule=TASKS["scole"].schedule())
    pairs = []

    class Looks(mtopt.Callback):
        def on_step_end(self, trainer, record):
            pairs.append((trainer.current, trainer.old))

    trainer.callbacks.append(Looks())
    trainer.fit(Places(single_digits(), seed=0, batch_size=8), steps=200)
    seen, returned = set(), 0
    for current, old in pairs[::5]:
        assert set(old) == seen - set(current)
        returned += set(current) <= seen
        seen |= set(current)
    assert returned > 10


def test_the_loss_on_the_memory_is_the_mean_over_what_is_remembered():
    stream = split_digits()
    batch = next(iter(Places(stream, seed=0, batch_size=16)))
    together, each = start(stream), start(stream, memory="each")
    for trainer in (together, each):
        trainer.current, trainer.old = (3,), [0, 1, 2]
    one, several = together.losses(batch), each.losses(batch)
    parts = [several[f"old: {name}"] for name in stream.names[:3]]
    assert one["old"].item() == pytest.approx(torch.stack(parts).mean().item())
    assert several[f"old: {stream.names[3]}"] is several[f"old: {stream.names[4]}"] is None
    # by hand, with the logits of the two classes alone
    images, labels = (part[together.remembered[1]] for part in stream.splits["train"][1])
    by_hand = cross_entropy(together.model(images)[:, 2:4], labels - 2)
    assert parts[1].item() == pytest.approx(by_hand.item())
    assert len(set(together.remembered[1].tolist())) == 20


def test_gem_is_plain_training_where_nothing_conflicts():
    # both parts are the same images, all of which are remembered and all of which are in a batch: the gradient of the
    # memory is that of the new loss
    images, labels = (part[:40] for part in rotated_digits().splits["train"][0])
    part = (images, labels)
    same = Stream(("first", "again"), dict.fromkeys(("train", "validation", "test"), (part, part)))
    ends = []
    for rule, memory, options in (
        ("gem", "each", {}),
        ("gem", "together", {"margin": 0.5}),
        ("linear", "none", {"preference": (1.0, 0.0)}),
    ):
        trainer = start(same, rule, memory=memory, size=40, **options)
        trainer.fit(Places(same, seed=0, batch_size=40), steps=40)
        ends.append(parameters(trainer))
    assert torch.allclose(ends[0], ends[2], atol=1e-6)
    assert torch.allclose(ends[1], ends[2], atol=1e-6)


def test_gem_never_steps_against_a_memory_where_plain_training_does():
    stream = rotated_digits()
    products = {}

    class Looks(mtopt.Callback):
        def __init__(self, name):
            self.products = products.setdefault(name, [])

        def on_gradients(self, trainer, batch, record):
            direction = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).clone()
            for part in trainer.old:
                loss = trainer.loss([part], [trainer.remembered[part]])
                own = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(trainer.model.parameters()))])
                self.products.append(float(torch.cosine_similarity(direction, own, 0)))

    for name, rule, memory, options in (
        ("GEM", "gem", "each", {}),
        ("plain", "linear", "none", {"preference": (1.0, 0.0)}),
    ):
        trainer = start(stream, rule, memory=memory, **options)
        trainer.callbacks.append(Looks(name))
        trainer.fit(Places(stream, seed=0, batch_size=32), steps=60)
    assert min(products["GEM"]) > -1e-5
    assert min(products["plain"]) < -0.1


def test_memory_keeps_what_fine_tuning_forgets():
    task = TASKS["rotated_digits"]
    kept = {}
    for name, options, preference in (("plain", {"memory": "none"}, (1.0, 0.0)), ("replay", {}, (0.5, 0.5))):
        rule = mtopt.create_combiner("linear", preference=preference)
        trainer = task.trainer(rule, learning_rate=0.3, seed=0, point=0, points=1, **options)
        trainer.fit(task.data("train", seed=0), steps=250)
        kept[name] = task.values(trainer, "test")
    assert kept["plain"]["backward transfer"] < kept["replay"]["backward transfer"] - 0.1
    assert kept["plain"]["average accuracy"] < kept["replay"]["average accuracy"] - 0.1


def test_scole_fine_tuning_learns_though_it_forgets():
    # what the authors report of plain SGD: over a long sequence with tasks that come back, the accuracy on all rises
    task = TASKS["scole"]
    rule = mtopt.create_combiner("linear", preference=(1.0, 0.0))
    trainer = task.trainer(rule, learning_rate=0.1, seed=0, point=0, points=1, memory="none")
    trainer.fit(task.data("train", seed=0), steps=500)
    assert task.values(trainer, "test")["knowledge accumulation"] > 0.2
