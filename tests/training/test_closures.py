"""Optimizers whose step computes the loss itself: for rules on losses it is run, others are refused by name."""

import math

import pytest
import torch
from torch import nn

import mtopt
from mtopt.training import SVGDTrainer, read_checkpoint
from tests.training.support import BATCH, Point, PointTrainer, TwoHeads, TwoLosses, data_set, loader

LBFGS = torch.optim.LBFGS


def lbfgs(model, **options):
    return LBFGS(model.parameters(), **{"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe", **options})


def two_heads(combiner="linear", seed=5, dropout=0.0, **options):
    torch.manual_seed(1)
    model = TwoHeads(dropout)
    return TwoLosses(model, lbfgs(model), combiner, seed=seed, **options)


def batches():
    inputs, targets = data_set().tensors
    return [(inputs[k : k + BATCH], targets[k : k + BATCH]) for k in range(0, 40, BATCH)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_weighted_sum_is_minimised_as_torch_does(accumulate):
    weights = [0.3, 0.7]
    trainer = two_heads(mtopt.create_combiner("linear", preference=weights), accumulate=accumulate)
    history = trainer.fit(batches()[:4], epochs=1)

    expected = two_heads()
    optimizer = expected.optimizer
    data = batches()
    for chosen in (data[k : k + accumulate] for k in range(0, 4, accumulate)):

        def closure(chosen=chosen):
            optimizer.zero_grad()
            norm = expected.model.trunk[1]
            running = [buffer.clone() for buffer in norm.buffers()]
            losses = [list(expected.losses(batch).values()) for batch in chosen]
            total = sum(w * loss / accumulate for each in losses for w, loss in zip(weights, each, strict=True))
            total.backward()
            for buffer, value in zip(norm.buffers(), running, strict=True):
                buffer.copy_(value)
            return total

        optimizer.step(closure)
    for name, param in trainer.model.named_parameters():
        torch.testing.assert_close(param, expected.model.get_parameter(name), rtol=1e-3, atol=1e-4)
    assert history.skipped == 0
    assert int(trainer.model.trunk[1].num_batches_tracked) == 4  # once a batch, however often its losses are run


def test_a_quadratic_is_solved_in_a_step():
    """The weighted sum of squared distances is least at the weighted mean, for the weights of the step's start."""
    model = Point()
    rule = mtopt.create_combiner("si")  # 1 / loss, normalised or not
    trainer = PointTrainer(model, lbfgs(model, lr=1.0, max_iter=50), rule)
    (record,) = trainer.fit(steps=1)
    w = torch.tensor(list(record.weights.values()))
    assert w[0] != w[1]
    torch.testing.assert_close(model.x.detach(), w / w.sum(), rtol=1e-5, atol=1e-6)
    assert record.backwards > 1


def test_the_sense_of_objectives_is_kept():
    class Gain(PointTrainer):
        def losses(self, batch):
            first, second = super().losses(batch)
            return {"cost": first, mtopt.Objective("gain", "max"): -second, "absent": None}

    model = Point()
    trainer = Gain(model, lbfgs(model, lr=1.0, max_iter=50), "linear")
    trainer.fit(steps=1)
    torch.testing.assert_close(model.x.detach(), torch.tensor([0.5, 0.5]), rtol=1e-5, atol=1e-6)


def test_every_closure_draws_the_same_numbers_and_the_run_resumes(tmp_path):
    drawn = []

    class Drawing(TwoLosses):
        def losses(self, batch):
            drawn.append(float(torch.rand(())))
            return super().losses(batch)

    def build():
        base = two_heads("dwa", dropout=0.3)
        return Drawing(base.model, base.optimizer, base.combiner, seed=5)

    whole, cut = build(), build()
    whole.fit(loader(), steps=7)
    assert len(set(drawn)) == 7 < len(drawn)
    cut.fit(loader(), steps=3, checkpoint_dir=tmp_path)
    resumed = build()
    resumed.fit(loader(), steps=7, checkpoint_dir=tmp_path)
    assert [p.tolist() for p in resumed.model.parameters()] == [p.tolist() for p in whole.model.parameters()]
    assert read_checkpoint(sorted(tmp_path.glob("*.pt"))[-1])["step"] == 7


class Falling(mtopt.MultiLossTrainer):
    """Finite at the start, and infinite wherever a step leads."""

    def losses(self, batch):
        x = self.model.x
        far = (x - torch.tensor([2.0, 3.0])).norm() > 0
        return [x.square().sum() * (math.nan if far else 1.0), x.sum()]


@pytest.mark.parametrize("rule", ["linear", "dwa"])
def test_a_step_to_parameters_that_are_not_finite_is_skipped_and_changes_nothing(rule):
    model = Point()
    trainer = Falling(model, LBFGS(model.parameters(), lr=0.1), rule)
    before = str(trainer.combiner.state_dict())
    history = trainer.fit(steps=2)
    assert history.skipped == 2
    assert history[-1].reason == "LBFGS left non-finite parameters"
    assert history[-1].weights is None
    assert model.x.tolist() == [2.0, 3.0]
    assert not trainer.optimizer.state
    assert str(trainer.combiner.state_dict()) == before
    with pytest.raises(mtopt.NonFiniteError, match="LBFGS left non-finite parameters; lower its rate"):
        Falling(model, LBFGS(model.parameters(), lr=0.1), rule, strict=True).fit(steps=1)


def test_famo_looks_again_after_the_step():
    model = Point()
    trainer = PointTrainer(model, lbfgs(model), "famo")
    trainer.fit(steps=2)
    assert bool((trainer.combiner.state_dict()["state"]["_learned"]["values"] != 0).any())


class NeedsIt(torch.optim.SGD):
    """Another one that cannot do without."""

    def step(self, closure):
        closure()
        return super().step()


@pytest.mark.parametrize(
    ("combiner", "options", "message"),
    [
        ("mgda", {}, r"whose step computes the loss several times, and MGDA\(.* combines gradients"),
        ("moco", {}, "take a rule on losses, one of mtopt.list_combiners"),
        ("linear", {"private": "own"}, "leave private='own' out"),
        ("linear", {"clip_norm": 1.0}, "leave clip_norm and autocast=torch.float16 out"),
        ("linear", {"autocast": torch.float16}, "leave clip_norm and autocast=torch.float16 out"),
    ],
)
@pytest.mark.parametrize("kind", [LBFGS, NeedsIt])
def test_what_cannot_be_is_refused_by_name(combiner, options, message, kind):
    model = Point()
    with pytest.raises(ValueError, match=f"optimizer is {kind.__name__}, .*{message}"):
        PointTrainer(model, kind(model.parameters(), lr=0.1), combiner, **options)


def test_gen_and_sets_of_models_refuse_it_too():
    model = Point()
    with pytest.raises(TypeError, match="optimizer is NeedsIt, which searches its own steps"):
        mtopt.GeN(NeedsIt(model.parameters(), lr=0.1))

    class Set(SVGDTrainer):
        def member_losses(self, member, batch):
            return [member.x.sum(), member.x.square().sum()]

    models = nn.ModuleList([Point(), Point()])
    with pytest.raises(ValueError, match="optimizer is LBFGS"):
        Set(models, LBFGS(models.parameters()))
