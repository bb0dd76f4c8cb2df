"""What every indicator accepts as points, and what it refuses."""

import numpy as np
import pytest
import torch

from mtopt import NonFiniteError, pareto

POINTS = [[0.25, 1.0], [0.5, 0.5], [1.0, 0.125]]

INDICATORS = {
    "hypervolume": lambda p: pareto.hypervolume(p, [1.5, 1.5]),
    "is_nondominated": lambda p: pareto.is_nondominated(p).tolist(),
    "spacing": pareto.spacing,
    "gd": lambda p: pareto.gd(p, [[0.0, 0.0]]),
    "igd": lambda p: pareto.igd(p, [[0.0, 0.0]]),
    "gd_plus": lambda p: pareto.gd_plus(p, [[0.0, 0.0]]),
    "igd_plus": lambda p: pareto.igd_plus(p, [[0.0, 0.0]]),
    "epsilon": lambda p: pareto.epsilon(p, [[0.0, 0.0]]),
}
every_indicator = pytest.mark.parametrize("indicator", INDICATORS.values(), ids=INDICATORS.keys())


@every_indicator
def test_tensors_arrays_and_lists_are_alike(indicator):
    expected = indicator(np.array(POINTS))
    tensor = torch.tensor(POINTS)
    assert indicator(POINTS) == expected
    assert indicator(np.array(POINTS, dtype=np.float32)) == expected
    assert indicator(np.asfortranarray(POINTS)) == expected
    assert indicator(tensor) == expected
    assert indicator(tensor.bfloat16()) == expected
    assert indicator(tensor.clone().requires_grad_() * 1) == expected
    assert indicator([row.clone().requires_grad_() * 1 for row in tensor]) == expected


@every_indicator
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(indicator, value):
    with pytest.raises(NonFiniteError, match=r"points holds NaN or infinity in 1 of 3 rows \(the first is row 1\)"):
        indicator([POINTS[0], [value, 1.0], POINTS[2]])


@every_indicator
@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([1.0, 2.0], r"points must have shape \(N, K\), one objective vector a row, found shape \(2,\)"),
        (np.zeros((2, 2, 2)), r"points must have shape \(N, K\)"),
        (1.0, r"points must have shape \(N, K\)"),
        (np.zeros((0, 2)), r"points must hold at least one point, found shape \(0, 2\)"),
        (np.zeros((2, 0)), "points must hold at least one point"),
        ([[1.0, 2.0], [3.0]], "points must be numbers in rows of equal length"),
        ([["a", "b"]], "points must be numbers"),
        ([torch.zeros(2), torch.zeros(3)], "points must be numbers in rows of equal length"),
    ],
)
def test_wrong_shapes_are_named(indicator, points, message):
    with pytest.raises(ValueError, match=message):
        indicator(points)


@every_indicator
@pytest.mark.parametrize(
    "points",
    [
        np.array(POINTS) + 1j,
        torch.tensor(POINTS, dtype=torch.complex64),
        [list(map(complex, row)) for row in POINTS],
        [torch.tensor(row, dtype=torch.complex128) for row in POINTS],
        [np.array(row, dtype=complex) for row in POINTS],
    ],
    ids=["array", "tensor", "lists", "list of tensors", "list of arrays"],
)
def test_complex_points_are_refused(indicator, points):
    with pytest.raises(ValueError, match="points must be real, found complex"):
        indicator(points)


@every_indicator
def test_masked_points_are_refused(indicator):
    masked = np.ma.array(POINTS, mask=[[True, False], [False, False], [False, False]])
    for points in (masked, list(masked), np.ma.array(POINTS)):
        with pytest.raises(ValueError, match="points must not be masked, found a masked array"):
            indicator(points)


@every_indicator
@pytest.mark.parametrize("points", [[["1", "2"]], np.array([["1", "2"]]), np.zeros((1, 2), dtype="datetime64[s]")])
def test_what_only_reads_like_numbers_is_refused(indicator, points):
    with pytest.raises(ValueError, match="points must be numbers in rows of equal length, found"):
        indicator(points)


def test_other_arguments_are_refused_alike():
    odd = np.array([1.5, 1.5]) + 1j
    masked = np.ma.array([1.5, 1.5], mask=[False, True])
    for value, word in ((odd, "reference must be real"), (masked, "reference must not be masked")):
        with pytest.raises(ValueError, match=word):
            pareto.hypervolume(POINTS, value)
        with pytest.raises(ValueError, match=word):
            pareto.hypervolume_2d(torch.tensor(POINTS), value)
    with pytest.raises(ValueError, match="reference must be real"):
        pareto.hypervolume_2d(torch.tensor(POINTS), torch.tensor(odd))
    with pytest.raises(ValueError, match="front must be real"):
        pareto.igd(POINTS, [odd])
    with pytest.raises(ValueError, match="values must be real"):
        pareto.delta_m(odd, [1.0, 1.0], [True, False])
    with pytest.raises(ValueError, match="values must not be masked"):
        pareto.mean_rank(np.ma.array(POINTS), [True, False])
    with pytest.raises(ValueError, match="the result of train must be real"):
        pareto.trace_front(lambda preference: odd, [[0.5, 0.5]])
    with pytest.raises(ValueError, match="jacobian must be real"):
        pareto.kkt_residual(torch.ones(2, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="jacobians must be real"):
        pareto.moo_svgd(torch.ones(2, 2), torch.ones(2, 2, 3, dtype=torch.complex64))
