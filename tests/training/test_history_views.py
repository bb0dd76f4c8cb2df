"""What a history, a record and a comparison show of themselves; a history as a data frame; loops of one's own."""

import builtins

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import mtopt
from mtopt.plotting import plot_conflicts, plot_weights
from tests.training.support import loader, two_losses

EVIL = "<script>alert(1)</script>\x1b[31m"


def plain_loop(rule="mgda", steps=6, names=("left", "right")):
    history = mtopt.History()
    x = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    combiner = mtopt.create_combiner(rule)
    for _ in range(steps):
        x.grad = None
        losses = [(x - torch.tensor(target)).square().sum() for target in ([1.0, 0.0], [0.0, 1.0])]
        history.append(mtopt.backward(dict(zip(names, losses, strict=True)), [x], combiner))
        with torch.no_grad():
            x -= 0.1 * x.grad
    return history


def test_a_history_of_a_plain_loop_is_drawn_by_every_timeline():
    history = plain_loop()
    np.testing.assert_array_equal(history.steps, np.arange(1, 7))
    assert len(history.plot().axes) == 4
    (line,) = [line for line in plot_conflicts(history).lines if len(line.get_xdata()) == 6]
    np.testing.assert_allclose(line.get_ydata(), history.cosines["left", "right"])
    assert plot_weights(history).get_xlabel() == "step"
    plt.close("all")


def test_cosines_measured_here_and_there_are_a_line():
    trainer = two_losses("linear", measure_every=3)
    trainer.fit(loader(), steps=30)
    ax = plot_conflicts(trainer.history, window=1)
    line = next(line for line in ax.lines if len(line.get_xdata()) == 10)
    np.testing.assert_array_equal(line.get_xdata(), np.arange(3, 31, 3))
    assert np.isfinite(line.get_ydata()).all()
    plt.close("all")


def test_a_history_tells_of_itself_in_one_line():
    assert repr(mtopt.History()) == "<History: 0 steps>"
    assert repr(plain_loop(steps=1)) == "<History: 1 step of left, right>"
    trainer = two_losses("linear", callbacks=[mtopt.Evaluator(loader(), every=2)])
    trainer.fit(loader(), steps=2)
    assert repr(trainer.history) == "<History: 2 steps of left, right, evaluated on validation>"


def test_a_record_tells_of_itself_in_one_line():
    history = plain_loop(steps=2)
    record = history[-1]
    text = repr(record)
    assert text.startswith(f"<StepRecord 2: left {record.losses['left']:.4g} (weight ")
    assert text.endswith("; 0 of 1 pairs in conflict>")
    skipped = mtopt.StepRecord(losses={"a": float("nan")}, skipped=True, reason="non-finite loss: a")
    assert repr(skipped) == "<StepRecord: a nan; skipped: non-finite loss: a>"
    many = mtopt.StepRecord(losses={f"loss {k}": 1.0 for k in range(40)})
    assert repr(many).endswith("and 32 more losses>")


@pytest.mark.parametrize(
    "make", [lambda: plain_loop(names=(EVIL, "b")), lambda: plain_loop(names=(EVIL, "b"))[0]], ids=["history", "record"]
)
def test_what_a_notebook_shows_is_escaped(make):
    shown = make()
    page = shown._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\x1b" not in repr(shown)


def test_the_notebook_has_the_numbers():
    history = plain_loop()
    page = history._repr_html_()
    for value in (history.losses["left"][0], history.losses["left"][-1], history.weights["right"][-1]):
        assert f"{value:.4g}" in page
    record = history[-1]
    assert f"{record.cosines[0, 1]:+.2f}" in record._repr_html_()
    assert "<table>" in mtopt.History()._repr_html_()


def test_a_data_frame_has_the_columns():
    pd = pytest.importorskip("pandas")
    trainer = two_losses("mgda", callbacks=[mtopt.Evaluator(loader(), every=2)])
    trainer.fit(loader(), steps=4)
    frame = trainer.history.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.index) == [1, 2, 3, 4]
    np.testing.assert_array_equal(frame["losses/left"], trainer.history.losses["left"])
    np.testing.assert_array_equal(frame["cosines/left,right"], trainer.history.cosines["left", "right"])
    assert {"weights/right", "norms/left", "epoch", "learning_rate", "skipped"} <= set(frame)
    evaluated = trainer.history.to_frame("validation")
    assert list(evaluated.index) == [2, 4]
    np.testing.assert_array_equal(evaluated["right"], trainer.history.evaluations("validation")[1]["right"])
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'validation'"):
        trainer.history.to_frame("validaton")


def test_without_pandas_the_error_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'mtopt\[pandas\]'"):
        plain_loop(steps=1).to_frame()


def test_a_diagnosis_is_shown_escaped():
    x = torch.nn.Parameter(torch.zeros(3))
    found = mtopt.diagnose({EVIL: x.sum(), "b": x[0] - x[1]}, [x])
    page = found._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert repr(found).startswith("<Diagnosis of 2 losses, 0 of 1 pairs in conflict; lowest cosine +0.000")
