"""The report of an earlier comparison in the same folder stays."""

from mtopt.experiments.presentation._earlier import set_aside_earlier

ONE, OTHER = {"cells": [1], "environment": {"torch": "2"}}, {"cells": [2]}


def write(folder, text):
    (folder / "report.html").write_text(text)
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "ranking.svg").write_text(text)


def pages(folder):
    return sorted(path.read_text() for path in folder.glob("report*.html"))


def test_the_same_comparison_makes_its_report_anew(tmp_path):
    assert set_aside_earlier(tmp_path, ONE) is None
    write(tmp_path, "one")
    assert set_aside_earlier(tmp_path, {**ONE, "environment": {"torch": "3"}}) is None
    assert pages(tmp_path) == ["one"]


def test_going_to_and_fro_keeps_one_page_of_each(tmp_path):
    for round_ in range(3):
        for request, text in ((ONE, "one"), (OTHER, "other")):
            kept = set_aside_earlier(tmp_path, request)
            assert (kept is None) == (round_ == 0 and request is ONE)
            assert kept is None or (kept.parent, kept.read_text()) == (tmp_path, "other" if request is ONE else "one")
            write(tmp_path, text)
    # the page in its place, and of each the copy that was set aside last
    assert pages(tmp_path) == ["one", "other", "other"]
    figures = sorted((folder / "ranking.svg").read_text() for folder in tmp_path.glob("figures*"))
    assert figures == ["one", "other", "other"]


def test_what_nothing_tells_of_is_never_replaced(tmp_path):
    write(tmp_path, "of an older mtopt")
    (tmp_path / "report-earlier.html").write_text("mine")
    kept = set_aside_earlier(tmp_path, ONE)
    assert kept == tmp_path / "report-earlier-2.html"
    assert (tmp_path / "figures-earlier-2" / "ranking.svg").read_text() == "of an older mtopt"
    assert pages(tmp_path) == ["mine", "of an older mtopt"]


def test_a_mark_that_was_tampered_with_leads_nowhere_else(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    write(folder, "one")
    (folder / "report.of").write_text("/../../victim")
    assert set_aside_earlier(folder, ONE) == folder / "report-earlier.html"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
