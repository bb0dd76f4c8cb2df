"""What the suites' own commands share: a folder is checked before hours are spent, a closed pipe ends quietly."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CLOSED_PIPE = 128 + 13
"""The exit status of a program that the signal of a closed pipe has ended."""


def folder(text: str) -> str:
    """A folder to write to, there or not: the type of an argument.

    Raises:
        ArgumentTypeError: it, or what should hold it, is a file.
    """
    for place in (Path(text), *Path(text).parents):
        if place.is_dir():
            break
        if place.exists():
            raise argparse.ArgumentTypeError(f"{place} is a file, not a folder; give another")
    return text


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and leaves with its exit status."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still to be written goes nowhere, or the end of the program would fail on it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    sys.exit(status)
