"""The two roles of unlearning: which objective is to be retained, and which forgotten."""

from __future__ import annotations

from mtopt.combiners._base import Combiner


def check_roles(retain: int, forget: int) -> None:
    """Raise ValueError unless ``retain`` and ``forget`` are the positions 0 and 1 in some order."""
    if (retain, forget) not in ((0, 1), (1, 0)):
        raise ValueError(
            f"retain and forget must be the positions 0 and 1 of the two objectives, found retain={retain!r}, "
            f"forget={forget!r}"
        )


class RetainsAndForgets(Combiner):
    """A rule for two objectives, whose positions are its hyper-parameters ``retain`` and ``forget``."""

    symmetric = False
    exact_objectives = 2
    retain: int
    forget: int

    def rows_of_roles(self, count: int) -> tuple[int | None, int | None]:
        """The rows of the retain and of the forget gradient; None for a loss that is absent from this step.

        Raises:
            ValueError: the problem does not have exactly two objectives.
        """
        objectives, total = self.objectives_of_rows(count)
        if total != 2:
            raise ValueError(
                f"{type(self).__name__} is for two objectives, one to retain and one to forget, found {total}; "
                "add the losses of each side up first"
            )
        rows = {objective: row for row, objective in enumerate(objectives)}
        return rows.get(self.retain), rows.get(self.forget)
