"""What the parts of the page and of the figures say alike."""

from __future__ import annotations

from mtopt._text import html_text


def count(number: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def paragraph(text: str) -> str:
    """The text as a paragraph of the page; nothing where there is none."""
    return f"<p>{html_text(text)}</p>" if text else ""
