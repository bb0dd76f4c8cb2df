"""Logs of a training: CSV, TensorBoard, the monitor, the figure."""

import csv
import math
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mtopt.training import Callback, CSVLogger, Evaluator, Monitor, ProgressBar, TensorBoard
from mtopt.training.callbacks._scalars import evaluation_scalars
from tests.training.support import PointTrainer, interrupted, loader, point, two_losses


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("evaluator_first", [True, False])
def test_csv_has_each_step_once_with_what_was_evaluated_after_it(evaluator_first, tmp_path):
    def build():
        callbacks = [Evaluator(loader(), every=4), CSVLogger(tmp_path / "logs" / "log.csv")]
        return two_losses(callbacks=callbacks if evaluator_first else callbacks[::-1])

    trainer = interrupted(build, loader, tmp_path / "run", [3, 9], steps=13)
    rows = rows_of(tmp_path / "logs" / "log.csv")
    history = trainer.history
    assert [int(row["step"]) for row in rows] == list(range(1, 14))
    assert [int(row["epoch"]) for row in rows] == history["epoch"].astype(int).tolist()
    assert [float(row["losses/left"]) for row in rows] == history.losses["left"].tolist()
    assert [float(row["cosines/left,right"]) for row in rows] == history.cosines["left", "right"].tolist()
    evaluated = {int(row["step"]): float(row["validation/right"]) for row in rows if row["validation/right"]}
    steps, values = history.evaluations("validation")
    assert evaluated == dict(zip(steps.tolist(), values["right"].tolist(), strict=True))


def test_csv_drops_what_a_killed_run_wrote_after_its_checkpoint(tmp_path):
    path = tmp_path / "log.csv"
    trainer = point(callbacks=[CSVLogger(path)])
    trainer.fit(steps=4, checkpoint_dir=tmp_path)
    whole = path.read_text()
    path.write_text(whole + "5,,0.0,0.1,half a li")
    point(callbacks=[CSVLogger(path)]).fit(steps=6, checkpoint_dir=tmp_path)
    assert [row["step"] for row in rows_of(path)] == ["1", "2", "3", "4", "5", "6"]
    assert path.read_text().startswith(whole)


def test_csv_takes_columns_that_come_later_and_none_for_what_is_absent(tmp_path):
    class Sometimes(PointTrainer):
        def losses(self, batch):
            first, second = super().losses(batch)
            return {"a": first} if self.step < 2 else {"b": second, "a": None if self.step == 3 else first}

    base = point()
    history = Sometimes(base.model, base.optimizer, "mgda", callbacks=[CSVLogger(tmp_path / "log.csv")]).fit(steps=5)
    rows = rows_of(tmp_path / "log.csv")
    for name in ("a", "b"):
        expected = [value if math.isfinite(value) else None for value in history.losses[name]]
        assert [float(row[f"losses/{name}"]) if row[f"losses/{name}"] else None for row in rows] == expected


class Named(PointTrainer):
    """The two losses under other names."""

    names = ("=1+1", "a\x1b,b\ud83d")

    def losses(self, batch):
        return dict(zip(self.names, super().losses(batch), strict=True))


def named(*callbacks, names=Named.names):
    base = point()
    trainer = Named(base.model, base.optimizer, "mgda", callbacks=list(callbacks))
    trainer.names = names
    return trainer


def test_no_split_and_metric_have_the_name_of_others() -> None:
    parts = ("a", "b", "a/b", "b/c", "a/'b", "c'", "'b/c'", '"', "a/\"b'", "losses", "losses (split)", "losses/a")
    names = [name for split in parts for name in evaluation_scalars(split, dict.fromkeys(parts, 0.0))]
    assert len(set(names)) == len(parts) ** 2
    assert "a/b/c" not in evaluation_scalars("a", {"b/c": 1.0})
    assert list(evaluation_scalars("a/b", {"c": 1.0})) == ["a/b/c"]


SPLITS = ("losses", "losses (split)", "weights", "norms/left", "cosines", "=cmd", "@a", "step")


def test_no_split_takes_the_columns_of_another_or_of_the_steps(tmp_path):
    path = tmp_path / "log.csv"

    class Evaluates(Callback):
        def on_step_end(self, trainer, record):
            for split in SPLITS:
                trainer.evaluate(split=split)

    base = point()
    trainer = Named(base.model, base.optimizer, "mgda", callbacks=[CSVLogger(path), Evaluates()])
    trainer.names = ("left", "right")
    trainer.fit(steps=3)
    history = trainer.history
    rows = rows_of(path)
    shown = dict(zip(SPLITS, SPLITS, strict=True)) | {
        "losses": "losses (split)", "losses (split)": "losses (split) (split)", "weights": "weights (split)",
        "norms/left": "norms (split)/left", "cosines": "cosines (split)", "=cmd": "'=cmd", "@a": "'@a",
    }  # fmt: skip
    for name in ("left", "right"):
        for section in ("losses", "weights", "norms"):
            assert [float(row[f"{section}/{name}"]) for row in rows] == history[section][name].tolist()
        for split, column in shown.items():
            values = history.evaluations(split)[1][name]
            assert [float(row[f"{column}/{name}"]) for row in rows] == values.tolist()
            assert values[0] != history.losses[name][0]  # after the step, not before it
    # once more from the history: what a resumed run makes of it
    before = path.read_text()
    trainer.fit(steps=3)
    assert path.read_text() == before


def test_names_in_a_log_are_no_formulas_and_can_be_written(tmp_path):
    path = tmp_path / "log.csv"
    trainer = named(CSVLogger(path), Evaluator(None, every=1, split="+b"))
    trainer.fit(steps=2)
    (header, *_) = csv.reader(path.read_text().splitlines())
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in header)
    assert "losses/a\\x1b,b\\ud83d" in header
    assert "'+b/=1+1" in header


def test_cosines_of_names_with_commas_have_columns_of_their_own(tmp_path):
    class Three(PointTrainer):
        def losses(self, batch):
            x = self.model.x
            return {"a": x.square().sum(), "a,b": x[0], "b,c": x[1], "c": x.sum()}

    base = point()
    trainer = Three(base.model, base.optimizer, "mgda", callbacks=[CSVLogger(tmp_path / "log.csv")])
    trainer.fit(steps=1)
    header = next(csv.reader((tmp_path / "log.csv").read_text().splitlines()))
    assert len([cell for cell in header if cell.startswith("cosines/")]) == 6 == len(trainer.history.cosines)
    figure = trainer.history.plot()
    (ax,) = (ax for ax in figure.axes if "cosine" in ax.get_ylabel())
    assert len({line.get_label() for line in ax.lines if not line.get_label().startswith("_")}) == 6
    plt.close(figure)


@pytest.mark.parametrize("callback", [ProgressBar(force=True), Monitor(refresh=0.0)])
def test_names_drive_no_terminal(callback, capfd, monkeypatch):
    for name, value in {"COLUMNS": "160", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    named(callback, Evaluator(None, every=1, split="[/x]\x07"), names=("[red]a[/red]", "b\x1b[2J")).fit(steps=2)
    shown = capfd.readouterr().err
    assert "[red]a[/red]" in shown
    assert "b\\x1b[2J" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown


def test_tensorboard_shows_each_step_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def build():
        return two_losses(callbacks=[TensorBoard(tmp_path / "tb"), Evaluator(loader(), every=4)])

    two_losses().fit(loader(), steps=5, checkpoint_dir=tmp_path / "run")
    build().fit(loader(), steps=9, checkpoint_dir=tmp_path / "elsewhere")  # as if killed after nine, saved after five
    trainer = build()
    trainer.fit(loader(), steps=13, checkpoint_dir=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    shown = {event.step: event.value for event in events.Scalars("losses/left")}
    assert sorted(shown) == [event.step for event in events.Scalars("losses/left")] == list(range(1, 14))
    assert [shown[step] for step in range(6, 14)] == trainer.history.losses["left"][5:].astype(np.float32).tolist()
    assert [event.step for event in events.Scalars("validation/right")] == [4, 8, 12]
    assert "learning_rate" in events.Tags()["scalars"]


def test_tensorboard_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'mtopt\[tensorboard\]'"):
        TensorBoard(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="every must be a positive int or None, found 0"):
        TensorBoard(tmp_path, every=0)


# -- for the eye ------------------------------------------------------------------------------------------------


def test_monitor_writes_plain_lines_where_there_is_no_terminal(capfd):
    trainer = two_losses(callbacks=[Evaluator(loader(), every=4), Monitor(lines=1e9)])
    trainer.fit(loader(), steps=9)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2  # the first step and the last
    last = trainer.history[-1]
    assert lines[1].startswith(f"step 9/9, epoch 2; losses left {last.losses['left']:.4g} right")
    assert f"cosines left,right {last.cosines[0, 1]:+.2f}" in lines[1]
    share = np.mean(trainer.history.conflicts > 0)
    assert f"gradients in conflict in {share:.0%} of the last 9 steps" in lines[1]
    evaluated = trainer.history.evaluations("validation")[1]["left"][-1]
    assert f"validation: left {evaluated:.4g}" in lines[1]


def test_monitor_keeps_a_table_on_a_terminal(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FORCE_COLOR", "1")
    trainer = two_losses(callbacks=[Monitor(refresh=0.0)], schedule=False)
    trainer.fit(loader(), steps=3)
    shown = capfd.readouterr().err
    assert shown.count("cos left") >= 4  # after each step, and at the end
    record = trainer.history[-1]
    for text in ("step 3/3, epoch 1", "learning rate 0.05", f"{record.weights['left']:.4g}", "in conflict"):
        assert text in shown
    two_losses("linear", callbacks=[Monitor()]).fit(loader(), steps=2)  # no gradients of one loss alone: no cosines
    assert "cos left" not in capfd.readouterr().err


def test_monitor_is_throttled_and_refuses_a_negative_time(capfd):
    point(callbacks=[Monitor(lines=1e9)]).fit(steps=50)
    assert len(capfd.readouterr().err.splitlines()) == 2
    with pytest.raises(ValueError, match="non-negative seconds"):
        Monitor(refresh=-1.0)


def test_figure_has_a_panel_for_what_there_is():
    import matplotlib.pyplot as plt

    trainer = two_losses(callbacks=[Evaluator(loader(), every=4)])
    figure = trainer.fit(loader(), steps=12).plot()
    panels = {ax.get_ylabel(): ax for ax in figure.axes}
    assert list(panels) == [
        *("loss in training", "value on validation", "weight"),
        *("gradient norm", "cosine of gradients", "learning rate"),
    ]
    lines = {line.get_label(): line for line in panels["loss in training"].get_lines()}
    assert lines["left"].get_ydata().tolist() == trainer.history.losses["left"].tolist()
    losses_only = point("linear")
    figure = losses_only.fit(steps=1_000).plot()
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss in training", "weight", "learning rate"]
    line = figure.axes[0].get_lines()[0]
    assert len(line.get_xdata()) == 200
    assert line.get_ydata()[:3] == pytest.approx(losses_only.history.losses["loss_0"][:15].reshape(3, 5).mean(1))
    plt.close("all")
    with pytest.raises(ValueError, match="holds no steps"):
        point().history.plot()


def test_csv_is_the_same_file_after_a_resume(tmp_path):
    """Also where an evaluation is NaN, infinite, a whole number, or lacks a metric."""

    class Odd(Callback):
        def on_step_end(self, trainer, record):
            values = {"a": float("nan") if record.step % 2 else 1, "b": float("inf")}
            if record.step % 3:
                values["c"] = float("nan")
            trainer.history.append_evaluation("odd", trainer.step, values)
            for callback in trainer.callbacks:
                callback.on_evaluate(trainer, "odd", values)

    def run(steps, directory):
        point(callbacks=[Odd(), CSVLogger(directory / "log.csv")]).fit(steps=steps, checkpoint_dir=directory)
        return (directory / "log.csv").read_text()

    whole = run(7, tmp_path / "whole")
    assert [row["odd/a"] for row in rows_of(tmp_path / "whole" / "log.csv")] == ["nan", "1.0"] * 3 + ["nan"]
    assert [row["odd/c"] for row in rows_of(tmp_path / "whole" / "log.csv")] == ["nan", "nan", ""] * 2 + ["nan"]
    for steps in (1, 3, 4):
        run(steps, tmp_path / "resumed")
    assert run(7, tmp_path / "resumed") == whole
