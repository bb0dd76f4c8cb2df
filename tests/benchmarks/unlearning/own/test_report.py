"""The page in words: how far it went, and whether it went too far."""

import pytest

from benchmarks.unlearning.own.report import draw_tradeoff, tell


def line(step, forget, retain, **more):
    return {"step": step, "forget_probability": forget, "retain_probability": retain, **more}


def test_a_run_that_kept_what_was_to_be_retained():
    told = tell([line(0, 0.98, 0.97), line(5, 0.4, 0.97), line(10, 0.021, 0.96)])
    assert "In 10 steps the probability of what was to be forgotten went from 0.98 to 0.021" in told
    assert "retained from 0.97 to 0.96." in told
    assert "try" not in told
    assert "never saw" not in told


def test_a_run_that_went_too_far_is_told_how_far_it_could_have_gone():
    lines = [
        line(0, 0.98, 0.97, holdout_probability=0.05),
        line(5, 0.4, 0.95),
        line(10, 0.3, 0.94),
        line(15, 1e-9, 0.2),
    ]
    told = tell(lines)
    assert "Rows that it never saw had 0.05 before" in told
    assert "While 95% of the retained probability was kept, the other came down to 0.3, at step 10: try" in told


def test_a_run_that_was_never_seen_in_between():
    told = tell([line(0, 0.98, 0.97), line(5, 1e-9, 0.2)])
    assert "At no evaluation on the way was 95% of the retained probability kept: try a lower --learning-rate" in told


def test_the_figure_shows_the_path_and_what_held_out_rows_had():
    import matplotlib.pyplot as plt

    rouge = {"forget_rouge_l_recall": 0.5, "retain_rouge_l_recall": None}  # texts too short to continue
    lines = [line(0, 0.98, 0.97, holdout_probability=0.05, **rouge), line(5, 0.4, 0.95, **rouge)]
    figure = draw_tradeoff(lines)
    left, right = figure.axes
    paths = [drawn.get_xydata().tolist() for drawn in left.lines]
    assert [[0.98, 0.97], [0.4, 0.95]] in paths
    assert [[0.05, 0.97]] in paths
    assert right.lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.5])
    plt.close(figure)
