"""GeN in the trainer: the record, the history, resuming, ranks; and the whole of NGDiff."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt.autograd import Probe
from mtopt.training import GeN, History, MultiLossTrainer
from tests.training.support import Point, PointTrainer, adam, data_set, fingerprint, loader, point, sgd, two_losses

LR = torch.optim.lr_scheduler


def with_gen(make_optimizer=sgd, combiner="ngdiff", held_out=True, **options):
    trainer = two_losses(combiner, make_optimizer=make_optimizer, schedule=False)
    batches = [data_set(9)[:20], data_set(9)[20:]] if held_out else None
    schedule = LR.LambdaLR(trainer.optimizer, lambda step: min(1.0, (step + 1) / 4))
    options = {"every": 3, "startup": 2, "batches": batches, "schedule": schedule, **options}
    trainer.callbacks.append(GeN(trainer.optimizer, **options))
    return trainer


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
@pytest.mark.parametrize("stops", [[1, 4], [9, 10]])
def test_resuming_ends_the_same_bit_for_bit(make_optimizer, stops, tmp_path):
    """With momentum or Adam, a warm-up, dropout, batch norm, a shuffling loader, in and after the start-up phase."""
    whole = with_gen(make_optimizer)
    whole.fit(loader(), steps=16)
    for stop in [*stops, 16]:
        random.random(), np.random.rand(), torch.rand(stop)  # noqa: NPY002
        resumed = with_gen(make_optimizer)
        resumed.fit(loader(), steps=stop, checkpoint_dir=tmp_path, checkpoint_every=1000)
    assert fingerprint(resumed) == fingerprint(whole)
    assert resumed.callbacks[0].state_dict() == whole.callbacks[0].state_dict()
    assert [record.probe for record in resumed.history] == [record.probe for record in whole.history]
    assert resumed.history.learning_rates.tolist() == whole.history.learning_rates.tolist()


def test_records_hold_the_rate_taken_and_what_the_probe_found():
    trainer = with_gen(points=(-1.0, 0.0, 1.0, 2.0), fit=0.9, every=4, startup=1)
    seen = []

    class Watching(mtopt.Callback):
        def on_step_end(self, trainer, record):
            seen.append((record.learning_rate, record.probe, trainer.optimizer.param_groups[0]["lr"]))

    trainer.callbacks.append(Watching())
    history = trainer.fit(loader(), steps=30)
    assert [rate for rate, _, _ in seen] == [rate for _, _, rate in seen] == history.learning_rates.tolist()
    probes = [probe for _, probe, _ in seen]
    assert probes[0].searching
    assert any(probe is None for probe in probes)
    for step, (probe, record) in enumerate(zip(probes, history, strict=True)):
        assert record.probe == probe
        if probe is not None and step >= 4:
            assert len(probe.losses) == 4
            assert record.learning_rate == pytest.approx(probe.rate)  # the warm-up is over
    loaded = History()
    loaded.load_state_dict(history.state_dict())
    assert [record.probe for record in loaded] == probes
    assert np.isnan(history.probes["rate"]).tolist() == [probe is None for probe in probes]


def test_a_probe_survives_as_numbers():
    points = (-1.0, 0.0, 1.0)
    for probe in [
        Probe(points, (3.0, 1.0, 2.0), 1.0, 2.0, 0.5, "poor fit", None, 0.1, 0.1, 3, True),
        Probe(points, (), math.nan, math.nan, math.nan, "no loss", None, 0.1, 0.2),
        Probe(points, (math.nan, 1.0, math.nan), math.nan, math.nan, math.nan, "not finite", None, 0.1, 0.05),
        Probe(points, (3.0, 1.0, 2.0), 1.0, 2.0, 1.0, "accepted", 0.3, 0.1, 0.2),
    ]:
        numbers = {name: value for name, value in probe.numbers().items() if not math.isnan(value)}
        assert repr(Probe.from_numbers(numbers)) == repr(probe)
        assert probe.accepted == (probe.optimum is not None)


def test_a_trainer_that_is_probed_by_gates_that_refuse_ends_as_one_that_is_not():
    """Probes on the step's own batch and on others draw no random number and touch no running mean."""
    plain = two_losses("mgda", schedule=False)
    plain.fit(loader(), steps=9)
    for held_out in (False, True):
        probed = two_losses("mgda", schedule=False)
        batches = [data_set(9)[:20]] if held_out else None
        gen = GeN(
            probed.optimizer, every=1, startup=0, batches=batches, points=(0.0, 1.0, 2.0, 90.0, 1e4), fit=1 - 1e-15
        )
        probed.callbacks.append(gen)
        probed.fit(loader(), steps=9)
        assert not any(record.probe.accepted for record in probed.history)
        assert fingerprint(probed) == fingerprint(plain)


def test_accumulated_batches_and_skipped_steps():
    class Poisoned(type(two_losses())):
        def losses(self, batch):
            losses = super().losses(batch)
            return {name: loss * (float("nan") if self.step == 2 else 1.0) for name, loss in losses.items()}

    model = two_losses().model
    optimizer = sgd(model.parameters())
    trainer = Poisoned(model, optimizer, "ngdiff", callbacks=[GeN(optimizer, every=1)], accumulate=2)
    trainer.fit(loader(), steps=5)
    probes = [record.probe for record in trainer.history]
    assert [probe is None for probe in probes] == [False, False, True, False, False]
    assert trainer.history.skipped == 1


def test_another_optimizer_and_a_second_scheduler_are_refused():
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"scheduler is a callback; give callbacks=\[GeN"):
        PointTrainer(model, optimizer, "mgda", scheduler=GeN(optimizer))
    trainer = point()
    trainer.callbacks.append(GeN(torch.optim.SGD(trainer.model.parameters(), lr=0.1)))
    with pytest.raises(ValueError, match="made for another optimizer than the trainer's"):
        trainer.fit(steps=1)
    trainer = two_losses("mgda")  # has a cosine schedule
    trainer.callbacks.append(GeN(trainer.optimizer))
    with pytest.raises(ValueError, match="something else changes them; give a scheduler to GeN"):
        trainer.fit(loader(), steps=3)


class Unlearning(MultiLossTrainer):
    """A classifier that forgets the labels of one half of the data; losses on batches of their own."""

    ran: tuple[str, ...] = ()

    def losses(self, batch):
        (kept, kept_labels), (gone, gone_labels) = batch

        def retain():
            self.ran += ("retain",)
            return nn.functional.cross_entropy(self.model(kept), kept_labels)

        def forget():
            self.ran += ("forget",)
            return nn.functional.cross_entropy(self.model(gone), gone_labels)

        return {mtopt.Objective("retain"): retain, mtopt.Objective("forget", sense="max"): forget}


def test_ngdiff_with_gen_from_end_to_end():
    """From first rates over four decades: the forget loss rises, the retain loss stays, and all runs end alike."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(80, 10, generator=generator)
    labels = (inputs[:, :2] > 0).long() @ torch.tensor([1, 2])
    batch = [(inputs[:40], labels[:40]), (inputs[40:], labels[40:])]
    ends = []
    for first in (1e-5, 1e-3, 1e-1):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 4))
        fitting = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            fitting.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            fitting.step()
        optimizer = torch.optim.SGD(model.parameters(), lr=first)
        gen = GeN(optimizer, objective="retain")
        trainer = Unlearning(model, optimizer, "ngdiff", callbacks=[gen])
        before = trainer.evaluate([batch])
        trainer.fit([batch], steps=60)
        after = trainer.evaluate([batch])
        assert after["retain"] <= before["retain"]
        assert after["forget"] > 2 * before["forget"]
        ends.append(list(after.values()))
        probes = sum(record.probe.count for record in trainer.history if record.probe is not None)
        # the forget loss is run for its gradients and the two evaluations only
        assert trainer.ran.count("forget") == 60 + 2
        assert trainer.ran.count("retain") == 60 + 2 + 3 * probes
    np.testing.assert_allclose(ends, [ends[0]] * 3, rtol=0.05)


# -- ranks --------------------------------------------------------------------------------------------------------


def on_a_rank(rank, folder, results):
    """Two ranks with different data under DDP; one of them lacks the loss now and then."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    gen = GeN(optimizer, every=2, startup=2)
    data = both_halves()[rank]
    rates = []
    for step in range(9):
        optimizer.zero_grad()
        (model(data) - 1).square().mean().backward()
        absent = step == 6 and rank == 1
        probe = gen.step(lambda absent=absent: {"a": None if absent else (model(data) - 1).square().mean()})
        optimizer.step()
        rates.append((gen.get_last_lr()[0], probe is not None and probe.verdict))
    results.put((rank, rates))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def both_halves():
    return torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_every_rank_gets_the_rate_of_one_process_on_all_the_data(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=on_a_rank, args=(rank, str(tmp_path), results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=240) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found[0] == found[1]

    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    gen = GeN(optimizer, every=2, startup=2)
    whole = both_halves()
    for step in range(6):  # up to where one rank lacked the loss
        optimizer.zero_grad()
        (model(whole) - 1).square().mean().backward()
        gen.step(lambda: (model(whole) - 1).square().mean())
        optimizer.step()
        assert found[0][step][0] == pytest.approx(gen.get_last_lr()[0], rel=1e-9)
    assert any(verdict == "accepted" for _, verdict in found[0])
