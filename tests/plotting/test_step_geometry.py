"""One step: projections keep inner products, the cone is where no loss rises."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

import mtopt
from mtopt.plotting import plot_step_geometry
from mtopt.plotting.plane import coordinates, dual_rays, half_planes, orthonormal_basis, square_root
from mtopt.plotting.step import CONE

RNG = np.random.default_rng(0)
TWO = np.array([[2.0, 0.4], [-0.9, 0.8]])
BOX = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
seeds = st.integers(0, 10_000)


def tip(ax, name):
    (line,) = [artist for artist in ax.lines if artist.get_label() == name]
    return line.get_xydata()[0]


def hull(ax):
    (line,) = [artist for artist in ax.lines if artist.get_label() == "_hull"]
    return line.get_xydata()


def legend_text(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def inside(polygon, point):
    edges = np.roll(polygon, -1, axis=0) - polygon
    turns = edges[:, 0] * (point - polygon)[:, 1] - edges[:, 1] * (point - polygon)[:, 0]
    return (turns >= 0).all()


@given(seeds, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_half_planes_keep_just_the_points_with_no_negative_product(draw, count):
    rng = np.random.default_rng(draw)
    normals = rng.normal(size=(count, 2))
    cone = half_planes(BOX, normals)
    for point in rng.uniform(-1, 1, (40, 2)):
        assert (len(cone) > 2 and inside(cone, point)) == (normals @ point >= 0).all()


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_the_edges_of_the_dual_cone_span_it(draw):
    rng = np.random.default_rng(draw)
    gradients = rng.normal(size=(3, 3)) * np.array([[1e-3], [1.0], [1e3]])
    rays = dual_rays(gradients)
    products = rays @ gradients.T
    sizes = np.linalg.norm(gradients, axis=1)
    assert (np.abs(products[~np.eye(3, dtype=bool)]) < 1e-9 * np.tile(sizes, (3, 1))[~np.eye(3, dtype=bool)]).all()
    assert (np.diag(products) > 0).all()


def test_projection_keeps_the_inner_products_of_what_spans_the_plane():
    rows = RNG.normal(size=(2, 500)) * np.array([[1e-8], [1e5]])
    basis = orthonormal_basis(list(rows), 2)
    shown = coordinates(rows, basis, 2)
    assert np.allclose(basis @ basis.T, np.eye(2), atol=1e-14)
    assert np.allclose(shown @ shown.T, rows @ rows.T, rtol=1e-10)


def test_parallel_gradients_leave_the_second_axis_to_the_others():
    basis = orthonormal_basis([np.array([1.0, 0, 0]), np.array([2.0, 0, 0]), np.array([1.0, 1.0, 0])], 2)
    assert np.allclose(basis, [[1, 0, 0], [0, 1, 0]])
    ax = plot_step_geometry(np.array([[1.0, 0, 0], [-2.0, 0, 0]]))
    assert np.allclose(hull(ax), [[1, 0], [-2, 0], [1, 0]])


def test_a_square_root_has_the_gramian():
    gramian = RNG.normal(size=(3, 7))
    gramian = gramian @ gramian.T
    rows = square_root(gramian)
    assert np.allclose(rows @ rows.T, gramian)


def test_gradients_directions_and_cone_are_where_they_are():
    rules = {rule: mtopt.create_combiner(rule)(torch.tensor(TWO)) for rule in ("linear", "mgda")}
    ax = plot_step_geometry(TWO, rules, title="here")
    assert np.allclose(hull(ax)[:2], TWO)
    for name, direction in rules.items():
        assert np.allclose(tip(ax, name), direction)
    assert ax.get_aspect() == 1
    assert legend_text(ax) == ["gradients", "their convex hull", "dual cone: no loss rises", "linear", "mgda"]
    assert {"g1", "g2"} <= {text.get_text() for text in ax.texts}
    (cone,) = [patch for patch in ax.patches if to_hex(patch.get_facecolor()).upper() == CONE]
    assert (cone.get_path().vertices @ TWO.T > -1e-9).all()
    # the min-norm point is at right angles to the hull
    assert tip(ax, "mgda") @ (TWO[0] - TWO[1]) == pytest.approx(0, abs=1e-9)


def test_a_real_jacobian_a_gramian_and_weights_make_one_picture():
    jacobian = RNG.normal(size=(2, 200))
    weights = {"a": [0.3, 0.7], "b": [1.0, -0.2]}
    by_rows = plot_step_geometry(jacobian, {"c": np.array([0.5, 0.5]) @ jacobian}, weights=weights)
    by_gramian = plot_step_geometry(gramian=jacobian @ jacobian.T, weights={**weights, "c": [0.5, 0.5]})
    for ax in (by_rows, by_gramian):
        corners = np.array([*hull(ax)[:2], *(tip(ax, name) for name in "abc")])
        expected = np.array([[1, 0], [0, 1], [0.3, 0.7], [1.0, -0.2], [0.5, 0.5]]) @ jacobian
        assert np.allclose(corners @ corners.T, expected @ expected.T)
        assert not any("projected" in text for text in legend_text(ax))


def test_what_lies_outside_the_plane_is_told():
    ax = plot_step_geometry(np.eye(2, 3), {"a": [3.0, 0.0, 4.0], "b": [0.0, 0.0, 1.0]})
    assert np.allclose(tip(ax, "a"), [3, 0])
    assert "a\n  projected: 60 % of its length" in legend_text(ax)
    assert "b\n  projected: 0 % of its length" in legend_text(ax)


def test_equal_lengths_keep_the_angles():
    ax = plot_step_geometry(TWO, {"a": [0.0, 1e-6], "b": [1e6, 1e6], "zero": [0.0, 0.0]}, lengths="equal")
    longest = np.linalg.norm(TWO, axis=1).max()
    assert np.allclose(tip(ax, "a"), [0, longest])
    assert np.allclose(tip(ax, "b"), longest / np.sqrt(2))
    assert np.allclose(tip(ax, "zero"), 0)


def test_directions_at_one_point_stand_around_one_another():
    ax = plot_step_geometry(TWO, {"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.1, 0.9]})
    size = {artist.get_label(): artist.get_markersize() for artist in ax.lines}
    assert size["a"] > size["b"]
    assert size["c"] < size["a"]


def test_between_opposed_gradients_the_cone_is_a_ray():
    ax = plot_step_geometry({"left": [-1.0, 0.0], "right": [1.0, 0.0], "up": [0.0, 1.0]})
    (cone,) = [patch for patch in ax.patches if to_hex(patch.get_facecolor()).upper() == CONE]
    corners = cone.get_path().vertices
    assert np.allclose(corners[:, 0], 0)
    assert corners[:, 1].min() == 0
    assert corners[:, 1].max() == ax.get_ylim()[1]
    assert cone.get_linewidth() > 0
    assert {"left", "right", "up"} <= {text.get_text() for text in ax.texts}


def test_in_space():
    rows = np.array([[1.0, 0.2, -0.3], [-0.3, 1.0, 0.1], [0.2, -0.4, 1.0]])
    ax = plot_step_geometry(rows, weights={"linear": [1 / 3] * 3}, dimensions=3)
    (line,) = [artist for artist in ax.lines if artist.get_label() == "linear"]
    assert np.allclose(np.ravel(line.get_data_3d()), rows.mean(axis=0))
    given = plt.figure().add_subplot(projection="3d")
    assert plot_step_geometry(rows @ RNG.normal(size=(3, 9)), dimensions=3, ax=given) is given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either gradients"),
        ({"gradients": TWO, "gramian": np.eye(2)}, "found both"),
        ({"gradients": np.ones((4, 5))}, r"two or three rows.*\(4, 5\)"),
        ({"gradients": {"a": [1.0, 2.0], "b": [1.0]}}, "one shape"),
        ({"gradients": {"a": [1.0, 2.0], "b": [1.0, 1.0]}, "names": ["x", "y"]}, "names are those of the mapping"),
        ({"gradients": [[np.nan, 1.0], [0.0, 1.0]]}, "must be finite"),
        ({"gradients": np.zeros((2, 2))}, "not zero"),
        ({"gradients": TWO, "names": ["a"]}, "names must hold 2"),
        ({"gradients": TWO, "directions": {"a": [1.0, 2.0, 3.0]}}, r"directions\['a'\].*\(2,\)"),
        ({"gradients": TWO, "directions": [1.0, 2.0]}, "directions must be a mapping"),
        ({"gradients": TWO, "weights": {"a": [1.0, np.inf]}}, r"weights\['a'\].*NaN or inf"),
        ({"gradients": TWO, "weights": {"a": [1, 1]}, "directions": {"a": [1, 1]}}, r"found \['a'\] in both"),
        ({"gramian": np.eye(2), "directions": {"a": [1.0, 1.0]}}, "pass weights"),
        ({"gramian": [[1.0, 2.0], [2.0, 1.0]]}, "positive semi-definite"),
        ({"gramian": np.ones((2, 3))}, r"gramian must be \(K, K\)"),
        ({"gradients": TWO, "dimensions": 4}, "dimensions must be 2 or 3"),
        ({"gradients": TWO, "lengths": "unit"}, "lengths must be"),
        ({"gradients": np.eye(2, 3), "dimensions": 3}, "pass dimensions=2"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_step_geometry(**arguments)


def test_axes_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="ax must be made with projection='3d'"):
        plot_step_geometry(np.eye(3), dimensions=3, ax=plt.figure().add_subplot())
