"""One's own data: a model unlearns the rows of a file, what can be measured is measured, and a page tells of it.

``mtopt unlearn`` is :func:`unlearn` with the fields of :class:`Request` as options.
"""

from .command import unlearn
from .request import Request
from .rows import read_rows

__all__ = ["Request", "read_rows", "unlearn"]
