"""What every problem promises: shapes, gradients, and a front that is one, is reached and is not surpassed."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.pareto import hypervolume, is_nondominated, kkt_residual
from mtopt.problems import list_problems
from tests.problems.instances import CONNECTED, CURVES, FRONTS, INSTANCES, WITHOUT_FRONT

every_problem = pytest.mark.parametrize("problem", INSTANCES.values(), ids=INSTANCES.keys())
every_front = pytest.mark.parametrize("problem", FRONTS.values(), ids=FRONTS.keys())
every_curve = pytest.mark.parametrize("problem", CURVES.values(), ids=CURVES.keys())
every_connected_curve = pytest.mark.parametrize("problem", CONNECTED.values(), ids=CONNECTED.keys())


def jacobian_at(problem, x):
    return torch.autograd.functional.jacobian(problem, x)


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(list_problems()),
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_evaluation_is_batched_in_any_dtype(name, shape, dtype, seed):
    problem = INSTANCES[name]
    count = int(np.prod(shape))
    x = problem.sample_starts(max(count, 1), seed=seed)[:count].reshape(*shape, problem.num_variables).to(dtype)
    values = problem(x)
    assert values.shape == (*shape, problem.num_objectives)
    assert values.dtype == dtype
    rows = x.reshape(-1, problem.num_variables)
    tolerance = 50 * torch.finfo(dtype).eps
    for row, value in zip(rows, values.reshape(-1, problem.num_objectives), strict=True):
        torch.testing.assert_close(problem(row), value, rtol=tolerance, atol=tolerance)


@every_front
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(problem, dtype):
    x = problem.pareto_set(5)
    values = problem(x.to(dtype))
    assert values.dtype == dtype
    assert problem.project(x.to(dtype)).dtype == dtype
    largest = problem(x.to(dtype).double()).abs().max().item()
    tolerance = 40 * torch.finfo(dtype).eps * largest
    torch.testing.assert_close(values.double(), problem(x.to(dtype).double()), rtol=0, atol=tolerance)


@every_problem
def test_gradients_agree_with_finite_differences(problem):
    inside = problem.project(problem.sample_starts(3, seed=2))
    for x in inside:
        assert torch.autograd.gradcheck(problem, (x.requires_grad_(),), atol=1e-5)


@every_problem
def test_wrong_arguments_are_named(problem):
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, found list"):
        problem([0.0] * problem.num_variables)
    with pytest.raises(TypeError, match=r"x must have a floating dtype, found torch\.int64"):
        problem(torch.zeros(problem.num_variables, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., \d+\).*found"):
        problem(torch.zeros(problem.num_variables + 1))
    with pytest.raises(ValueError, match=r"x must have shape"):
        problem.project(torch.tensor(0.0))
    with pytest.raises(ValueError, match="n must be at least 1, found 0"):
        problem.pareto_front(0)
    with pytest.raises(TypeError, match="n must be an int, found float"):
        problem.pareto_set(3.0)


@pytest.mark.parametrize("name", WITHOUT_FRONT)
def test_a_front_that_is_not_known_says_so(name):
    with pytest.raises(LookupError, match=f"the Pareto set of problem '{name}' is not known"):
        INSTANCES[name].pareto_front(5)
    assert INSTANCES[name].hypervolume is None


@every_problem
def test_starts_are_drawn_in_their_region_from_their_own_generator(problem):
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    x = problem.sample_starts(50, seed=4)
    assert torch.equal(torch.rand(3), untouched)
    assert x.shape == (50, problem.num_variables)
    assert x.dtype == torch.float64
    assert torch.equal(x, problem.sample_starts(50, seed=4))
    assert not torch.equal(x, problem.sample_starts(50, seed=5))
    lower, upper = problem.start_region
    assert ((x >= lower) & (x <= upper)).all()
    assert (x.amax(0) - x.amin(0) > 0.5 * (upper - lower)).all()
    assert problem(x).isfinite().all()


@every_problem
def test_projection_is_the_nearest_feasible_point(problem):
    x = 1e3 * torch.randn(20, problem.num_variables, generator=torch.Generator().manual_seed(0)).double()
    before = x.clone()
    projected = problem.project(x)
    assert torch.equal(x, before)
    assert torch.equal(problem.project(projected), projected)
    if problem.bounds is None:
        assert torch.equal(projected, x)
    else:
        lower, upper = problem.bounds
        torch.testing.assert_close(projected, x.clamp(lower, upper), rtol=0, atol=1e-5)
        assert ((projected >= lower) & (projected <= upper)).all()


@every_front
def test_gradients_are_finite_on_the_projected_set(problem):
    """Where the paper's box has infinite slopes, `project` stops short of them."""
    for x in problem.project(problem.pareto_set(7)):
        assert jacobian_at(problem, x).isfinite().all()


@every_front
def test_knowledge_may_be_changed_in_place_by_its_receiver(problem):
    problem.reference_point.zero_().sub_(1e9)
    problem.pareto_set(3).zero_()
    if problem.starts is not None:
        problem.starts.zero_()
    front = problem.pareto_front(5)
    assert (front <= problem.reference_point).all()


@every_front
@pytest.mark.parametrize("n", [1, 2, 6, 200])
def test_no_point_of_the_front_dominates_another(problem, n):
    front = problem.pareto_front(n)
    assert front.shape == (n, problem.num_objectives)
    assert front.dtype == torch.float64
    assert is_nondominated(front).all()
    assert (front < problem.reference_point).all()
    torch.testing.assert_close(problem(problem.pareto_set(n)), front, rtol=0, atol=0)


@every_curve
def test_the_front_is_ordered_and_holds_both_ends(problem):
    front = problem.pareto_front(500)
    assert (front.diff(dim=0)[:, 0] > 0).all()
    assert (front.diff(dim=0)[:, 1] < 0).all()
    finer = problem.pareto_front(1501)
    torch.testing.assert_close(finer[[0, -1]], front[[0, -1]], rtol=1e-12, atol=1e-12)
    assert (finer.amin(dim=0) >= front.amin(dim=0) - 1e-12).all()


@every_curve
def test_the_front_has_no_holes_but_its_own(problem):
    """Twice as many points lie about half as far apart, measured in the ranges of the objectives."""

    def widest(n):
        front = problem.pareto_front(n)
        scaled = (front - front.amin(dim=0)) / (front.amax(dim=0) - front.amin(dim=0))
        return scaled.diff(dim=0).norm(dim=1).sort().values[-5]  # ZDT3 has four gaps

    assert widest(400) < 0.6 * widest(200)
    assert widest(400) < 6 * 2 / 400


@every_connected_curve
def test_the_whole_hypervolume_is_the_limit_of_samples(problem):
    """The part that N points of a falling curve miss lies in the N-1 boxes between neighbours."""
    front = problem.pareto_front(1001)
    sampled = hypervolume(front, problem.reference_point)
    steps = front.diff(dim=0).abs()
    missed = (steps[:, 0] * steps[:, 1]).sum().item()
    whole = problem.hypervolume
    assert sampled < whole < sampled + missed
    assert missed < 5e-3 * whole


@every_connected_curve
def test_the_whole_hypervolume_is_the_area_under_the_curve(problem):
    """Independently of indicator and formula: the trapezoid rule along the front, O(N^-2) exact."""
    front = problem.pareto_front(4001).numpy()
    reference = problem.reference_point.numpy()
    area = np.trapezoid(reference[1] - front[:, 1], front[:, 0])
    area += (reference[0] - front[-1, 0]) * (reference[1] - front[-1, 1])
    assert area == pytest.approx(problem.hypervolume, rel=2e-6)


# the front of the PCGrad toy is a point, which any sample holds
@pytest.mark.parametrize(
    "name",
    [name for name, problem in FRONTS.items() if problem.hypervolume is not None and name != "pcgrad_toy"],
)
def test_the_whole_hypervolume_bounds_samples_and_is_approached(name):
    """For any number of objectives: samples stay below it, and a finer one misses less."""
    problem = FRONTS[name]
    whole = problem.hypervolume
    missed = [whole - hypervolume(problem.pareto_front(n), problem.reference_point) for n in (60, 600)]
    assert missed[0] > missed[1] > 0
    # n points of a (K-1)-dimensional front miss about n^(-1/(K-1)) of it
    assert missed[1] < missed[0] * 1.6 * 10 ** (-1 / (problem.num_objectives - 1))


@every_front
def test_no_point_found_by_search_surpasses_the_front(problem):
    generator = torch.Generator().manual_seed(7)
    drawn = problem.sample_starts(3000, seed=8)
    near = problem.pareto_set(500)
    moved = torch.cat([near + s * torch.randn(near.shape, generator=generator).double() for s in (1e-3, 1e-2, 0.1)])
    found = torch.cat((problem(drawn), problem(problem.project(moved))))
    front = problem.pareto_front(500)
    whole = problem.hypervolume
    if whole is not None and problem.num_objectives <= 4:
        assert hypervolume(torch.cat((found, front)), problem.reference_point) <= whole * (1 + 1e-12)
    else:
        better = (found[:, None] < front[None] - 1e-3 * front.std(dim=0)).all(dim=-1)
        assert not better.any()


@every_front
def test_the_pareto_set_is_stationary(problem):
    for x in problem.pareto_set(9)[1:-1]:
        jacobian = jacobian_at(problem, x)
        free = torch.ones_like(x, dtype=torch.bool)
        if problem.bounds is not None:
            lower, upper = problem.bounds
            free = (x > lower + 1e-6) & (x < upper - 1e-6)
        if free.any():
            rows = jacobian[:, free]
            tolerance = 2e-2 if problem.name == "vlmop3" else 1e-7  # its border is known to a step of a grid
            assert kkt_residual(rows) <= tolerance * max(rows.norm().item(), 1e-3)


# where the variables are no more than the objectives, many points away from the front are trade-offs, too; and DTLZ4 is
# the one whose gradients vanish nearly everywhere
@pytest.mark.parametrize(
    "name", [name for name, problem in FRONTS.items() if problem.num_variables > 2 and name != "dtlz4"]
)
def test_other_points_are_not_stationary(name):
    problem = INSTANCES[name]
    for x in problem.sample_starts(5, seed=11):
        jacobian = jacobian_at(problem, x)
        assert kkt_residual(jacobian) > 1e-6 * jacobian.norm().item()


def test_every_registered_problem_is_tested_under_its_name():
    assert set(list_problems()) <= set(INSTANCES)
    assert all(INSTANCES[name].name == name for name in itertools.chain(list_problems(), WITHOUT_FRONT))
