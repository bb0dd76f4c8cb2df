"""Resident memory with the C library's own allocator, where holes in the heap count, too."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.speed._memory import MIB
from benchmarks.speed.models import build


@pytest.mark.parametrize(("model", "most"), [("mlp", 1.2), ("transformer", 1.7)])
def test_a_gramian_step_takes_one_jacobian_beyond_a_plain_one(model, most):
    """And the row on its way. How the transformer's heap lies differs from run to run: 1.25 to 1.5, as by hand."""
    lines = ["plain sum", "mgda, rows"]
    unset = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed._memory", model, "8", "resident", *lines],
        env={**unset, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    plain, mine = (dict(json.loads(line) for line in done.stdout.splitlines())[name] for name in lines)
    jacobian = 4 * 8 * build(model, 8).shared_size / MIB
    assert 0.7 * jacobian <= mine - plain <= most * jacobian
