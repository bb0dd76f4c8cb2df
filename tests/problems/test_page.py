"""docs/problems.md: every problem has its row, whose numbers are those of the problem."""

from pathlib import Path

import pytest

from mtopt.problems import create_problem, list_problems

PAGE = (Path(__file__).parents[2] / "docs" / "problems.md").read_text()
ROWS = {
    cells[0].strip("`"): cells
    for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines())
    if cells[0].startswith("`") and cells[0].endswith("`") and len(cells) == 7
}


def numbers(problem):
    """Variables, objectives, reference point and hypervolume as the page prints them."""
    reference = problem.reference_point
    if (reference == reference[0]).all() and len(reference) > 1:
        point = f"all {reference[0].item():.4g}"
    else:
        point = ", ".join(f"{value:.4g}" for value in reference.tolist())
    volume = problem.hypervolume
    return str(problem.num_variables), str(problem.num_objectives), point, "-" if volume is None else f"{volume:.6g}"


def test_the_table_has_the_problems_of_the_registry():
    assert sorted(ROWS) == list_problems()


@pytest.mark.parametrize("name", list_problems())
def test_row(name):
    _, variables, objectives, front, reference, volume, expected = ROWS[name]
    problem = create_problem(name)
    assert (variables, objectives, reference, volume) == numbers(problem)
    assert expected
    try:
        problem.pareto_front(3)
    except LookupError:
        assert front == "not known"
    else:
        assert front != "not known"
