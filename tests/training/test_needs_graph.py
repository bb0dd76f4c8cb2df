"""Losses that differentiate inside, wherever they are run for their values alone."""

import pytest
import torch

import mtopt
from tests.training.physics import Field, physics_losses, points


class Physics(mtopt.MultiLossTrainer):
    def losses(self, batch):
        return physics_losses(self.model, points() if batch is None else batch)


class KnowsItself(Physics):
    needs_graph = True


def trainer_of(combiner="linear", kind=Physics, gen=None, **options):
    model = Field()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    callbacks = [] if gen is None else [mtopt.GeN(optimizer, **gen)]
    return kind(model, optimizer, combiner, callbacks=callbacks, **options)


def by_hand(trainer):
    return {name: float(loss.detach()) for name, loss in physics_losses(trainer.model, points()).items()}


def test_evaluation_and_values_are_those_with_a_graph():
    trainer = trainer_of(needs_graph=True)
    trainer.callbacks.append(mtopt.Evaluator(None, every=1))
    trainer.fit(steps=2)
    values = trainer.loss_values(None)
    assert {objective.name: value for objective, value in values.items()} == pytest.approx(by_hand(trainer))
    trainer.model.eval()
    expected = by_hand(trainer)
    trainer.model.train()
    assert trainer.evaluate() == pytest.approx(expected)
    assert trainer.model.training
    assert trainer.history.evaluations("validation")[0].tolist() == [1, 2]
    assert torch.is_grad_enabled()
    trainer.metrics = lambda batch: {"slope": physics_losses(trainer.model, points())["start"]}  # a tensor with a graph
    assert trainer.evaluate() == {"slope": pytest.approx(expected["start"])}


@pytest.mark.parametrize(
    ("combiner", "options"),
    [
        ("famo", {}),
        ("linear", {"gen": {"every": 1}}),
        ("linear", {"gen": {"every": 1, "objective": "residual"}, "accumulate": 2}),
        ("mgda", {"plan": "matrix_free"}),
        ("mgda", {"plan": mtopt.MatrixFree("displacement")}),
        ("modo", {"plan": "matrix_free"}),
        ("moco_plus", {}),
    ],
    ids=["famo", "gen", "gen, accumulated", "matrix-free", "displaced", "draws", "revisits"],
)
@pytest.mark.parametrize("way", ["argument", "class", "attribute"])
def test_what_runs_the_losses_again_runs_them_with_a_graph(combiner, options, way):
    kind = KnowsItself if way == "class" else Physics
    trainer = trainer_of(combiner, kind, **options, **({"needs_graph": True} if way == "argument" else {}))
    if way == "attribute":
        trainer.needs_graph = True
    history = trainer.fit([points()] * 6, steps=2)
    assert history.skipped == 0
    assert all(len(record.probe.losses) == 3 for record in history if "gen" in options)


@pytest.mark.parametrize(
    ("combiner", "options", "whom"),
    [
        ("famo", {}, "the trainer"),
        ("linear", {"gen": {"every": 1}}, "the trainer"),
        ("mgda", {"plan": "matrix_free"}, "mtopt.MatrixFree"),
        ("mgda", {"plan": mtopt.MatrixFree("displacement")}, "mtopt.MatrixFree"),
        ("modo", {"plan": "matrix_free"}, "mtopt.MatrixFree"),
    ],
    ids=["famo", "gen", "matrix-free", "displaced", "draws"],
)
def test_what_would_run_them_without_one_says_what_to_do(combiner, options, whom):
    with pytest.raises(RuntimeError, match=f"the losses differentiate inside, .* give needs_graph=True to {whom}"):
        trainer_of(combiner, **options).fit([points()] * 6, steps=2)


@pytest.mark.parametrize("look", ["evaluate", "loss_values"])
def test_evaluation_without_one_says_what_to_do(look):
    trainer = trainer_of()
    with pytest.raises(RuntimeError, match=r"needs_graph=True to the trainer, or open torch\.enable_grad"):
        getattr(trainer, look)(None)
    assert trainer.model.training
    assert torch.is_grad_enabled()


def test_another_error_is_left_as_it_is():
    class Broken(Physics):
        def metrics(self, batch):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        trainer_of(kind=Broken).evaluate()


def test_a_probe_in_a_loop_of_ones_own_measures_what_a_graph_gives():
    model = Field().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def closure():
        return physics_losses(model, points().double())["residual"]

    closure().backward()
    with pytest.raises(RuntimeError, match=r"give needs_graph=True to mtopt\.GeN"):
        mtopt.GeN(optimizer, startup=0).step(closure)
    value = float(closure().detach())
    probe = mtopt.GeN(optimizer, startup=0, needs_graph=True).step(closure)
    assert probe.losses[1] == pytest.approx(value, rel=1e-12)
    assert probe.slope == pytest.approx(1e-6 * sum(float(p.grad.square().sum()) for p in model.parameters()), rel=1e-3)
