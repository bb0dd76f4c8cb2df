"""The code that pages and docstrings print, found by Sybil and run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sybil import Document, Example, Lexeme, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
PAGES = [path.relative_to(ROOT).as_posix() for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")))]

NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*\Z")
"""What stands right before a block that no test can run, with the reason."""

LITERAL = re.compile(r"::\n\n(?=(?P<indent> +)\S)")
"""The head of a literal block: in this package's docstrings, of Python code."""


def literal_blocks(document: Document) -> Iterator[Region]:
    """A parser of Sybil: each indented block after ``::``, as Python."""
    for start in LITERAL.finditer(document.text):
        indent = start["indent"]
        body = re.compile(rf"(?:(?:{indent}.*|[ ]*)(?:\n|\Z))+").match(document.text, start.end())
        lines = [line[len(indent) :] for line in body[0].splitlines(keepends=True)]
        source = Lexeme("".join(lines).rstrip() + "\n", offset=start.end() - start.start(), line_offset=1)
        yield Region(start.start(), body.end(), parsed=source, evaluator=PythonEvaluator())


def page_examples(page: str, compare: Callable[[Example], str | None] | None = None) -> list[Example]:
    """The examples of a page from top to bottom, without those marked "not run".

    ``compare`` judges the blocks marked ``text``, which show what the code before them prints.
    """
    parsers = [PythonCodeBlockParser()]
    if compare is not None:
        parsers.append(CodeBlockParser(language="text", evaluator=compare))
    document = Sybil(parsers=parsers).parse(ROOT / page)
    return [example for example in document.examples() if not NOT_RUN.search(document.text[: example.start])]


def docstring_examples(module: Path) -> list[Example]:
    """The examples in a module's docstrings."""
    sybil = Sybil(parsers=[literal_blocks], document_types={".py": Document})  # Sybil's own would run the module, too
    return list(sybil.parse(module).examples())


def run(examples: list[Example], **given: Any) -> dict[str, Any]:
    """Run the examples of one document in one namespace that begins with what was given, and return it."""
    namespace = examples[0].document.namespace
    namespace.update(given, __name__=f"printed.{Path(examples[0].path).stem}")
    for example in examples:
        example.evaluate()
    return namespace
