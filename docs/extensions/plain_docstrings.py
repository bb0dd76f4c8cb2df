"""Docstrings are written to be read by ``help``: this makes what is plain text there plain text on the site, too."""

from __future__ import annotations

import re
from typing import Any

SPANS = re.compile(r"``[^`]+``|:\w+:`[^`]+`|`[^`]+`|\S+://\S+")
"""What has markup of its own: literals, references, addresses."""

MARKUP = re.compile(r"(?<!\\)[*|]|(?<=\w)_(?=\W|$)")
"""Letters of mathematics that reStructuredText would take for emphasis, substitutions and links."""

LEFT_ALONE = re.compile(r"\*[A-Za-z][\w -]*\*")
"""A word or two in emphasis, as docstrings of lists have it."""


def escape(line: str) -> str:
    """The line with its mathematics escaped."""
    pieces, end = [], 0
    for span in re.finditer(f"{SPANS.pattern}|{LEFT_ALONE.pattern}", line):
        pieces += [MARKUP.sub(r"\\\g<0>", line[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*pieces, MARKUP.sub(r"\\\g<0>", line[end:])])


def make_plain(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Escape a docstring's prose in place; literal blocks stay as they are."""
    literal: int | None = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None:
            lines[number] = escape(line)
            if line.rstrip().endswith("::"):
                literal = indent


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", make_plain, priority=400)  # before napoleon's 500
    return {"parallel_read_safe": True}
