"""The ways to find VLMOP2's front, and the page docs/fronts.md."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks.toy import fronts
from mtopt.pareto import gd, hypervolume

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fronts.md").read_text()


def test_the_best_that_twenty_points_can_have():
    # from the definition of the front, by ascent over the positions of the points
    t = torch.nn.Parameter(torch.linspace(-1, 1, 20, dtype=torch.float64))
    optimizer = torch.optim.LBFGS([t], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        first, second = 1 - torch.exp(-((t - 1) ** 2)), 1 - torch.exp(-((t + 1) ** 2))
        # t rises along the front: the first objective falls, and each point adds a strip below the one before
        widths = torch.cat((first.new_tensor([1.1]), first[:-1])) - first
        lost = -(widths * (1.1 - second)).sum()
        lost.backward()
        return lost

    optimizer.step(closure)
    assert -closure().item() == pytest.approx(fronts.BEST, abs=5e-5)


@pytest.mark.parametrize("name", ["EPO", "PMGDA", "STCH", "hypervolume gradient"])
def test_it_covers_the_concave_front(name):
    points = fronts.find(name)
    assert points.shape == (20, 2)
    assert hypervolume(points, fronts.REFERENCE) >= 0.98 * fronts.BEST


def test_svgd_spreads_over_most_of_it():
    assert hypervolume(fronts.find("MOO-SVGD"), fronts.REFERENCE) >= 0.9 * fronts.BEST


# PMGDA leaves some points short of the front from some starts
@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize(
    ("name", "share"), [("EPO", 0.99), ("PMGDA", 0.97), ("STCH", 0.99), ("hypervolume gradient", 0.999)]
)
def test_it_covers_it_from_other_starts(name, share, seed):
    points = fronts.find(name, seed=seed)
    assert hypervolume(points, fronts.REFERENCE) >= share * fronts.BEST
    assert gd(points, fronts.problem().pareto_front(2000)) < (0.01 if name == "PMGDA" else 0.001)


def test_the_page_runs_as_printed(run_page):
    page = run_page("docs/fronts.md")
    assert len(page["traced"]) == len(page["warm"]) == 7
    assert len(page["one_model"]) == 11
    assert page["points"].shape == page["apart"].points(page["batches"]).shape == (6, 2)
    assert len(page["apart"].history) == 40
    assert len(page["archive"].points()) > 0


def test_the_page_names_each_way_and_its_figure():
    assert [name for name in fronts.SETUPS if f"| {name} |" not in PAGE] == []
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
