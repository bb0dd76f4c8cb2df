"""Makes every picture of docs/figures.md again, by running the code that the page prints: a few minutes.

    python docs/images/make_figures.py [FOLDER]

The pictures go to FOLDER; default: the folder of this file.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "figures.md"


def blocks() -> list[str]:
    """The Python code of the page, from top to bottom."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def make(folder: Path) -> None:
    """Run the page in one namespace, as a reader would who types it in; ``save`` writes to ``folder``."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        names: dict[str, Any] = {}
        for number, block in enumerate(blocks(), start=1):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
            plt.close("all")
    finally:
        os.chdir(before)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
