"""What an integration says when the library it is for is not there."""

from __future__ import annotations

from importlib.util import find_spec


def require(extra: str, *packages: str) -> None:
    """Raise unless one of ``packages`` is installed; ``extra`` brings the first of them.

    Raises:
        ModuleNotFoundError: none of them is.
    """
    if not any(find_spec(package) is not None for package in packages):
        raise ModuleNotFoundError(
            f"mtopt.integrations.{extra} needs {packages[0]}, which is not installed; pip install 'mtopt[{extra}]'",
            name=packages[0],
        )
