"""RE31, 32, 33, 34 and 37: design problems with three objectives."""

import math

import torch

from mtopt.problems._real_world import RealWorldProblem, violation
from mtopt.problems._registry import register_problem


@register_problem("re31")
class RE31(RealWorldProblem):
    """Two-bar truss: weight, stress in the first bar, violations; cross sections x1, x2 and height x3.

        f1 = x1 sqrt(16 + x3^2) + x2 sqrt(1 + x3^2)
        f2 = 20 sqrt(16 + x3^2) / (x1 x3)
        f3 = sum of max(-g_i, 0): g1 = .1 - f1, g2 = 1e5 - f2, g3 = 1e5 - 80 sqrt(1 + x3^2) / (x2 x3)

    x1, x2 in [1e-5, 100], x3 in [1, 3]. The objectives span eleven orders of magnitude, most of them within 1e-3 of
    the lower bounds. (Coello Coello and Pulido 2005, in the suite.)
    """

    _lower = (1e-5, 1e-5, 1.0)
    _upper = (100.0, 100.0, 3.0)
    _ideal = (5.53731918799e-05, 1 / 3, 0.0)
    _nadir = (500.002668442, 8246211.25124, 19359919.7502)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2, x3 = x.unbind(dim=-1)
        long, short = (16 + x3.square()).sqrt(), (1 + x3.square()).sqrt()
        weight = x1 * long + x2 * short
        stress = 20 * long / (x1 * x3)
        other_stress = 80 * short / (x2 * x3)
        return torch.stack((weight, stress, violation(0.1 - weight, 1e5 - stress, 1e5 - other_stress)), dim=-1)


@register_problem("re32")
class RE32(RealWorldProblem):
    """Welded beam: cost, deflection of the end (in), violations; weld x1 (height) and x2 (length), beam x3 and x4 (in).

        f1 = 1.10471 x1^2 x2 + .04811 x3 x4 (14 + x2), f2 = 4 P L^3 / (E x4 x3^3), f3 = sum of max(-g_i, 0)
        g1 = 13600 - tau, g2 = 30000 - 6 P L / (x4 x3^2), g3 = x4 - x1, g4 = P_c - P
        tau^2 = t'^2 + t' t'' x2 / R + t''^2, t' = P / (sqrt(2) x1 x2), t'' = M R / J, M = P (L + x2/2)
        R^2 = x2^2/4 + ((x1 + x3)/2)^2, J = 2 sqrt(2) x1 x2 (x2^2/12 + ((x1 + x3)/2)^2)
        P_c = 4.013 E x3 x4^3 / (6 L^2) (1 - x3/(2 L) sqrt(E/(4 G)))

    P = 6000 lb, L = 14 in, E = 3e7 psi, G = 1.2e7 psi; x1, x4 in [.125, 5], x2, x3 in [.1, 10]. (Ray and Liew 2002, in
    the suite.)
    """

    _lower = (0.125, 0.1, 0.1, 0.125)
    _upper = (5.0, 10.0, 10.0, 5.0)
    _ideal = (0.010205496875, 0.00043904, 0.0)
    _nadir = (37.7831517014, 17561.6, 425062976.628)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2, x3, x4 = x.unbind(dim=-1)
        load, length, young, shear = 6000.0, 14.0, 30e6, 12e6
        cost = 1.10471 * x1.square() * x2 + 0.04811 * x3 * x4 * (14 + x2)
        deflection = 4 * load * length**3 / (young * x4 * x3**3)

        arm = ((x1 + x3) / 2).square()
        radius = (x2.square() / 4 + arm).sqrt()
        polar = 2 * math.sqrt(2) * x1 * x2 * (x2.square() / 12 + arm)
        primary = load / (math.sqrt(2) * x1 * x2)
        torsion = load * (length + x2 / 2) * radius / polar
        stress = (primary.square() + primary * torsion * x2 / radius + torsion.square()).sqrt()
        bending = 6 * load * length / (x4 * x3.square())
        slenderness = 1 - x3 / (2 * length) * math.sqrt(young / (4 * shear))
        buckling = 4.013 * young * x3 * x4**3 / (6 * length**2) * slenderness
        violated = violation(13600 - stress, 30000 - bending, x4 - x1, buckling - load)
        return torch.stack((cost, deflection, violated), dim=-1)


@register_problem("re33")
class RE33(RealWorldProblem):
    """Disc brake: mass (kg), stopping time (s), violations; radii x1 < x2 (mm), force x3 (N), friction surfaces x4.

        f1 = 4.9e-5 (x2^2 - x1^2)(x4 - 1), f2 = 9.82e6 (x2^2 - x1^2) / (x3 x4 (x2^3 - x1^3)), f3 = sum of max(-g_i, 0)
        g1 = x2 - x1 - 20, g2 = .4 - x3 / (3.14 (x2^2 - x1^2))
        g3 = 1 - 2.22e-3 x3 (x2^3 - x1^3) / (x2^2 - x1^2)^2, g4 = .0266 x3 x4 (x2^3 - x1^3) / (x2^2 - x1^2) - 900

    x1 in [55, 80], x2 in [75, 110], x3 in [1000, 3000], x4 in [11, 20]. Where (x2^3 - x1^3) / (x2^2 - x1^2) appears it
    is computed as (x1^2 + x1 x2 + x2^2) / (x1 + x2), the same without 0/0 at x1 = x2. g2 and g3 have a true pole
    there. In the corner of the box with x1 > x2 the mass is negative, and part of the front lies there. The published
    nadir is not the worst of that front. (Ray and Liew 2002, in the suite.)
    """

    _lower = (55.0, 75.0, 1000.0, 11.0)
    _upper = (80.0, 110.0, 3000.0, 20.0)
    _ideal = (-0.721525, 1.13907203907, 0.0)
    _nadir = (5.3067, 3.12833430979, 25.0)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        inner, outer, force, surfaces = x.unbind(dim=-1)
        ring = (outer - inner) * (outer + inner)
        lever = (inner.square() + inner * outer + outer.square()) / (inner + outer)
        mass = 4.9e-5 * ring * (surfaces - 1)
        time = 9.82e6 / (force * surfaces * lever)
        violated = violation(
            outer - inner - 20,
            0.4 - force / (3.14 * ring),
            1 - 2.22e-3 * force * lever / ring,
            0.0266 * force * surfaces * lever - 900,
        )
        return torch.stack((mass, time, violated), dim=-1)


@register_problem("re34")
class RE34(RealWorldProblem):
    """Vehicle crashworthiness: mass (kg), acceleration in a full frontal crash, intrusion in an offset one; thicknesses
    x_1 .. x_5 in [1, 3] mm of reinforced members.

    One linear and two quadratic response surfaces (Liao et al., "Multiobjective optimization for crash safety design of
    vehicles using stepwise regression model", 2008), whose coefficients are in the code. Smooth, not convex.
    """

    _lower = (1.0,) * 5
    _upper = (3.0,) * 5
    _ideal = (1661.7078225, 6.14280000608, 0.0394)
    _nadir = (1695.2002035, 10.7454, 0.26399999965)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2, x3, x4, x5 = x.unbind(dim=-1)
        mass = 1640.2823 + 2.3573285 * x1 + 2.3220035 * x2 + 4.5688768 * x3 + 7.7213633 * x4 + 4.4559504 * x5
        acceleration = (
            6.5856
            + x1 * (1.15 - 0.1106 * x1 - 0.3695 * x4 + 0.0861 * x5)
            + x2 * (-1.0427 + 0.3628 * x4)
            + x3 * (0.9738 - 0.3437 * x3)
            + x4 * (0.8364 + 0.1764 * x4)
        )
        intrusion = (
            -0.0551
            + x1 * (0.0181 - 0.0073 * x2)
            + x2 * (0.1024 - 0.0241 * x2 + 0.024 * x3 - 0.0118 * x4)
            + x3 * (0.0421 - 0.0204 * x4 - 0.008 * x5)
            + 0.0109 * x4.square()
        )
        return torch.stack((mass, acceleration, intrusion), dim=-1)


@register_problem("re37")
class RE37(RealWorldProblem):
    """Rocket injector: temperatures of its face and of the tip, and the length of the combustion zone, all scaled; flow
    angle a, hydrogen area h, oxygen area o and tip thickness t, in [0, 1].

    Two quadratic response surfaces and a cubic one (Vaidyanathan, Tucker, Papila, Shyy, "CFD-based design optimization
    for single element rocket injector", 2003), whose coefficients are in the code. Smooth, not convex. The published
    nadir is not the worst of the published front.
    """

    _lower = (0.0,) * 4
    _upper = (1.0,) * 4
    _ideal = (0.00889341391106, 0.00488, -0.431499999825)
    _nadir = (0.98949120096, 0.956587924661, 0.987530948586)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        a, h, o, t = x.unbind(dim=-1)
        face = (
            0.692
            + a * (0.477 - 0.167 * a - 0.0129 * h - 0.0634 * o - 0.0521 * t)
            + h * (-0.687 + 0.0796 * h - 0.0257 * o + 0.00156 * t)
            + o * (-0.080 + 0.0877 * o + 0.00198 * t)
            + t * (-0.0650 + 0.0184 * t)
        )
        length = (
            0.153
            + a * (-0.322 + 0.175 * a + 0.0185 * h - 0.251 * o + 0.0134 * t)
            + h * (0.396 - 0.0701 * h + 0.179 * o + 0.0296 * t)
            + o * (0.424 + 0.0150 * o + 0.0752 * t)
            + t * (0.0226 + 0.0192 * t)
        )
        tip = (
            0.370
            + a * (-0.205 - 0.135 * a + 0.0141 * h + 0.208 * o + 0.353 * t)
            + h * (0.0307 + 0.0998 * h - 0.0301 * o)
            + o * (0.108 - 0.226 * o - 0.0497 * t)
            + t * (1.019 - 0.423 * t)
            + a * (0.202 * h * a - 0.281 * o * a - 0.342 * h.square() - 0.281 * h * o - 0.184 * t.square())
            + h * o * (0.281 * o - 0.245 * h)
        )
        return torch.stack((face, length, tip), dim=-1)
