"""What both generators of pages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = "generated"
"""Below ``docs``; made anew by every build."""


def write(app: Any, name: str, text: str) -> bool:
    """Write a generated page, unless it is there with the same text: Sphinx then need not read it again.

    Returns whether it was written.
    """
    path = Path(app.srcdir) / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


def first_line(thing: object) -> str:
    """The first sentence of a docstring, on one line."""
    head = (thing.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(head.split()).removesuffix("::")
