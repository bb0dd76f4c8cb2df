"""Settings of all tests."""

import os

import pytest
import torch
from hypothesis import settings

from tests import printed

# one thread: the matrices of the tests are small, and oversubscribed threads run many times slower
torch.set_num_threads(1)

# no deadline: machines differ; and in CI the same draws in every run, so that it judges the change and not the dice
settings.register_profile("mtopt", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("mtopt")


@pytest.fixture
def as_printed(tmp_path, monkeypatch):
    """A folder to write to, and a registry, generators and figures that others find as they were."""
    import matplotlib.pyplot as plt

    from mtopt.combiners import _registry

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_registry, "_rules", dict(_registry._rules))
    monkeypatch.setattr(_registry, "_aliases", dict(_registry._aliases))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    plt.close("all")


@pytest.fixture
def run_page(as_printed):
    """Runs a page's code from top to bottom, given the names that it leaves to its reader; returns all names."""
    return lambda page, *, compare=None, **given: printed.run(printed.page_examples(page, compare), **given)
