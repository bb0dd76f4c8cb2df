"""Checks of what a rule promises where gradients depend on each other, and of what its certificate says of it.

Slack comes in units of the data: the length of a gradient times that of the direction, and the rounding of a sum of
gradients. It never grows with the weights that a rule happened to find: these may be all error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch

from mtopt.linalg import Precision
from mtopt.testing import samplers
from mtopt.testing._subject import Case, Subject, brief

VIOLATION = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-4 + 2.0**-8}
"""What ``g_k . d`` may be below zero, in unit gradients over the length of d: half a bit of d itself, in bfloat16."""

VANISHING = VIOLATION | {torch.bfloat16: 1e-4}
"""Length that passes as zero, over what the rule gives such rows without a conflict."""

_ADDED_IN = {torch.bfloat16: torch.float32}

_FLOOR = 1e-15
"""What a certificate in float64 need not see."""


@dataclass(frozen=True)
class Scale:
    """How long the directions are that a rule makes of rows of some norms.

    Attributes:
        usual: the length for rows that do not conflict.
        longest: that of the longest row, if directions are in the unit of the rows: it rounds their sum.
    """

    usual: float
    longest: float

    def rounding(self, dtype: torch.dtype) -> float:
        return 4.0 * torch.finfo(_ADDED_IN.get(dtype, dtype)).eps * max(self.usual, self.longest)


def data_scale(subject: Subject, case: Case) -> Scale:
    """The scale of a rule's directions for rows as long as these, found on rows of these norms along the axes."""
    norms = case.jacobian.double().norm(dim=1)
    columns = subject.columns or len(norms)
    jacobian = torch.zeros(len(norms), columns, dtype=torch.float64)
    for k, norm in enumerate(norms):
        jacobian[k, k % columns] = norm
    apart = Case("rows of the same norms along the axes", jacobian, case.losses)
    usual, doubled = (float(subject.direction(at).norm()) for at in (apart, apart.scaled(2.0)))
    in_their_unit = math.isclose(doubled, 2.0 * usual, rel_tol=1e-3)
    subject.case = case
    return Scale(usual, float(norms.max()) if in_their_unit else 0.0)


def dependent_rows(subject: Subject) -> None:
    """Opposite and repeated rows, rows of 1 and -1 and rows that sum to zero, alone and beside others, up to 16 of
    them, twelve decades apart: finite answers in float64, float32 and bfloat16. If the rule weighs rows, the same
    numbers have the same direction in all of these, but for the rounding of the direction; or for a rule that does not
    declare ``continuous``, where the dtype cannot tell how many of the gradients are independent."""
    for case in subject.dependent():
        scale = data_scale(subject, case)
        for dtype in VIOLATION:
            cast = case.to(dtype)
            found = subject.direction(cast).double()
            subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")
            if dtype == torch.float64 or case.rounded or not subject.rule.weighted:
                continue
            if not (subject.rule.continuous or tells_the_rank(cast.jacobian)):
                continue
            expected = subject.direction(cast.to(torch.float64))
            subject.case = cast
            apart, length = float((found - expected).norm()), max(float(expected.norm()), scale.usual)
            subject.expect(
                apart <= VIOLATION[dtype] * length + scale.rounding(dtype),
                f"the direction and that of the same numbers in float64 differ by {apart / max(length, 1e-300):.1e} "
                f"of their size: {brief(found)} and {brief(expected)}",
            )


def tells_the_rank(jacobian: torch.Tensor) -> bool:
    """Whether the components that gradients have are longer than their dtype's rounding could be."""
    units = torch.nn.functional.normalize(jacobian.double())
    squares = torch.linalg.svdvals(units).square()
    components = squares[squares > 1e-20 * squares.sum()]
    rounding = 16.0 * Precision.of(jacobian.dtype).rank_share(len(jacobian)) * float(squares[0])
    return bool((components > rounding).all())


def no_conflict(subject: Subject) -> None:
    """Where ``non_conflicting`` is declared: no gradient has a negative product with the direction, in float64, float32
    and bfloat16, after other steps, too; and the direction vanishes where nothing else is left."""
    if not subject.rule.non_conflicting:
        return
    for case in [*subject.regular(), *subject.ill_scaled(), *subject.degenerate()]:
        expect_no_conflict(subject, case)
        if subject.rule.stateful:
            expect_no_conflict(subject, case, steps_before=2)
    for case in subject.dependent():
        scale = data_scale(subject, case)
        for dtype in VIOLATION:
            expect_no_conflict(subject, case.to(dtype), scale=scale)


def expect_no_conflict(subject: Subject, case: Case, steps_before: int = 0, scale: Scale | None = None) -> None:
    """``g_k . d >= 0`` up to the tolerance of the dtype times the lengths, and to the rounding of a sum of rows."""
    rule = subject.fresh()
    for step in range(steps_before):
        earlier = samplers.generic(subject.seed + 300 + step, *case.jacobian.shape)
        subject.direction(subject.made("an earlier step", earlier), rule)
    dtype = case.jacobian.dtype
    jacobian, direction = case.jacobian.double(), subject.direction(case, rule).double()
    scale = data_scale(subject, case) if scale is None else scale
    norms, length, rounding = jacobian.norm(dim=1), float(direction.norm()), scale.rounding(dtype)
    vanishing = length <= VANISHING[dtype] * scale.usual + rounding
    if case.cancels and subject.rule.weighted:
        subject.expect(vanishing, f"all rows cancel, but the direction is {brief(direction)}")
    elif not (vanishing and case.dependent):
        products = jacobian @ direction
        slack = norms * (VIOLATION[dtype] * length + rounding)
        worst = int((products + slack).argmin())
        cosine = float(products[worst] / (norms[worst] * length).clamp(min=1e-300))
        subject.expect(bool(products[worst] >= -slack[worst]), f"loss {worst} rises: its cosine with d is {cosine:.2g}")


def certificates(subject: Subject) -> None:
    """A certificate of a rule that declares ``non_conflicting`` owns up to at least a tenth of what the direction of
    its weights violates, in exact arithmetic, in unit gradients over the length of the direction."""
    if not subject.rule.non_conflicting:
        return
    for case in [*subject.regular(), *subject.degenerate(), *subject.dependent()]:
        scale = data_scale(subject, case)
        for dtype in VIOLATION:
            expect_honest(subject, case.to(dtype), scale)


def expect_honest(subject: Subject, case: Case, scale: Scale) -> None:
    """The certificate of one answer against the violation of its weights; where these vanish, over the rule's scale."""
    rule = subject.fresh()
    weights = subject.outcome(case, rule).weights
    if weights is None or rule.certificate is None or scale.usual == 0.0:
        return
    length, violation = exact_violation(case.jacobian, weights)
    if length <= VANISHING[case.jacobian.dtype] * scale.usual:
        error = (length if case.cancels else violation) / scale.usual
    else:
        error = violation / length
    residual = rule.certificate.residual
    subject.expect(
        residual >= 0.1 * error - _FLOOR, f"its certificate says {residual:.1e}, but the error is {error:.1e}"
    )


def exact_violation(jacobian: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    """``||d||`` and ``max_k -g_k . d / ||g_k||`` for ``d = sum_k w_k g_k``, without rounding until the end."""
    rows, (exact, *_) = _whole(jacobian), _whole(weights[None])
    # whole numbers times one power of two for each row, and one for all weights
    shift = min(exponent for _, exponent in rows)
    direction = [
        sum(w * row[at] << (exponent - shift) for w, (row, exponent) in zip(exact[0], rows, strict=True) if w)
        for at in range(jacobian.shape[1])
    ]
    unit = Fraction(2) ** (shift + exact[1])
    norms = jacobian.double().norm(dim=1).tolist()
    falls = [
        float(Fraction(sum(map(int.__mul__, row, direction))) * unit * Fraction(2) ** exponent) / norm
        for (row, exponent), norm in zip(rows, norms, strict=True)
        if norm
    ]
    return math.hypot(*(float(entry * unit) for entry in direction)), max(0.0, -min(falls, default=0.0))


def _whole(matrix: torch.Tensor) -> list[tuple[list[int], int]]:
    """Each row as whole numbers times a power of two."""
    found = []
    for row in matrix.double().tolist():
        mantissas = [math.frexp(entry) for entry in row]
        least = min((exponent for mantissa, exponent in mantissas if mantissa), default=0) - 53
        found.append(([int(math.ldexp(m, 53)) << (e - least - 53) if m else 0 for m, e in mantissas], least))
    return found
