"""RE21 and RE24: a four-bar truss and a hatch cover, two objectives each."""

import itertools
import math

import torch

from mtopt.problems._real_world import RealWorldProblem, violation
from mtopt.problems._registry import register_problem

_ROOT = math.sqrt(2)


@register_problem("re21")
class RE21(RealWorldProblem):
    """Four-bar truss: volume (cm^3) against the displacement of a joint (cm); four cross sections x (cm^2).

        f1 = L (2 x1 + sqrt(2) x2 + sqrt(x3) + x4)
        f2 = F L / E (2/x1 + 2 sqrt(2)/x2 - 2 sqrt(2)/x3 + 2/x4)

    F = 10 kN, E = 2e5 kN/cm^2, L = 200 cm; x1, x4 in [1, 3], x2, x3 in [sqrt(2), 3].

    Front, exactly: both objectives grow with x3, so x3 = sqrt(2); in the others f1 is linear and f2 convex, and the
    minimisers of their weighted sums are x1 = t, x2 = x4 = sqrt(2) t, each clipped to its interval, t from 1/sqrt(2)
    to 3. Ideal point (1237.8414, .00276142), nadir (2886.3696, .04). (A file of another nadir, (2086.37, .003414),
    went round with the suite's code; its own front contradicts it.) Source before the suite: Cheng and Li 1999.
    """

    _lower = (1.0, _ROOT, _ROOT, 1.0)
    _upper = (3.0, 3.0, 3.0, 3.0)
    _ideal = (1237.8414230005742, 0.002761423749158419)
    _nadir = (2886.3695604236013, 0.04)

    @property
    def hypervolume(self) -> float:
        """By quadrature along the curve, split where a bar meets its bound."""
        from scipy.integrate import quad

        reference = self.reference_point
        worst_second = reference[1].item()

        def area(t: float) -> float:
            position = torch.tensor(t, dtype=torch.float64, requires_grad=True)
            first, second = self.evaluate(self._design(position)).unbind()
            (slope,) = torch.autograd.grad(first, position)
            return (worst_second - second.item()) * slope.item()

        knots = (1 / _ROOT, 1.0, 3 / _ROOT, 3.0)
        curve = sum(quad(area, *ends, epsrel=1e-12)[0] for ends in itertools.pairwise(knots))
        best = self.evaluate(self._design(torch.tensor(3.0, dtype=torch.float64)))
        last = (reference - best).prod().item()
        return float(curve) + last

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2, x3, x4 = x.unbind(dim=-1)
        volume = 200 * (2 * x1 + _ROOT * x2 + x3.sqrt() + x4)
        displacement = 0.01 * (2 / x1 + 2 * _ROOT / x2 - 2 * _ROOT / x3 + 2 / x4)
        return torch.stack((volume, displacement), dim=-1)

    def _design(self, t: torch.Tensor) -> torch.Tensor:
        """The optimal design (.., 4) at position t (..)."""
        bars = (t.clamp(1, 3), (_ROOT * t).clamp(_ROOT, 3), torch.full_like(t, _ROOT), (_ROOT * t).clamp(1, 3))
        return torch.stack(bars, dim=-1)

    def _pareto_set(self, n: int) -> torch.Tensor:
        # 1/t moves f2 as t moves f1: equal steps of log t are a fair spread over both
        steps = torch.linspace(-math.log(_ROOT), math.log(3), n, dtype=torch.float64)
        return self._design(steps.exp())


@register_problem("re24")
class RE24(RealWorldProblem):
    """Hatch cover: weight against the violation of four limits; flange thickness x1 and beam height x2 (cm).

        f1 = x1 + 120 x2, f2 = sum of max(-g_i, 0)
        g1 = 1 - s/700, g2 = 1 - t/450, g3 = 1 - d/1.5, g4 = 1 - s/s_k
        s = 4500/(x1 x2), t = 1800/x2, d = 56.2e4/(E x1 x2^2), s_k = E x1^2/100, E = 7e5 kg/cm^2

    x1 in [.5, 4], x2 in [.5, 50]: the box of the published ideal point (60.5, 0). The text of the suite, after its
    source (Amir and Hasegawa 1989), says x2 >= 4, which would make the least f1 480.5.
    """

    _lower = (0.5, 0.5)
    _upper = (4.0, 50.0)
    _ideal = (60.5, 0.0)
    _nadir = (481.608088535, 44.2819047619)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        thickness, height = x.unbind(dim=-1)
        bending = 4500 / (thickness * height)
        shear = 1800 / height
        deflection = 56.2e4 / (7e5 * thickness * height.square())
        buckling = 7e5 / 100 * thickness.square()
        violated = violation(1 - bending / 700, 1 - shear / 450, 1 - deflection / 1.5, 1 - bending / buckling)
        return torch.stack((thickness + 120 * height, violated), dim=-1)
