"""Pieces of a curve below all that is left of them, against curves whose pieces are known."""

import numpy as np
import pytest

from mtopt.problems._record_curve import RecordCurve


def test_a_falling_curve_is_one_piece():
    curve = RecordCurve(lambda u: (u - 2) ** 2, 0.0, 1.0)
    assert curve.pieces == [(0.0, 1.0)]
    assert curve.integral(1.5) == pytest.approx((8 - 1) / 3 + 0.5)


def test_a_valley_ends_at_its_bottom():
    (piece,) = RecordCurve(lambda u: (u - 0.3) ** 2, 0.0, 1.0).pieces
    assert piece == pytest.approx((0.0, 0.3), abs=1e-7)


def test_descending_waves():
    """sin(2 pi u) - u: each wave begins again where it meets the bottom of the wave before, to the left."""
    curve = RecordCurve(lambda u: -np.sin(2 * np.pi * u) - u, 0.0, 4.0)
    bottoms = np.arccos(-1 / (2 * np.pi)) / (2 * np.pi) + np.arange(4)
    assert len(curve.pieces) == 4
    np.testing.assert_allclose([end for _, end in curve.pieces], bottoms, atol=1e-7)
    for (_, end), (start, _) in zip(curve.pieces, curve.pieces[1:], strict=False):
        assert start > end
        assert curve.function(start) == pytest.approx(curve.function(end), abs=1e-12)
    dense = np.linspace(0, 4, 400_001)
    lowest = np.minimum.accumulate(curve.function(dense))
    assert curve.integral(4.0) == pytest.approx(np.trapezoid(lowest, dense), abs=1e-7)
    at_records = curve.positions(np.linspace(0, 1, 50))
    assert all(curve.function(u) <= lowest[np.searchsorted(dense, u)] + 1e-4 for u in at_records)


def test_positions_leave_out_the_start_of_a_later_piece():
    curve = RecordCurve(lambda u: -np.sin(2 * np.pi * u) - u, 0.0, 2.0)
    first, second = curve.pieces
    share = (first[1] - first[0]) / (first[1] - first[0] + second[1] - second[0])
    assert curve.positions(np.array([0.0, share, 1.0])) == pytest.approx([0.0, first[1], second[1]], abs=1e-12)
