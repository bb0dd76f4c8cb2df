"""Choosing from a front, against closed forms; keeping it, and the models of its points."""

import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import mtopt
from mtopt.pareto import (
    Front,
    achievement,
    bulges,
    das_dennis,
    hypervolume_contributions,
    pseudo_weights,
    suggest_reference,
    trace_front,
    tradeoffs,
    uniform_preferences,
)

KINK = torch.tensor([[0.0, 1.0], [0.1, 0.6], [0.2, 0.2], [0.6, 0.1], [1.0, 0.0]], dtype=torch.float64)


def hyperbola(count: int = 101) -> torch.Tensor:
    """x y = 1, from x = 0.1 to 10: symmetric, and nearest to the ideal point at (1, 1)."""
    x = torch.logspace(-1, 1, count, dtype=torch.float64)
    return torch.stack([x, 1 / x], 1)


def line(count: int, scale: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
    x = torch.linspace(0, 1, count, dtype=torch.float64)
    return torch.stack([x, 1 - x], 1) * torch.tensor(scale, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e8])
def test_the_knee_of_a_hyperbola_is_its_middle(scale):
    points = hyperbola() * torch.tensor([1.0, scale], dtype=torch.float64)
    assert Front(None, points).knee() == 50
    assert Front(None, points).knee("tradeoff") == 50


def test_the_bulge_is_the_distance_from_the_line_between_the_ends():
    np.testing.assert_allclose(bulges(KINK), [0, 0.3 / 2**0.5, 0.6 / 2**0.5, 0.3 / 2**0.5, 0], atol=1e-12)
    np.testing.assert_allclose(bulges(line(7)), 0.0, atol=1e-12)


def test_the_bulge_in_three_objectives_is_the_distance_from_the_plane_through_the_ends():
    points = torch.cat([torch.eye(3, dtype=torch.float64), torch.tensor([[0.2, 0.2, 0.2], [0.5, 0.4, 0.3]])])
    np.testing.assert_allclose(bulges(points), [0, 0, 0, 0.4 / 3**0.5, -0.2 / 3**0.5], atol=1e-12)


def test_the_tradeoff_of_a_kink_is_its_slope():
    # from the kink: to (0, 1) 0.8 is lost for 0.2; the same to (1, 0), and to the points on the way
    found = tradeoffs(KINK)
    assert float(found[2]) == pytest.approx(4.0)
    assert int(found.argmax()) == Front(None, KINK).knee("tradeoff") == 2
    # from an end, to the kink 0.8 is gained for 0.2
    assert float(found[0]) == pytest.approx(0.25)


def test_pseudo_weights_of_a_line_are_the_points_mirrored():
    points = line(5, (3.0, 1e4))
    np.testing.assert_allclose(pseudo_weights(points), (1 - line(5)) / (1 - line(5)).sum(1, keepdim=True), atol=1e-12)
    front = Front(None, points)
    assert [front.choose(preference=p) for p in ([1, 0], [3, 1], [0.5, 0.5], [0, 1])] == [0, 1, 2, 4]


def test_achievement_of_a_line_is_solved_by_hand():
    points = line(1001)
    # max(x - a, 1 - x - b) is least where both are equal
    for wish in ([0.2, 0.4], [0.5, 0.9], [0.0, 0.0], [-1.0, 0.0]):
        x = min(max((1 - wish[1] + wish[0]) / 2, 0.0), 1.0)
        best = Front(None, points).choose(aspiration=wish)
        assert float(points[best, 0]) == pytest.approx(x, abs=1e-3)
    np.testing.assert_allclose(achievement([[3.0, 1.0]], [1.0, 1.0], [2.0, 1.0]), [1 + 1e-6], rtol=1e-12)


def test_bounds_are_the_epsilon_constraint():
    front = Front(None, line(11), names=("error", "unfairness"))
    assert front.choose(bounds={"unfairness": 0.35}) == 7  # (0.7, 0.3): the least error within
    assert front.choose(bounds=[0.45, None]) == 4
    assert front.choose(bounds=[0.45, 0.75], preference=[1, 0]) == 3
    assert front.choose(bounds=[0.45, None], aspiration=[0.9, 0.1]) == 4
    assert front.choose(bounds=[0.8, 0.8]) == 5  # balanced
    with pytest.raises(ValueError, match=r"no point is within the bounds \[0.1, 0.1\].*over by 0.4"):
        front.choose(bounds=[0.1, 0.1])
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'unfairness'"):
        front.choose(bounds={"unfairnes": 1.0})


def test_dominated_and_diverged_points_are_never_chosen():
    bad = torch.tensor([[0.05, 2.0], [float("nan"), 0.0], [0.3, 0.3], [-1.0, float("inf")]], dtype=torch.float64)
    front = Front(None, torch.cat([bad, KINK]))
    assert front.knee() == 4 + 2
    assert front.choose(preference=[1, 0]) == 4
    assert front.choose(bounds=[None, 5.0]) == 4
    with pytest.raises(ValueError, match="no finite point to choose, found 1 that diverged"):
        Front(None, bad[1:2]).knee()


def test_one_point_is_what_every_way_chooses():
    front = Front(None, torch.tensor([[3.0, 4.0]]))
    assert front.knee() == front.knee("tradeoff") == front.choose(preference=[1, 1]) == 0
    assert front.choose(aspiration=[9, 9]) == front.choose(bounds=[3, 4]) == 0


@pytest.mark.parametrize("count", [2, 3, 10, 25])
def test_from_the_suggested_reference_all_points_of_a_line_count_alike(count):
    points = line(count, (2.0, 500.0))
    contributions = hypervolume_contributions(points, suggest_reference(points))
    np.testing.assert_allclose(contributions, contributions[0], rtol=1e-9)


def test_the_suggested_reference_follows_its_rule():
    np.testing.assert_allclose(suggest_reference(das_dennis(3, 5)), 1 + 1 / 5, rtol=1e-12)
    np.testing.assert_allclose(suggest_reference([[1.0, 5.0]]), [1.1, 5.5])
    np.testing.assert_allclose(suggest_reference([[0.0, 1.0], [1.0, 0.0], [9.0, 9.0]]), [2.0, 2.0])  # dominated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a preference, bounds or an aspiration"),
        ({"preference": [1, 0], "aspiration": [0, 0]}, "found both"),
        ({"preference": [-1, 2]}, "non-negative and not zero"),
        ({"bounds": [1.0]}, "2 numbers or None"),
        ({"aspiration": [1.0]}, "aspiration must have shape"),
    ],
)
def test_wrong_wishes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        Front(None, KINK).choose(**arguments)


def trained(preference, state=None, *, offset=0.0):
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(preference[None])
        model.bias.fill_(offset)
    values = (1 - preference).tolist()
    return values, model


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_each_point_gives_its_model_back(where, jobs, tmp_path):
    preferences = uniform_preferences(2, 5)
    place = "memory" if where == "memory" else tmp_path / "front"
    front = trace_front(trained, preferences, models=place, jobs=jobs, names=["a", "b"])
    fronts = [front] if where == "memory" else [front, Front.read(place)]
    for each in fronts:
        assert each.names == ("a", "b")
        for index in range(5):
            model = each.load(index, torch.nn.Linear(2, 1))
            assert torch.equal(model.weight[0], preferences[index].float())
    assert "with models" in repr(fronts[-1])


def test_a_front_is_saved_and_read_whole(tmp_path):
    front = trace_front(partial(trained, offset=2.0), uniform_preferences(2, 3), models="memory", warm_start=True)
    front.save(tmp_path / "one")
    again = Front.read(tmp_path / "one")
    again.save(tmp_path / "two")
    for folder in ("one", "two"):
        read = Front.read(tmp_path / folder)
        assert torch.equal(read.points, front.points)
        assert torch.equal(read.preferences, front.preferences)
        assert read.load(2, torch.nn.Linear(2, 1)).bias.item() == 2.0
    plain = Front(None, torch.tensor([[1.0, float("nan")]]))
    read = Front.read(plain.save(tmp_path / "plain"))
    assert read.preferences is read.models is read.names is None
    assert read.points.isnan().any()


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    front = trace_front(trained, uniform_preferences(2, 3), models="memory")
    monkeypatch.setattr(os, "rename", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        front.save(tmp_path / "front")
    assert list(tmp_path.iterdir()) == []


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_code_in_a_file_is_never_run(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    front = Front(None, KINK)
    front.save(tmp_path / "front")
    with open(tmp_path / "front" / "front.pt", "wb") as file:
        write({"front": Evil()}, file)
    with pytest.raises(mtopt.CheckpointError):
        Front.read(tmp_path / "front")
    assert not Path("ran").exists()


def test_damaged_and_foreign_files_are_told(tmp_path):
    front = trace_front(trained, uniform_preferences(2, 3), models=tmp_path / "front")
    path = tmp_path / "front" / "model-00001.pt"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(mtopt.CheckpointError, match="damaged"):
        front.load(1, torch.nn.Linear(2, 1))
    with pytest.raises(mtopt.CheckpointError, match="model of point 0"):
        front.load(0, torch.nn.Linear(3, 1))
    with pytest.raises(IndexError, match="points 0 to 2, found 3"):
        front.load(3, torch.nn.Linear(2, 1))
    with pytest.raises(ValueError, match="holds no model of this point"):
        Front(None, KINK).load(0, torch.nn.Linear(2, 1))
    with pytest.raises(FileNotFoundError):
        Front.read(tmp_path / "nowhere")
    mtopt.training.write_checkpoint(tmp_path / "other" / "front.pt", {"model": {}})
    with pytest.raises(mtopt.CheckpointError, match="holds no front"):
        Front.read(tmp_path / "other")


def test_what_train_returns_is_checked():
    with pytest.raises(TypeError, match="with models, train must return a pair"):
        trace_front(lambda p: p, uniform_preferences(2, 3), models="memory")
    with pytest.raises(TypeError, match="module or its state_dict"):
        trace_front(lambda p: (p, 3), uniform_preferences(2, 3), models="memory")
    with pytest.raises(ValueError, match=r"'memory' or a pathlib.Path, found 'front'"):
        trace_front(lambda p: p, uniform_preferences(2, 3), models="front")
    with pytest.raises(ValueError, match="names must be 2"):
        Front(None, KINK, names=("a",))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_it_is_drawn_in_any_number_of_objectives(count):
    points = torch.cat([das_dennis(count, 4), torch.full((1, count), 0.9, dtype=torch.float64)])
    front = Front(None, points, names=tuple(f"${k}_a" for k in range(count)))
    figure = front.plot(chosen=[front.knee(), 0], reference=[1.2] * count)
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend()
    texts = " ".join(text.get_text() for text in legend.get_texts())
    assert "non-dominated" in texts
    assert "dominated" in texts
    with pytest.raises(IndexError):
        front.plot(chosen=99)


def test_what_a_notebook_shows_is_escaped():
    front = Front(uniform_preferences(2, 5), KINK, names=("<b>x</b>", "y"))
    page = front._repr_html_()
    assert "&lt;b&gt;x" in page
    assert "<b>" not in page
    assert page.count("<tr>") == 6
    assert repr(front) == "<Front: 5 points of 2 objectives in <b>x</b>, y, 5 non-dominated>"
