"""Where the page and the figures of a comparison stand."""

from __future__ import annotations

from pathlib import Path

PAGE, FIGURES = "report.html", "figures"


def own_folder(directory: Path) -> Path:
    """The folder of the figures of a comparison, without those of the time before; links are replaced, not followed."""
    folder = directory / FIGURES
    for place in (directory, folder):
        remove_link(place)
        place.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("*.png"), *folder.glob("*.svg")):
        stale.unlink()
    return folder


def remove_link(place: Path) -> None:
    """Remove a symbolic link, and nothing that it leads to."""
    if place.is_symlink():
        place.unlink()
