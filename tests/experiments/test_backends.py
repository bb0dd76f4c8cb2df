"""Runs on other backends: the same results, and a worker that is killed loses its own run alone, which is run again."""

from pathlib import Path

import pytest

from mtopt.experiments import compare
from mtopt.experiments._backends import open_pool
from mtopt.experiments._clusters import Cluster
from tests.experiments import tiny
from tests.experiments.test_killed import end_now


class FakeCluster(Cluster):
    """Makes calls in this process when they are waited for; a call named "killer" takes all with it that are there."""

    def __init__(self, limit):
        self.limit, self.made, self.most = limit, [], 0

    def _limit(self):
        return self.limit

    def _start(self, call):
        self.made.append(call[1])
        return len(self.made) - 1, call

    def _submit(self, function, *arguments):
        raise AssertionError("_start does not come here")

    def _wait(self, running):
        self.most = max(self.most, len(running))
        self.killed = any(call[1] == "killer" for _, call in running)
        return running if self.killed else running[:1]

    def _killed(self, done):
        return (2, "gone") if self.killed else None

    def _result(self, done):
        function, _, *arguments = done[1]
        return function(*arguments)

    def close(self):
        pass


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_what_stood_beside_a_killer_is_not_lost_with_it(limit):
    cluster = FakeCluster(limit)
    names = ["a", "b", "killer", "c", "d"]
    found = dict(cluster.each([(str.upper, name, name) for name in names]))
    status, told = found.pop("killer")
    assert found == {name: name.upper() for name in names if name != "killer"}
    assert (status, told["kind"]) == ("failed", "Killed")
    assert "ended 2 times" in told["error"]
    assert "gone" in told["error"]
    assert cluster.made.count("killer") == 2
    assert cluster.most == min(limit, len(names))


@pytest.fixture(params=["dask", pytest.param("ray", marks=pytest.mark.long)])  # Ray starts a dozen processes
def backend(request, monkeypatch):
    pytest.importorskip({"dask": "distributed"}.get(request.param, request.param))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # what tests the workers can import
    return request.param


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_killed_worker_loses_its_own_call_and_results_are_those_of_this_process(backend, tmp_path, monkeypatch):
    """One test, since a cluster takes seconds to start."""
    log = tmp_path / "log"
    pool = open_pool(backend, 2)
    try:
        found = dict(pool.each([(end_now, n, str(log), n, 1) for n in range(6)]))
        assert found == {n: 10 * n for n in range(6)}
        calls = log.read_text().splitlines()
        assert calls.count("3") == 2
        assert {calls.count(str(n)) for n in range(6)} <= {1, 2}
        monkeypatch.setattr("mtopt.experiments._workers.open_pool", lambda name, jobs: pool)
        settings = {"combiners": ["mgda"], "quick": True, "seeds": 1, "trials": 1, "progress": False}
        here = compare(tiny.task, out=tmp_path / "here", jobs=1, **settings)
        there = compare(tiny.task, out=tmp_path / "there", jobs=2, backend=backend, **settings)
    finally:
        pool.close()
    assert sorted(there.store.all_keys()) == sorted(here.store.all_keys())
    assert [row["score"] for row in there.rows()] == [row["score"] for row in here.rows()]
    assert not there.failures


def test_a_backend_that_cannot_be_used_is_refused_before_the_first_run(tmp_path, monkeypatch):
    with pytest.raises(LookupError, match="unknown backend 'dusk': did you mean 'dask'"):
        compare(tiny.task, backend="dusk", out=tmp_path / "out", progress=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mtopt\[ray\]'"):
        compare(tiny.task, backend="ray", out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
