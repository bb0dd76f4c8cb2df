"""Several comparisons in one folder, of several machines, and as tables for other programs."""

import csv
import json
import math

import pytest

import mtopt
from mtopt.cli import main
from mtopt.experiments import Comparison, compare, merge
from mtopt.experiments._store import ResultStore
from tests.experiments import tiny

QUIET = {"progress": False, "jobs": 1, "quick": True}


class Split(tiny.ParabolasTask):
    """The second objective is maximised, and pcgrad fails."""

    objectives = (mtopt.Objective("near"), mtopt.Objective("gain", "max"))
    reference_point = (9.0, -9.0)

    def values(self, trainer, split, *, seed):
        values = super().values(trainer, split, seed=seed)
        if trainer.combiner.name == "pcgrad":
            raise RuntimeError("=no")
        return {"near": values["near"], "gain": -values["far"]}

    def front(self, points=50):
        return None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.warns(UserWarning, match="the others go on"):
        return compare(Split("split"), combiners=["mgda", "pcgrad"], out=tmp_path_factory.mktemp("made"), **QUIET)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_tells_cost_and_environment(made):
    runs, points, curves = (rows_of(path) for path in made.export())
    stored = made.store.results(made.store.all_keys())
    assert {row["key"] for row in runs} == set(stored)
    for row in runs:
        result = stored[row["key"]]["result"]
        assert (row["mtopt"], row["device"]) == (mtopt.__version__, "cpu")
        assert len(row["code"]) == 12
        assert len(row["task_code"]) >= 32
        if row["status"] == "failed":
            assert (row["contestant"], row["error"], row["hypervolume_test"]) == ("pcgrad", "RuntimeError: =no", "")
            continue
        assert float(row["hypervolume_test"]) == result["score"]["test"]
        assert float(row["cpu_seconds"]) > 0
        assert int(row["backward_passes"]) == {"linear": 1, "mgda": 2}[row["contestant"]] * 2 * 5  # points, steps
        assert int(row["peak_bytes"]) == result["cost"]["peak_bytes"] > 0
        mine = [p for p in points if p["key"] == row["key"] and p["split"] == "test"]
        assert [float(p["value"]) for p in mine if p["objective"] == "gain"] == [
            -g for _, g in result["points"]["test"]
        ]
        assert all(float(p["value"]) <= 0 for p in mine if p["objective"] == "gain")
        losses = {(c["training"], c["loss"]) for c in curves if c["key"] == row["key"]}
        assert losses == {(t, name) for t in "01" for name in ("near", "far")}


def test_the_same_tables_in_parquet(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main(["export", str(made.store.directory), "--format", "parquet", "--to", str(tmp_path)]) == 0
    for plain in made.export(tmp_path):
        table = parquet.read_table(plain.with_suffix(".parquet"))
        rows = rows_of(plain)
        assert table.column_names == list(rows[0])
        for name in table.column_names:
            for found, text in zip(table[name].to_pylist(), (row[name] for row in rows), strict=True):
                same = (text == "" and found is None) or str(found) == text
                assert same or (isinstance(found, float) and math.isclose(found, float(text)))


def test_a_missing_pyarrow_is_one_line_with_the_extra(made, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert main(["export", str(made.store.directory), "--format", "parquet"]) == 2
    assert "pip install 'mtopt[parquet]'" in capsys.readouterr().err


def test_two_machines_make_one_store(tmp_path, monkeypatch):
    first = compare(tiny.task, combiners=["mgda"], out=tmp_path / "a", name="mine", **QUIET)
    second = compare(tiny.task, combiners=["pcgrad"], out=tmp_path / "b", name="mine", **QUIET)
    files = [store.store.path.read_bytes() for store in (first, second)]
    assert main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")]) == 0
    assert files == [store.store.path.read_bytes() for store in (first, second)]
    both = ResultStore(tmp_path / "c", create=False)
    assert set(both.all_keys()) == {*first.store.all_keys(), *second.store.all_keys()}
    assert both.comparisons() == ["mine", "mine-2"]
    assert both.results(first.store.all_keys()) == first.store.results(first.store.all_keys())
    for name, source in (("mine", first), ("mine-2", second)):
        assert Comparison(both, name).rows()[1]["score"] == source.rows()[1]["score"]
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c") == {
        str(tmp_path / "a"): (0, {"mine": "mine"}),
        str(tmp_path / "b"): (0, {"mine": "mine-2"}),
    }
    # both rules together: nothing is left to run
    monkeypatch.setenv(tiny.LOG, str(tmp_path / "log"))
    whole = compare(tiny.task, combiners=["mgda", "pcgrad"], out=tmp_path / "c", **QUIET)
    assert not (tmp_path / "log").exists()
    assert [len(cell.runs) for cell in whole.cells] == [1, 1, 1]


def test_a_finished_run_is_taken_for_one_that_failed(tmp_path):
    made = compare(tiny.task, combiners=["mgda"], out=tmp_path / "a", **QUIET)
    other = ResultStore(tmp_path / "b")
    other.take(made.store)
    key = made.cells[0].runs[0]["key"]
    with other._connected("test") as connection:
        connection.execute("UPDATE runs SET status = 'failed', result = '{\"error\": \"lost\"}' WHERE key = ?", (key,))
    assert other.take(made.store)[0] == 1
    assert other.results([key]) == made.store.results([key])


@pytest.mark.parametrize("linked", ["figures", "."])
def test_a_link_in_the_folder_is_replaced_and_not_followed(linked, tmp_path):
    made = compare(tiny.task, combiners=["linear"], out=tmp_path / "out", **QUIET)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "photo.png").write_text("mine")
    place = made.directory if linked == "." else made.directory / linked
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "victim")
    made.figures()
    assert not place.is_symlink()
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["photo.png"]
    assert len(list((made.directory / "figures").glob("*.png"))) == 3


def test_figures_of_the_time_before_do_not_stay(tmp_path):
    made = compare(tiny.task, combiners=["linear"], out=tmp_path, **QUIET)
    (made.directory / "figures").mkdir(parents=True)
    (made.directory / "figures" / "parabolas-gone-front.svg").write_text("old")
    (made.directory / "figures" / "notes.txt").write_text("mine")
    written = made.figures()
    assert {path.name for path in (made.directory / "figures").iterdir()} == {*(p.name for p in written), "notes.txt"}


@pytest.mark.parametrize("name", ["../victim", "/tmp/x", "results.sqlite3", "", "."])
def test_a_name_from_elsewhere_leads_nowhere(name, tmp_path):
    made = compare(tiny.task, combiners=["linear"], out=tmp_path / "out", **QUIET)
    made.store.save_request(name, made.request)
    page = Comparison(tmp_path / "out", name).report()
    assert page.parent.parent == tmp_path / "out"
    assert page.parent.name != "results.sqlite3"


def test_a_damaged_request_is_mended_by_comparing_again(tmp_path):
    made = compare(tiny.task, combiners=["linear"], out=tmp_path, **QUIET)
    with made.store._connected("test") as connection:
        connection.execute("UPDATE comparisons SET request = '{'")
    again = compare(tiny.task, combiners=["linear"], out=tmp_path, **QUIET)
    assert (again.name, json.dumps(again.request)) == (made.name, json.dumps(made.request))
