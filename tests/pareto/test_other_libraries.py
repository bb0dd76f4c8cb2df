"""The indicators beside those of pymoo and moocore, on drawn sets, to 1e-9."""

import moocore
import numpy as np
import pytest
from pymoo.indicators.gd import GD
from pymoo.indicators.gd_plus import GDPlus
from pymoo.indicators.hv import HV
from pymoo.indicators.igd import IGD
from pymoo.indicators.igd_plus import IGDPlus
from pymoo.indicators.spacing import SpacingIndicator
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from mtopt import pareto

DRAWS = [(seed, k) for seed in range(4) for k in (2, 3, 4)]


def drawn(seed, k):
    generator = np.random.default_rng([seed, k])
    return generator.random((40, k)), generator.random((25, k)), np.full(k, 0.9)


@pytest.mark.parametrize(("seed", "k"), DRAWS)
def test_pymoo(seed, k):
    points, front, reference = drawn(seed, k)
    close = {"rel": 1e-9, "abs": 1e-12}
    assert pareto.hypervolume(points, reference) == pytest.approx(HV(ref_point=reference)(points), **close)
    assert pareto.gd(points, front) == pytest.approx(GD(front)(points), **close)
    assert pareto.igd(points, front) == pytest.approx(IGD(front)(points), **close)
    assert pareto.gd_plus(points, front) == pytest.approx(GDPlus(front)(points), **close)
    assert pareto.igd_plus(points, front) == pytest.approx(IGDPlus(front)(points), **close)
    first = NonDominatedSorting().do(points, only_non_dominated_front=True)
    assert sorted(first) == np.flatnonzero(pareto.is_nondominated(points)).tolist()
    spacing = SpacingIndicator()(points[first])
    assert pareto.spacing(points[first]) == pytest.approx(spacing, **close)


@pytest.mark.parametrize(("seed", "k"), DRAWS)
def test_moocore(seed, k):
    points, front, reference = drawn(seed, k)
    close = {"rel": 1e-9, "abs": 1e-12}
    assert pareto.hypervolume(points, reference) == pytest.approx(moocore.hypervolume(points, ref=reference), **close)
    assert pareto.igd(points, front) == pytest.approx(moocore.igd(points, ref=front), **close)
    assert pareto.igd_plus(points, front) == pytest.approx(moocore.igd_plus(points, ref=front), **close)
    assert pareto.epsilon(points, front) == pytest.approx(moocore.epsilon_additive(points, ref=front), **close)
    both = moocore.avg_hausdorff_dist(points, ref=front, p=1)
    assert max(pareto.gd(points, front), pareto.igd(points, front)) == pytest.approx(both, **close)
