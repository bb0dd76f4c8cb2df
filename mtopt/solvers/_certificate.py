"""What a solver gives beside its answer: how far from what was asked the answer can be."""

from __future__ import annotations

from dataclasses import dataclass

from mtopt._errors import SolverError

TOLERANCE = 1e-10
"""Largest violation, beyond what the evidence leaves open, that passes as solved."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Proof of how well a small convex program was solved, in the unit of the data.

    Attributes:
        residual: the largest violation of what the program asks of the direction, and what the rounding of the Gramian
            may hide, together; for unit gradients, over the direction's length, or over a length that the gradients
            alone fix where the program says so. Never over the size of the weights, which are the solver's own.
        gap: duality gap in the units of the program over the best value that a single row attains, where the
            program has one; in floating point it cannot be smaller than about ``1e-16`` times the largest ratio of
            two row norms.
        method: how the answer was found, for example ``"closed form"`` or ``"nnls"``.
    """

    residual: float
    gap: float | None
    method: str

    def require(self, program: str, tolerance: float = TOLERANCE) -> None:
        """Raise :class:`SolverError` unless the residual is at most ``tolerance``."""
        if not self.residual <= tolerance:
            raise SolverError(
                f"{program} was not solved: residual {self.residual:.2e} by {self.method}, above {tolerance:.0e}. "
                "The Gramian is probably not positive semi-definite to working precision; compute it in float64."
            )


def certify(
    program: str,
    violation: float,
    hidden: float,
    length: float,
    gap: float | None,
    method: str,
    excused: float | None = None,
) -> Certificate:
    """The certificate of an answer, if it is one.

    Args:
        program: its name, for the error.
        violation: the largest violation found, in unit gradients.
        hidden: what rounding of the evidence may hide of it, in the same unit.
        length: of the direction, or what stands in for it.
        gap, method: as in the certificate.
        excused: the largest violation that the evidence leaves no way to mend. Default: four times what is hidden.

    Raises:
        SolverError: the violation is above that by more than ``1e-10`` of the length.
    """
    violation = max(violation, 0.0)
    excused = 4.0 * hidden if excused is None else excused
    if not violation - excused <= TOLERANCE * length:
        raise SolverError(
            f"{program} was not solved: {violation / length:.2e} of the direction's length is missing by {method}, "
            f"above {TOLERANCE:.0e}. The Gramian is probably not positive semi-definite to working precision; compute "
            "it in float64."
        )
    return Certificate((violation + hidden) / length, gap, method)
