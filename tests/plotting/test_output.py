"""Files and inline SVG: the same bytes each time, text as text, ids of their own."""

import functools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mtopt.plotting import panels_to_svg, plot_front, plot_trajectories, save, shared_legend, to_svg

SERIES = {"linear": np.array([[0.1, 0.9], [0.6, 0.4]]), 'id="x" <&>': np.array([[0.3, 0.6], [50.0, 0.2]])}
FRONT = np.c_[np.linspace(0, 1, 9), np.linspace(1, 0, 9)]
# One process for two tests: starting it takes seconds.
SCRIPT = """
import sys
import mtopt.plotting
assert "plot_front" in dir(mtopt.plotting)
mtopt.plotting.rule_styles(["a"])
assert "matplotlib" not in sys.modules, "importing mtopt.plotting imported matplotlib"
import matplotlib.pyplot as plt
import numpy as np
import matplotlib
matplotlib.use("Agg")
from mtopt.plotting import plot_trajectories, save
ax = plot_trajectories({"a": np.eye(2)}, problem_levels=lambda x: (x**2).sum(-1), pareto_set=np.eye(2))
save(ax.figure, sys.argv[1], ("svg",))
"""


def figure():
    return plot_front(SERIES, true_front=FRONT, title="a title").figure


@functools.cache
def inline():
    return to_svg(figure())


def ids(svg):
    return re.findall(r'\sid="([^"]+)"', re.sub(r">[^<]*<", "><", svg))


def test_save_writes_each_format_and_says_where(tmp_path):
    files = save(figure(), tmp_path / "new" / "front.zdt1", ("png", "svg", "pdf"))
    assert [file.name for file in files] == ["front.zdt1.png", "front.zdt1.svg", "front.zdt1.pdf"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[2].read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in files[2].read_bytes()


def test_saved_twice_the_files_are_the_same(tmp_path):
    (first,) = save(figure(), tmp_path / "first", ("svg",))
    (second,) = save(figure(), str(tmp_path / "second"), ("svg",))
    assert first.read_bytes() == second.read_bytes()
    assert "<dc:date>" not in first.read_text(encoding="utf-8")


def test_another_process_imports_lazily_and_saves_the_same_file(tmp_path):
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "other")], check=True)
    ax = plot_trajectories({"a": np.eye(2)}, problem_levels=lambda x: (x**2).sum(-1), pareto_set=np.eye(2))
    (here,) = save(ax.figure, tmp_path / "here", ("svg",))
    assert here.read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_text_stays_text():
    texts = [element.text for element in ElementTree.fromstring(inline()).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a title", "linear", "true front", "← f1, lower is better"} <= set(texts)


def test_inline_svg_has_no_prolog_and_no_metadata_and_no_foreign_styles():
    svg = to_svg(figure(), title="what it <shows>", prefix="here")
    assert svg.startswith("<svg")
    assert "<metadata" not in svg
    assert "<title>what it &lt;shows&gt;</title>" in svg
    assert "#here *{" in svg
    assert ElementTree.fromstring(svg).get("id") == "here"


def test_ids_of_two_figures_on_one_page_differ_and_every_reference_is_met():
    first, second = inline(), to_svg(plot_front(SERIES).figure)
    assert not set(ids(first)) & set(ids(second))
    for svg in (first, second):
        found = ids(svg)
        assert len(found) == len(set(found))
        references = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
        assert references
        assert set(references) <= set(found)
    assert first == to_svg(figure())
    assert not set(ids(first)) & set(ids(to_svg(figure(), prefix="again")))


def test_a_rule_name_that_looks_like_markup_is_kept():
    texts = [element.text or "" for element in ElementTree.fromstring(inline()).iter()]
    assert any('id="x" <&>' in text for text in texts)


@pytest.mark.parametrize("formats", ["png", (), ("png", "docx")])
def test_unknown_formats_are_refused(formats, tmp_path):
    with pytest.raises(ValueError, match="formats must be a sequence of some of"):
        save(figure(), tmp_path / "x", formats)


def test_a_prefix_unfit_for_an_id_is_refused():
    with pytest.raises(ValueError, match="prefix must be a letter"):
        to_svg(figure(), prefix="1 2")


def test_panels_are_elements_of_their_own_and_leave_the_figure_as_it_was():
    drawn, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for ax, name in zip(axes, ("first panel", "second panel"), strict=True):
        ax.plot([0, 1], [0, 1], label="a line")
        ax.set_xlabel(name)
    shared_legend(axes)
    before = to_svg(drawn)
    first, second, legend = panels_to_svg(drawn)
    assert [name in first for name in ("first panel", "second panel", "a line")] == [True, False, False]
    assert [name in second for name in ("first panel", "second panel", "a line")] == [False, True, False]
    assert [name in legend for name in ("first panel", "second panel", "a line")] == [False, False, True]
    widths = [float(re.search(r'width="([\d.]+)pt"', svg)[1]) for svg in (first, second, legend, before)]
    assert sum(widths[:3]) < widths[3] + 20
    assert max(widths[:2]) < widths[3] / 2
    assert to_svg(drawn) == before


def test_a_legend_beside_a_panel_is_an_element_as_small_as_it_is():
    ax = plot_front(SERIES, true_front=FRONT)
    before = to_svg(ax.figure)
    panel, legend = panels_to_svg(ax.figure)
    assert ["true front" in panel, "true front" in legend] == [False, True]
    assert ["lower is better" in panel, "lower is better" in legend] == [True, False]
    (width, height), (whole, high) = (
        [float(re.search(rf'{side}="([\d.]+)pt"', svg)[1]) for side in ("width", "height")] for svg in (legend, before)
    )
    assert width < 0.6 * whole
    assert height < 0.6 * high
    assert re.findall(">(.+)</text>", to_svg(ax.figure)) == re.findall(">(.+)</text>", before)


def test_a_panel_in_three_dimensions_keeps_its_legend():
    ax = plot_front({"a": np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])})
    (panel,) = panels_to_svg(ax.figure)
    assert ">a<" in panel
