"""Figures to files and to web pages, the same bytes at every run."""

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox

from mtopt._text import html_text
from mtopt.files import written_whole
from mtopt.plotting.layout import root_figure
from mtopt.plotting.theme import style

# What would change from one run, or one matplotlib, to the next.
_UNDATED: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}
_FORMATS = tuple(_UNDATED)


def save(fig: Figure | SubFigure, path: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes a figure once per format: 150 dots an inch, tight margins, and the same bytes for the same figure.

    Args:
        fig: the figure, as in ``ax.figure``.
        path: the file without its suffix; missing folders are made, and existing files replaced.
        formats: of ``"png"``, ``"svg"`` (text kept as text) and ``"pdf"``. Default: png and svg.

    Returns:
        The files, in the order of ``formats``.

    Raises:
        ValueError: an unknown format, or none.
    """
    if isinstance(formats, str) or not formats or any(form not in _FORMATS for form in formats):
        raise ValueError(f"formats must be a sequence of some of {_FORMATS}; found {formats!r}: pass ('png', 'svg')")
    path = Path(path)
    written = []
    with style():
        for form in formats:
            file = path.with_name(f"{path.name}.{form}")
            with written_whole(file) as content:
                root_figure(fig).savefig(content, format=form, dpi=150, bbox_inches="tight", metadata=_UNDATED[form])
            written.append(file)
    return written


def to_svg(fig: Figure | SubFigure | Path, *, title: str | None = None, prefix: str | None = None) -> str:
    """The figure as an ``<svg>`` element to paste into an HTML page.

    Several of them may stand on one page: the ids and the style sheet of each are its own.

    Args:
        fig: the figure, as in ``ax.figure``; or an SVG file that :func:`save` wrote, which saves drawing it again.
        title: what a screen reader says for the figure, also its tooltip. Default: none.
        prefix: put before every id, unique on the page and fit for an XML id. Default: made from the content, so
            that it is the same at every run.

    Returns:
        The element, without XML declaration and document type.

    Raises:
        ValueError: ``prefix`` cannot start an XML id.
    """
    if prefix is not None and not re.fullmatch(r"[A-Za-z_][\w-]*", prefix):
        raise ValueError(f"prefix must be a letter followed by letters, digits, '-' or '_'; found {prefix!r}")
    return _inline(fig.read_text(encoding="utf-8") if isinstance(fig, Path) else _drawn(fig), title, prefix)


def _inline(svg: str, title: str | None = None, prefix: str | None = None) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    if prefix is None:
        prefix = "fig" + hashlib.sha256(svg.encode()).hexdigest()[:10]
    # Tags only: the same characters within a text are the reader's.
    svg = re.sub(r"<[^>]+>", lambda tag: _own_ids(tag[0], f"{prefix}-"), svg)
    # A style sheet within an inline SVG would apply to the whole page.
    svg = svg.replace('<style type="text/css">*{', f'<style type="text/css">#{prefix} *{{', 1)
    heading = f"\n <title>{html_text(title)}</title>" if title else ""
    look = f' id="{prefix}" role="img" style="max-width: 100%; height: auto"'
    return re.sub(r"<svg[^>]*", lambda tag: tag[0] + look, svg, count=1).replace(">", f">{heading}", 1)


def panels_to_svg(fig: Figure | SubFigure) -> list[str]:
    """Each panel of a figure as an ``<svg>`` element, then the legends beside them: a narrow page can stack them.

    Args:
        fig: the figure, as in ``ax.figure``; it is left as it was. In three dimensions a panel keeps its legend.

    Returns:
        The elements, as :func:`to_svg` gives them, cropped to what they show.
    """
    figure = root_figure(fig)
    figure.draw_without_rendering()  # settles the layout, which must not close the gaps that are left below
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    legends = [legend for ax in figure.axes if (legend := _legend_beside(ax)) is not None]
    within = [child for legend in legends for child in legend.axes.get_children()]
    seen = {artist: artist.get_visible() for artist in (*figure.axes, *figure.legends, *within)}
    found = []
    try:
        for part in (*figure.axes, *legends, *figure.legends):
            for artist, visible in seen.items():
                artist.set_visible(visible)
            for artist in _others(part, figure, legends):
                artist.set_visible(False)
            found.append(_inline(_drawn(figure, part if part in legends else None)))
    finally:
        for artist, visible in seen.items():
            artist.set_visible(visible)
        figure.set_layout_engine(engine)
    return found


def _legend_beside(ax: Axes) -> Legend | None:
    """The legend of a panel in two dimensions, where it stands outside it."""
    legend = ax.get_legend()
    if legend is None or ax.name == "3d" or legend.get_window_extent().overlaps(ax.get_window_extent()):
        return None
    return legend


def _others(part: Artist, figure: Figure, legends: Sequence[Legend]) -> list[Artist]:
    """What is not to be seen with a panel, or with a legend, which is drawn by its panel."""
    panel = part.axes if part in legends else part
    others: list[Artist] = [each for each in (*figure.axes, *figure.legends) if each is not panel]
    if part in legends and part.axes is not None:
        return [*others, *(child for child in part.axes.get_children() if child is not part)]
    return [*others, *legends]


def _drawn(fig: Figure | SubFigure, part: Artist | None = None) -> str:
    """The SVG of a figure, cropped to what is seen in it or to a part: a panel takes its room with nothing in it."""
    figure, buffer = root_figure(fig), io.StringIO()
    crop: Bbox | Literal["tight"] = "tight"
    if part is not None:
        crop = part.get_window_extent().padded(4).transformed(figure.dpi_scale_trans.inverted())
    with style():
        figure.savefig(buffer, format="svg", dpi=150, bbox_inches=crop, metadata=_UNDATED["svg"])
    return buffer.getvalue()


def _own_ids(tag: str, prefix: str) -> str:
    tag = re.sub(r'(\sid=")', rf"\g<1>{prefix}", tag)
    tag = re.sub(r'(href="#)', rf"\g<1>{prefix}", tag)
    return re.sub(r"(url\(#)", rf"\g<1>{prefix}", tag)
