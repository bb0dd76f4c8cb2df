"""What an automatic learning rate found when it probed the loss along a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Verdict = Literal["accepted", "no descent", "no curvature", "poor fit", "not finite", "no update", "no loss"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
_UNMEASURED = ("no update", "no loss")

_POINT, _LOSS = "point ", "loss "
_NUMBERS = ("slope", "curvature", "fit", "optimum", "previous", "rate", "count")


@dataclass(frozen=True, slots=True)
class Probe:
    """The losses along one step of the optimizer, and the learning rate that was made of them.

    With ``w' - w`` the optimizer's update at the rate probed, ``phi(s) = L(w + s (w' - w))`` was measured at the points
    s, and ``phi(s) - phi(0) = -slope s + curvature s^2 / 2`` was fitted. Rates are those of the optimizer's first
    group, without the factor of a schedule.

    Attributes:
        points: s, multiples of the update; 0 is where training stands, 1 where the step at that rate leads.
        losses: phi(s) at each; empty when nothing was measured.
        slope: what the loss falls by to first order in one such update (eta g.d).
        curvature: eta^2 d.Hd.
        fit: R^2 of the parabola. With three points it is always 1: two unknowns, two equations.
        verdict: ``"accepted"``, or which gate refused: ``"no descent"`` (slope <= 0), ``"no curvature"``
            (curvature <= 0), ``"poor fit"``, ``"not finite"`` (a NaN or infinite loss), ``"no update"`` (the optimizer
            changes nothing), ``"no loss"`` (the objective is absent from this batch).
        optimum: the rate at the parabola's lowest point, eta* = eta slope / curvature; None unless accepted.
        previous, rate: the rate before and after.
        count: how often the loss was measured along the step: 1, or more in a start-up phase.
        searching: a start-up phase was under way.
    """

    points: tuple[float, ...]
    losses: tuple[float, ...]
    slope: float
    curvature: float
    fit: float
    verdict: Verdict
    optimum: float | None
    previous: float
    rate: float
    count: int = 1
    searching: bool = False

    @property
    def accepted(self) -> bool:
        """All the gates let the parabola through."""
        return self.verdict == "accepted"

    def numbers(self) -> dict[str, float]:
        """The probe as numbers under names: a row of a history. What is None, or was not measured, is left out."""
        row = {name: value for name in _NUMBERS if (value := getattr(self, name)) is not None}
        row |= {"verdict": VERDICTS.index(self.verdict), "searching": float(self.searching)}
        row |= {f"{_POINT}{index}": value for index, value in enumerate(self.points)}
        return row | {f"{_LOSS}{index}": value for index, value in enumerate(self.losses)}

    @classmethod
    def from_numbers(cls, row: Mapping[str, float]) -> Probe:
        """The probe that :meth:`numbers` gave ``row`` of."""
        verdict = VERDICTS[int(row["verdict"])]
        count = sum(name.startswith(_POINT) for name in row)
        measured = 0 if verdict in _UNMEASURED else count  # one that is NaN is not in the row
        return cls(
            points=_sequence(row, _POINT, count),
            losses=_sequence(row, _LOSS, measured),
            slope=row.get("slope", float("nan")),
            curvature=row.get("curvature", float("nan")),
            fit=row.get("fit", float("nan")),
            verdict=verdict,
            optimum=row.get("optimum"),
            previous=row["previous"],
            rate=row["rate"],
            count=int(row["count"]),
            searching=bool(row["searching"]),
        )


def _sequence(row: Mapping[str, float], prefix: str, count: int) -> tuple[float, ...]:
    return tuple(row.get(f"{prefix}{index}", float("nan")) for index in range(count))
