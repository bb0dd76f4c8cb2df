"""The history against what the steps really were."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import mtopt
from mtopt.plotting import plot_conflicts, plot_weights
from mtopt.training import History, read_checkpoint, write_checkpoint
from tests.training.support import Point, PointTrainer, loader, point, two_losses


def same(a: mtopt.StepRecord, b: mtopt.StepRecord) -> bool:
    """Equality of records, whose arrays and NaN know none."""
    fields = ("losses", "weights", "norms", "certificate", "skipped", "reason", "plan", "backwards", "step", "epoch")
    return (
        all(str(getattr(a, name)) == str(getattr(b, name)) for name in fields)
        and a.learning_rate == b.learning_rate
        and ((a.cosines is None and b.cosines is None) or np.allclose(a.cosines, b.cosines, rtol=0, atol=1e-15))
    )


class Keeping(mtopt.training.Callback):
    def __init__(self):
        self.records = []

    def on_step_end(self, trainer, record):
        self.records.append(record)


def test_columns_against_the_gradients_themselves():
    """Two quadratics: everything has a closed form."""
    losses, norms, cosines, weights = [], [], [], []

    class Watched(PointTrainer):
        def losses(self, batch):
            x = self.model.x.detach().double().numpy()
            gradients = 2 * (x - np.eye(2))
            losses.append(((x - np.eye(2)) ** 2).sum(1))
            norms.append(np.linalg.norm(gradients, axis=1))
            cosines.append(gradients[0] @ gradients[1] / norms[-1].prod())
            difference = gradients[1] - gradients[0]
            first = np.clip(gradients[1] @ difference / (difference @ difference), 0, 1)
            weights.append([first, 1 - first])
            return super().losses(batch)

    model = Point()
    model.x.data = torch.tensor([1.5, 1.2])
    history = Watched(model, torch.optim.SGD(model.parameters(), lr=0.05), "mgda").fit(steps=30)
    for k, name in enumerate(("loss_0", "loss_1")):
        np.testing.assert_allclose(history["losses"][name], np.array(losses)[:, k], rtol=1e-5)
        np.testing.assert_allclose(history["norms"][name], np.array(norms)[:, k], rtol=1e-5)
        np.testing.assert_allclose(history["weights"][name], np.array(weights)[:, k], atol=1e-4)
    np.testing.assert_allclose(history["cosines"]["loss_0", "loss_1"], cosines, atol=1e-5)
    assert history.conflicts.tolist() == [float(c < 0) for c in cosines]
    assert 0 < history.conflicts.sum() < 30
    assert history.steps.tolist() == list(range(1, 31))
    assert set(history["learning_rate"]) == {0.05}


def test_the_records_of_a_loop_of_ones_own_are_numbered():
    model, rule, history = Point(), mtopt.create_combiner("mgda"), mtopt.History()
    for _ in range(5):
        record = mtopt.backward([(model.x - 1).square().sum(), (model.x + 1).square().sum()], model, rule)
        history.append(record)
    assert record.step is None
    assert history.steps.tolist() == history["step"].tolist() == [1, 2, 3, 4, 5]
    assert [record.step for record in history] == [1, 2, 3, 4, 5]
    history.append_evaluation("validation", 5, {"score": 1.0})
    history.append(replace(record, step=9))
    history.append(record)
    assert history.steps.tolist() == [1, 2, 3, 4, 5, 9, 10]
    loaded = mtopt.History()
    loaded.load_state_dict(history.state_dict())
    loaded.append(record)
    assert loaded.steps.tolist() == [1, 2, 3, 4, 5, 9, 10, 11]
    for figure in (history.plot(), plot_weights(history).figure, plot_conflicts(history).figure):
        shown = [line.get_xdata() for ax in figure.axes for line in ax.get_lines() if len(line.get_xdata()) == 7]
        assert shown
        assert all(list(x) == history.steps.tolist() for x in shown)
        plt.close(figure)


@pytest.mark.parametrize("combiner", ["linear", "mgda", "ngdiff", "moco"])
def test_records_come_back_as_they_were(combiner):
    keeping = Keeping()
    history = two_losses(combiner, callbacks=[keeping]).fit(loader(), steps=150)
    assert len(history) == len(list(history)) == 150
    assert all(same(a, b) for a, b in zip(history, keeping.records, strict=True))
    assert same(history[-1], keeping.records[-1])


def test_skipped_and_absent_are_told_apart():
    history = History()
    history.append(mtopt.StepRecord({"a": float("nan"), "b": 1.0}, skipped=True, reason="non-finite loss: a", step=1))
    history.append(mtopt.StepRecord({"b": 2.0}, weights={"b": 1.0}, step=2))
    history.append(mtopt.StepRecord({"b": 2.0, "a": 3.0}, norms={"b": 1.0, "a": 2.0}, cosines=np.eye(2), step=3))
    assert list(history[0].losses) == ["a", "b"]
    assert history[0].reason == "non-finite loss: a"
    assert list(history[1].losses) == ["b"]
    assert history[1].weights == {"b": 1.0}
    assert history[2].weights is None
    assert history[2].epoch is None
    assert history.skipped == 1
    np.testing.assert_array_equal(history["weights"]["b"], [np.nan, 1.0, np.nan])
    assert history["conflicts"][2] == 0


def test_pairs_have_one_name_whatever_the_order():
    history = History()
    for names, cosine in ((("b", "a"), 0.5), (("a", "b"), -0.5)):
        matrix = np.array([[1.0, cosine], [cosine, 1.0]])
        history.append(mtopt.StepRecord(dict.fromkeys(names, 1.0), norms=dict.fromkeys(names, 1.0), cosines=matrix))
    assert {key: list(column) for key, column in history.cosines.items()} == {("a", "b"): [0.5, -0.5]}
    np.testing.assert_array_equal(history[0].cosines, [[1, 0.5], [0.5, 1]])


def test_cosines_of_many_objectives_leave_the_number_of_conflicts():
    names = [f"task_{k}" for k in range(History.MOST_COSINES + 1)]
    rng = np.random.default_rng(0)
    matrix = np.corrcoef(rng.normal(size=(len(names), 5)))
    record = mtopt.StepRecord(dict.fromkeys(names, 1.0), norms=dict.fromkeys(names, 1.0), cosines=matrix)
    history = History()
    history.append(record)
    assert history.cosines == {}
    assert history[0].cosines is None
    assert history["conflicts"].tolist() == [record.conflicts]


def test_state_goes_through_a_file_as_one_tensor_a_column(tmp_path):
    trainer = two_losses("moco")
    history = trainer.fit(loader(), steps=20)
    trainer.evaluate(loader(), split="test")
    write_checkpoint(tmp_path / "h.pt", history.state_dict())
    other = History()
    other.append(mtopt.StepRecord({"x": 1.0}))
    other.load_state_dict(read_checkpoint(tmp_path / "h.pt"))
    assert len(other) == 20
    assert all(same(a, b) for a, b in zip(history, other, strict=True))
    assert list(other.losses) == ["left", "right"]
    assert other.evaluations("test")[0].tolist() == [20]
    state = history.state_dict()["steps"]["columns"]
    assert all(column.shape == (20,) for column in state.values())
    other.append(history[0])  # a loaded table grows
    assert len(other) == 21


def test_a_state_that_does_not_fit_together():
    state = point().fit(steps=3).state_dict()
    state["steps"]["length"] = 4
    with pytest.raises(mtopt.CheckpointError, match=r"must have shape \(4,\), found \(3,\)"):
        History().load_state_dict(state)


def test_evaluations_by_split():
    history = History()
    history.append_evaluation("test", 5, {"loss": 1.0})
    history.append_evaluation("test", 10, {"loss": 2.0, "accuracy": 0.5})
    history.append_evaluation("test", 10, {"loss": 3.0})  # again after the same step: the last one counts
    history.append_evaluation("train", 10, {"loss": 4.0})
    assert history.splits == ["test", "train"]
    steps, values = history.evaluations("test")
    assert steps.tolist() == [5, 10]
    assert values["loss"].tolist() == [1.0, 3.0]
    assert np.isnan(values["accuracy"]).all()


def test_wrong_use():
    history = point().fit(steps=3)
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'losses'"):
        history["loses"]
    with pytest.raises(IndexError, match="holds 3 steps, found index 3"):
        history[3]
    with pytest.raises(mtopt.UnknownNameError, match="nothing was evaluated"):
        history.evaluations("test")
    with pytest.raises(ValueError, match="read-only"):
        history["losses"]["loss_0"][0] = 1.0


def test_a_hundred_thousand_steps_are_arrays():
    history = History()
    record = mtopt.StepRecord({"a": 1.0, "b": 2.0}, weights={"a": 0.5, "b": 0.5}, step=1)
    for _ in range(20_000):
        history.append(record)
    state = history.state_dict()
    assert len(state["forms"]) == 1
    assert len(state["steps"]["columns"]) == 8
