"""Lines of a published data set's text files."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, without their ends.

    Raises:
        ValueError: it is not UTF-8; the message names the file.
        OSError: as of any file.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; restore the file from its source") from error
