"""The name of a comparison: its place in the folder of results, beside the others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mtopt._errors import StoreError
from mtopt._text import file_names
from mtopt.experiments._store import FILE_NAME, ResultStore

_NAME = re.compile(r"\w[\w.()+-]{0,99}")


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` can be that of a folder beside the store."""
    if not _NAME.fullmatch(name) or name.casefold().startswith(FILE_NAME):
        raise ValueError(
            f"name must be at most 100 letters, digits and .()+-_, and not begin with {FILE_NAME}, found {name!r}"
        )


def name_of(store: ResultStore, name: str | None, asked: Mapping[str, Any]) -> str:
    """``name``, or one made from what is asked for; never that of another comparison in the store.

    Raises:
        ValueError: ``name`` is another comparison's.
    """
    known = {each.casefold(): each for each in store.comparisons()}
    if name is not None:
        if not _is_free(store, name, asked, known):
            raise ValueError(f"name {name!r} is that of another comparison in {store.directory}; give another --name")
        return name
    own = file_names({0: _parts(asked)})[0][:60]
    if _NAME.fullmatch(own) and _is_free(store, own, asked, known):
        return own
    return f"{own.strip('.()+-') or 'comparison'}-{_digest(asked)}"


def folder_of(name: str) -> str:
    """The folder of a comparison, whatever a store from elsewhere calls it."""
    own = name if _NAME.fullmatch(name) else file_names({0: ["comparison", name, _digest(name)]})[0]
    return f"comparison-{own}" if own.casefold().startswith(FILE_NAME) else own


def _is_free(store: ResultStore, name: str, asked: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    taken = known.get(name.casefold())
    if taken is None:
        return True
    try:
        return taken == name and store.request(name).get("asked") == asked
    except StoreError:  # damaged: comparing again is what mends it
        return taken == name


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def _parts(asked: Mapping[str, Any]) -> Sequence[str]:
    """``toy+multitask-quick-mgda-pcgrad-seeds5``; after ``quick`` stands the tuner, unless it is the usual one."""
    counts = [f"{what}{asked[what]}" for what in ("seeds", "trials") if asked[what] is not None]
    how = [*(["quick"] if asked["quick"] else []), *([asked["tuning"]] if "tuning" in asked else [])]
    return ["+".join(asked["suites"]), *how, *(asked["combiners"] or ()), *counts]
