"""Small pieces of the page and of the captions."""

from __future__ import annotations

from collections.abc import Sequence

from mtopt._text import html_text


def count(number: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def in_panels(panels: Sequence[str]) -> str:
    """Elements side by side where there is room for them, and else one below the other."""
    return f'<div class="panels">{"".join(f"<div>{panel}</div>" for panel in panels)}</div>'


def paragraph(text: str) -> str:
    """The text as a paragraph of the page; nothing where there is none."""
    return f"<p>{html_text(text)}</p>" if text else ""
