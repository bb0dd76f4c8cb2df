"""The report of an earlier comparison in the same folder: kept beside the new one."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtopt.files import write_text

PAGE, FIGURES = "report.html", "figures"
_MARK = "report.of"


def set_aside_earlier(directory: Path, request: Mapping[str, Any]) -> Path | None:
    """Makes room for the page and the figures of a comparison, and notes whose they will be.

    Those of another comparison go to ``report-NAME.html`` and ``figures-NAME``, where NAME follows from what was
    compared, so that going to and fro between two comparisons keeps one page of each; NAME is ``earlier`` where nothing
    tells.

    Returns:
        The earlier page, or the folder of its figures where there is no page; None where nothing was in the way.
    """
    mark = directory / _MARK
    name = _name_of(request)
    marked = mark.read_text(encoding="utf-8", errors="replace") if mark.is_file() else ""
    if marked == name:
        return None
    known = re.fullmatch("[0-9a-f]{8}", marked) is not None
    names = [marked] if known else ("earlier" if n == 1 else f"earlier-{n}" for n in itertools.count(1))
    places = [place for place in (directory / FIGURES, directory / PAGE) if place.exists()]
    kept: list[Path] = []
    for earlier in names:
        kept = [place.with_name(f"{place.stem}-{earlier}{place.suffix}") for place in places]
        if known or not any(path.exists() for path in kept):
            break
    for place, target in zip(places, kept, strict=True):
        if target.is_dir():  # figures of the same comparison, from the time before
            shutil.rmtree(target)
        place.replace(target)
    write_text(mark, name)
    return kept[-1] if kept else None


def _name_of(request: Mapping[str, Any]) -> str:
    compared = {key: value for key, value in request.items() if key != "environment"}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:8]
