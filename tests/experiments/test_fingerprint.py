"""What a finished run is known by: everything that its result depends on, and nothing that only looks so."""

import importlib
import os
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mtopt.experiments import Budget, compare
from tests.experiments import tiny

ROOT = Path(__file__).parents[2]

SUITE = '''
from functools import cache
import torch
import mtopt
from mtopt.experiments import Budget, Suite, Task
from {helpers} import scaled
WIDTH = 3
_CACHE = {{}}

class Trainer(mtopt.MultiLossTrainer):
    """Two losses."""
    def losses(self, batch):
        (x,) = self.model.parameters()
        return {{"near": (x + 1).square().sum(), "far": scaled(x - 1, WIDTH)}}

class OneTask(Task):
    name = "one"
    title = "One"
    objectives = (mtopt.Objective("near"), mtopt.Objective("far"))
    reference_point = (9.0, 9.0)
    budget = quick_budget = Budget(steps=3)

    def trainer(self, combiner, *, learning_rate, seed, point, points):
        from {helpers} import start
        model = torch.nn.ParameterList([torch.nn.Parameter(start(seed))])
        return Trainer(model, torch.optim.SGD(model.parameters(), lr=learning_rate), combiner)

    def values(self, trainer, split, *, seed):  # in the objectives' units
        _CACHE[split] = trainer
        return {{name: float(value.detach()) for name, value in trainer.losses(None).items()}}

suite = Suite("one", (OneTask(),))
'''

HELPERS = '''
import torch
SCALES = [1.0, 2.0]

def scaled(x, width):
    """Wide."""
    return x.square().sum() * width * SCALES[0]

def start(seed):
    return torch.zeros(1)
'''


@pytest.fixture
def fingerprint_of(tmp_path, monkeypatch):
    """The fingerprint of the one task of a suite and its helpers, given as text."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    count = iter(range(100))

    def make(change=lambda suite, helpers: (suite, helpers)):
        folder = tmp_path / str(next(count))
        folder.mkdir()
        suite, helpers = change(SUITE.format(helpers="own_helpers"), HELPERS)
        (folder / "own_suite.py").write_text(suite)
        (folder / "own_helpers.py").write_text(helpers)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path[1:]])
        for name in ("own_suite", "own_helpers"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("own_suite").suite.tasks[0].fingerprint()

    return make


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("reference_point = (9.0, 9.0)", "reference_point = (100.0, 100.0)"),
        ("float(value.detach())", "2 * float(value.detach())"),
        ("(x + 1)", "(x + 2)"),
        ("WIDTH = 3", "WIDTH = 4"),
        ("* SCALES[0]", "* SCALES[1]"),
        ("SCALES = [1.0, 2.0]", "SCALES = [1.5, 2.0]"),
        ("torch.zeros(1)", "torch.ones(1)"),
        ("class OneTask(Task):", "class OneTask(Task):\n    static = staticmethod(lambda: 3)\n"),
        ('name = "one"', 'name = "other"'),
    ],
    ids=["attribute", "method", "trainer", "constant", "helper", "its list", "import within", "static", "name"],
)
def test_what_a_result_depends_on_is_seen(fingerprint_of, old, new):
    assert old in SUITE + HELPERS
    before = fingerprint_of()
    assert fingerprint_of(lambda *files: [text.replace(old, new) for text in files]) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # in the objectives' units", "  # in other units\n"),
        ('"""Wide."""', '"""As wide as told."""'),
        ('"""Two losses."""', ""),
        ('title = "One"', 'title = "The first"'),
        ("Budget(steps=3)", "Budget(steps=3, seeds=9)"),
        ('Suite("one", (OneTask(),))', 'Suite("one", (OneTask(),), combiners=("mgda",), about="More.")'),
        ("\nWIDTH", "\n\n\nUNUSED = 3\n\ndef unused(): ...\n\nWIDTH"),
    ],
    ids=["comment", "docstring", "class docstring", "title", "budget", "suite", "unused"],
)
def test_what_no_result_depends_on_repeats_nothing(fingerprint_of, old, new):
    assert old in SUITE + HELPERS
    before = fingerprint_of()
    assert fingerprint_of(lambda *files: [text.replace(old, new) for text in files]) == before


class Valued(tiny.ParabolasTask):
    def __init__(self, value):
        super().__init__("valued")
        self.value = value


@dataclass(frozen=True)
class Setting:
    sizes: tuple[int, ...]

    @cached_property
    def total(self):
        return sum(self.sizes)


class Bag:
    """No repr, and state."""

    def __init__(self, *items):
        self.items = list(items)

    @cached_property
    def count(self):
        return len(self.items)


def changed(values, index=2500):
    other = values.clone() if isinstance(values, torch.Tensor) else values.copy()
    other[index] += 1
    return other


def linear(bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.bias.fill_(bias)
    return layer


VALUES = {
    "tensor": (torch.zeros(5000), changed(torch.zeros(5000))),
    "bfloat16": (torch.zeros(5000, dtype=torch.bfloat16), changed(torch.zeros(5000, dtype=torch.bfloat16))),
    "complex": (torch.zeros(3, dtype=torch.complex64), torch.zeros(3, dtype=torch.complex64) + 1j),
    "sparse": (torch.eye(9).to_sparse(), torch.diag(torch.arange(9.0)).to_sparse()),
    "dtype": (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
    "shape": (torch.zeros(4), torch.zeros(2, 2)),
    "array": (np.zeros(5000), changed(np.zeros(5000))),
    "objects": (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
    "module": (linear(0.0), linear(1.0)),
    "dataset": (
        torch.utils.data.TensorDataset(torch.zeros(5000)),
        torch.utils.data.TensorDataset(changed(torch.zeros(5000))),
    ),
    "lambda": (lambda x: x + 1, lambda x: x + 2),
    "partial": (partial(changed, index=1), partial(changed, index=2)),
    "object": (Bag(1, 2), Bag(1, 3)),
    "dataclass": (Setting((1, 2)), Setting((1, 3))),
    "generator": (np.random.default_rng(0), np.random.default_rng(1)),
    "torch generator": (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
    "nested": ({"a": [torch.zeros(3), {1, 2}]}, {"a": [torch.zeros(3), {1, 3}]}),
    "true and one": ([True], [1]),
    "digits": (10**7000, 10**7000 + 1),
    "class": (Bag, Setting),
    "path": (Path("a"), Path("b")),
}


@pytest.mark.parametrize("kind", VALUES)
def test_attributes_enter_by_their_whole_value(kind):
    one, other = VALUES[kind]
    assert Valued(one).fingerprint() == Valued(one).fingerprint()
    assert Valued(one).fingerprint() != Valued(other).fingerprint()


def test_functions_of_one_text_differ_by_what_they_close_over():
    def adder(step):
        return lambda x: x + step

    assert Valued([adder(1), adder(2)]).fingerprint() != Valued([adder(1), adder(3)]).fingerprint()


def test_what_is_computed_from_the_rest_and_kept_does_not_enter():
    for value, look in ((Setting((1, 2)), "total"), (Bag(1), "count")):
        task = Valued(value)
        before = task.fingerprint()
        getattr(value, look)
        task._kept = object()
        assert task.fingerprint() == before


@pytest.mark.parametrize("kind", ["lock", "file", "weak reference", "generator"])
def test_what_does_not_outlive_its_process_is_refused_by_name(kind, tmp_path):
    with open(os.devnull) as file:
        values = {
            "lock": threading.Lock(),
            "file": file,
            "weak reference": weakref.ref(Bag),
            "generator": (letter for letter in "abc"),
        }
        with pytest.raises(ValueError, match=r"task 'valued': attribute 'value'\[0\] has no value that outlives"):
            compare(Valued([values[kind]]), out=tmp_path, jobs=1, progress=False)


LOCKED = threading.Lock()
WRITER = Bag(LOCKED)
HALVED = partial(changed, index=1)


class Uses(tiny.ParabolasTask):
    """Uses what has no lasting value beside what has one."""

    def data(self, split, *, seed):
        with LOCKED:
            return [WRITER.items, HALVED]

    @torch.no_grad()
    def front(self, points=50):
        return super().front(points)


def test_objects_that_code_uses_are_no_obstacle_and_settings_of_functions_count(monkeypatch):
    before = Uses().fingerprint()
    WRITER.items.append(3)
    assert Uses().fingerprint() == before
    monkeypatch.setitem(globals(), "HALVED", partial(changed, index=2))
    assert Uses().fingerprint() != before


PRINTED = """
import torch
from tests.experiments.test_fingerprint import Bag, Valued
value = {"set": {"a", "b", "c"}, "bag": Bag({"x", "y"}), "f": lambda x: x in {"p", "q", "r"}, "t": torch.eye(3)}
print(Valued(value).fingerprint())
"""


def test_it_is_the_same_in_every_process():
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        run = subprocess.run([sys.executable, "-c", PRINTED], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


def test_a_changed_class_attribute_runs_again(tmp_path):
    class Changing(tiny.ParabolasTask):
        budget = Budget(steps=3, trials=1, seeds=1)

    (first, _) = compare(Changing("c"), combiners=["mgda"], out=tmp_path, jobs=1, progress=False).rows()
    Changing.reference_point = (100.0, 100.0)
    (second, _) = compare(Changing("c"), combiners=["mgda"], out=tmp_path, jobs=1, progress=False).rows()
    assert first["score"] < 81.0 < 9000.0 < second["score"] < 1e4
