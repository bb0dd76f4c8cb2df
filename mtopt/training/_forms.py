"""What a record of a step holds beside its numbers."""

from __future__ import annotations

from typing import Any

from mtopt._errors import CheckpointError

# (losses, weights, norms, cosines kept, certificate's method, plan, reason): what a record holds beside its numbers.
# Few of them are ever distinct, so a step stores an index.
Form = tuple[
    tuple[str, ...], tuple[str, ...] | None, tuple[str, ...] | None, bool, tuple[str, bool] | None, str, str | None
]


def checked_form(form: Any) -> Form:
    """A form that was saved.

    Raises:
        CheckpointError: it is none.
    """

    def names(value: Any) -> bool:
        return isinstance(value, tuple) and all(isinstance(name, str) for name in value)

    if isinstance(form, tuple) and len(form) == 7:
        losses, weights, norms, kept, solved, plan, reason = form
        if (
            names(losses)
            and all(value is None or names(value) for value in (weights, norms))
            and isinstance(kept, bool)
            and (solved is None or (isinstance(solved, tuple) and list(map(type, solved)) == [str, bool]))
            and isinstance(plan, str)
            and isinstance(reason, str | None)
        ):
            return form
    raise CheckpointError(f"its history has records of a form that mtopt does not write: {form!r:.100}")
