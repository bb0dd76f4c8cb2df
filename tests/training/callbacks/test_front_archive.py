"""The archive of non-dominated models, against all that was evaluated."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mtopt
from mtopt.training import Evaluator, FrontArchive
from mtopt.training.callbacks._front_archive import _most_crowded
from tests.training.support import Point, interrupted, loader, point, two_losses


def test_it_holds_the_front_of_all_that_was_evaluated(tmp_path):
    archive = FrontArchive("validation", ["left", mtopt.Objective("right", "max")], path=tmp_path)
    trainer = two_losses("pcgrad", callbacks=[Evaluator(loader(), every=1), archive])
    trainer.fit(loader(), steps=25)
    steps, values = trainer.history.evaluations("validation")
    everything = torch.stack([torch.tensor(values["left"]), -torch.tensor(values["right"])], 1)
    front = mtopt.pareto.is_nondominated(everything)
    assert 1 < front.sum() < 25
    assert [kept.step for kept in archive.kept] == steps[front.numpy()].tolist()
    assert torch.equal(archive.points(), everything[front])
    assert sorted(tmp_path.iterdir()) == sorted(kept.path for kept in archive.kept)
    for kept in (archive.kept[0], archive.kept[-1]):
        archive.load(kept, trainer.model)
        assert kept.values == pytest.approx(trainer.evaluate(loader()), rel=1e-4)  # in another order of examples


def test_a_resumed_run_comes_to_the_same_archive(tmp_path):
    def build(directory):
        archive = FrontArchive("validation", ["left", "right"], path=directory, capacity=3)
        return two_losses("mgda", callbacks=[Evaluator(loader(), every=1), archive])

    whole = build(tmp_path / "a")
    whole.fit(loader(), steps=20)
    resumed = interrupted(lambda: build(tmp_path / "b"), loader, tmp_path / "run", [4, 11], steps=20)
    assert whole.callbacks[1].state_dict() == resumed.callbacks[1].state_dict()
    assert 0 < len(list((tmp_path / "b").iterdir())) == len(whole.callbacks[1].kept) <= 3


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=3, max_size=12, unique=True))
def test_what_goes_when_it_is_full(rows):
    """Never the best of an objective; and no other that is further from its nearest neighbour stays in its place."""
    points = torch.tensor(rows, dtype=torch.float64)
    extent = points.amax(0) - points.amin(0)
    scaled = points / torch.where(extent > 0, extent, 1.0)
    nearest = [min(float((a - b).norm()) for j, b in enumerate(scaled) if j != i) for i, a in enumerate(scaled)]
    gone = _most_crowded(points)
    best = set(points.argmin(0).tolist())
    assert gone not in best
    assert nearest[gone] <= min(nearest[k] for k in range(len(points)) if k not in best) + 1e-12


def test_a_value_that_is_not_finite_is_on_no_front(tmp_path):
    archive = FrontArchive("test", ["a", "b"], path=tmp_path)
    trainer = point(callbacks=[archive])
    for step, values in enumerate([(1.0, 1.0), (float("nan"), 0.0), (0.0, float("inf")), (2.0, 2.0), (0.0, 2.0)]):
        trainer.step = step
        archive.on_evaluate(trainer, "test", dict(zip("ab", values, strict=True)))
        archive.on_evaluate(trainer, "train", {"c": 0.0})
    assert [kept.step for kept in archive.kept] == [0, 4]
    archive.on_evaluate(trainer, "test", {"a": 3.0, "b": 3.0})  # once more after the same step: the old one goes
    assert [kept.step for kept in archive.kept] == [0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"objectives": "left"}, ValueError, "two or more names or Objective, found 'left'"),
        ({"objectives": ["left"]}, ValueError, "two or more names"),
        ({"objectives": ["a", "b", "c"], "capacity": 2}, ValueError, "capacity must be at least 3"),
        ({"objectives": ["a", "b"], "capacity": 0}, ValueError, "capacity must be a positive int or None, found 0"),
    ],
)
def test_wrong_arguments(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        FrontArchive("validation", path=tmp_path, **arguments)


def test_an_evaluation_without_the_objective(tmp_path):
    archive = FrontArchive("validation", ["left", "rihgt"], path=tmp_path)
    with pytest.raises(mtopt.UnknownNameError, match="unknown metric 'rihgt': did you mean 'right'"):
        two_losses(callbacks=[Evaluator(loader(), every=1), archive]).fit(loader(), steps=1)


def test_crowding_by_hand():
    line = torch.tensor([[0.0, 1.0], [0.1, 0.9], [0.15, 0.85], [0.6, 0.4], [1.0, 0.0]])
    order = []
    while len(line) > 2:
        gone = _most_crowded(line)
        order.append(round(float(line[gone, 0]), 2))
        line = torch.cat([line[:gone], line[gone + 1 :]])
    # 0.1 and 0.15 are nearest to each other, and 0.1 is nearer to its next neighbour
    assert order == [0.1, 0.15, 0.6]
    assert list(itertools.chain(*line.tolist())) == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["/home/victim/thesis.tex", "../thesis.tex", "..", "thesis.tex"])
def test_a_foreign_state_reaches_no_file_of_its_choice(name, tmp_path):
    """Not to delete it when the model drops out, and not to read it: files are found by the step alone."""
    victim = tmp_path / "thesis.tex"
    victim.write_text("mine")
    archive = FrontArchive("test", ["a", "b"], path=tmp_path / "front")
    file = name.replace("/home/victim", str(tmp_path))
    archive.load_state_dict({"kept": [{"step": 3, "values": {"a": 1.0, "b": 1.0}, "file": file}]})
    (kept,) = archive.kept
    assert kept.path == tmp_path / "front" / "front-0000000003.pt"
    trainer = point(callbacks=[archive])
    trainer.step = 4
    with pytest.raises(FileNotFoundError):
        archive.load(kept, trainer.model)
    archive.on_evaluate(trainer, "test", {"a": 0.0, "b": 0.0})
    assert [kept.step for kept in archive.kept] == [4]
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "one",
    [
        {"step": "../3", "values": {"a": 1.0, "b": 1.0}},
        {"step": -1, "values": {"a": 1.0, "b": 1.0}},
        {"step": True, "values": {"a": 1.0, "b": 1.0}},
        {"step": 3, "values": {"a": 1.0}},
        {"step": 3, "values": {"a": 1.0, "b": "x"}},
    ],
)
def test_a_state_of_other_objectives_is_refused(one, tmp_path):
    archive = FrontArchive("test", ["a", "b"], path=tmp_path)
    with pytest.raises(mtopt.CheckpointError, match=r"a step and numbers for \['a', 'b'\]"):
        archive.load_state_dict({"kept": [one]})


def test_an_archive_is_a_front_to_choose_from(tmp_path):
    archive = mtopt.training.FrontArchive("seen", ["loss_0", mtopt.Objective("loss_1", "max")], path=tmp_path)
    trainer = point("linear", callbacks=[mtopt.Evaluator(None, split="seen", every=1), archive])
    trainer.fit(steps=5)
    front = archive.front()
    assert torch.equal(front.points, archive.points())
    chosen = front.choose(preference=[1, 0])
    assert front.points[chosen, 0] == front.points[:, 0].min()
    model = front.load(chosen, Point())
    assert float((model.x.detach() - torch.tensor([1.0, 0.0])).square().sum()) == pytest.approx(
        archive.kept[chosen].values["loss_0"], rel=1e-6
    )
