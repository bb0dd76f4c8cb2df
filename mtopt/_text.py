"""Text that came from a user (names of rules, losses, tasks, splits; what errors say), made fit for where it is shown.

One function for each medium: a terminal, a figure, a page, a table of comma-separated values, a file's name.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

K = TypeVar("K", bound=Hashable)

# Control characters drive a terminal, format characters among those below turn the direction of what follows, and lone
# surrogates cannot be written at all.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What a spreadsheet takes for the beginning of a formula; quotes before it count, so that no two texts become one.
_FORMULA = re.compile(r"'*[=+\-@]")

_FILE_NAME_BYTES = 120


def visible(text: object, *, keep: str = "") -> str:
    r"""The text on one line, with each character that is not seen written out (``\x1b``); those in ``keep`` stay."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), str(text))


def terminal_text(text: object, *, keep: str = "\n") -> Text:
    """For rich: never read as markup."""
    from rich.text import Text

    return Text(visible(text, keep=keep))


def console(file: Any = None, **settings: Any) -> Console:
    """A console of rich on which a pipe that the reader has closed is an error, as for ``print``, and no exit."""
    from rich.console import Console

    class Told(Console):
        def on_broken_pipe(self) -> None:
            raise

    return Told(file=file, **settings)


def figure_text(text: object) -> str:
    r"""For matplotlib: ``$`` does not begin a formula, and a name that begins with ``_`` stands in the legend, too."""
    shown = visible(text, keep="\n").replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{shown}" if shown.startswith("_") else shown


def figure_label(text: object) -> str:
    """For an axis label, in which ``$...$`` may be a formula: as it is where matplotlib can read it, else as text."""
    from matplotlib.mathtext import MathTextParser

    shown = visible(text, keep="\n")
    try:
        MathTextParser("path").parse(shown)
    except ValueError:
        return figure_text(text)
    return shown


def html_text(text: object) -> str:
    """For a page, between tags or within the quotes of an attribute."""
    return html.escape(visible(text, keep="\n"))


def csv_text(text: object) -> str:
    """For a cell of a table: a spreadsheet takes it for text, not for a formula."""
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def joined(names: Sequence[object], separator: str = ", ") -> str:
    """Several names as one, and other names never as the same one."""
    texts = [str(name) for name in names]
    if any(separator.strip() in text for text in texts):
        texts = [repr(text) for text in texts]
    return separator.join(texts)


def file_names(parts: Mapping[K, Sequence[str]]) -> dict[K, str]:
    """A file's name, without suffix, made from the parts of each key: ``suite-task``.

    No two of them are the same, on a disk that does not tell capitals from small letters either, none leads to another
    folder, and none is longer than a file's name may be.
    """
    plain = {key: _file_name(names) for key, names in parts.items()}
    folded = [unicodedata.normalize("NFKC", name).casefold() for name in plain.values()]
    found: dict[K, str] = {}
    for (key, name), same in zip(plain.items(), folded, strict=True):
        digest = hashlib.sha256(repr(tuple(parts[key])).encode("utf-8", "backslashreplace")).hexdigest()[:8]
        whole = len(name.encode()) <= _FILE_NAME_BYTES
        cut = name if whole else name.encode()[:_FILE_NAME_BYTES].decode("utf-8", "ignore")
        found[key] = name if whole and folded.count(same) == 1 else f"{cut}-{digest}"
    return found


def _file_name(names: Sequence[str]) -> str:
    # nothing but letters, digits and a few marks; never hidden, never empty
    return re.sub(r"[^\w.()+-]+", "-", "-".join(map(str, names))).strip(".-") or "unnamed"


def _written_out(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 0x7F else repr(character)[1:-1]
