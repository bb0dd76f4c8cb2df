"""What an object shows of itself: tables for a notebook, and data frames for whoever has pandas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtopt._text import html_text

if TYPE_CHECKING:
    import pandas as pd


def number_text(value: float | None, form: str = ".4g") -> str:
    """A number for a cell; nothing for one that is not there."""
    return "" if value is None or math.isnan(value) else format(value, form)


def html_table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], *, note: str = "") -> str:
    """A table whose every text is escaped; the first column names, the others are numbers."""
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, range(len(row)), row))}</tr>" for row in rows)
    below = f"<p>{html_text(note)}</p>" if note else ""
    title = f'<caption style="text-align: left">{html_text(caption)}</caption>'
    return f"<div><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"


def _cell(position: int, content: object) -> str:
    tag, side = ("th", "left") if position == 0 else ("td", "right")
    return f'<{tag} style="text-align: {side}">{html_text(content)}</{tag}>'


def data_frame(columns: Mapping[str, Any] | Sequence[Mapping[str, Any]], index: str | None = None) -> pd.DataFrame:
    """A ``pandas.DataFrame`` of columns, or of rows; ``index`` is the column that numbers them.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install 'mtopt[pandas]'") from error
    frame = pd.DataFrame(columns)
    return frame if index is None else frame.set_index(index)
