"""RE41, 42, 61 and 91: design problems with four, six and nine objectives."""

import torch

from mtopt.problems._real_world import RealWorldProblem, violation
from mtopt.problems._registry import register_problem


@register_problem("re41")
class RE41(RealWorldProblem):
    """Car side impact: weight, force on the pubic bone, mean velocity of pillar and door, violations; thicknesses
    x_1 .. x_7 of parts (mm).

    Response surfaces whose coefficients are in the code, f4 = sum of max(-g_i, 0) over ten limits of load, criteria,
    deflections and velocities. (Jain and Deb 2014, with the materials of the original eleven variables fixed.)
    """

    _lower = (0.5, 0.45, 0.5, 0.5, 0.875, 0.4, 0.4)
    _upper = (1.5, 1.35, 1.5, 1.5, 2.625, 1.2, 1.2)
    _ideal = (15.576004, 3.58525, 10.61064375, 0.0)
    _nadir = (39.2905121788, 4.42725, 13.09138125, 9.49401929991)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2, x3, x4, x5, x6, x7 = x.unbind(dim=-1)
        weight = 1.98 + 4.9 * x1 + 6.67 * x2 + 6.98 * x3 + 4.01 * x4 + 1.78 * x5 + 1e-5 * x6 + 2.73 * x7
        force = 4.72 - 0.5 * x4 - 0.19 * x2 * x3
        pillar = 10.58 - x2 * (0.674 * x1 + 0.67275)
        door = 16.45 - 0.489 * x3 * x7 - 0.843 * x5 * x6
        abdomen = 1.16 - 0.3717 * x2 * x4 - 0.0092928 * x3
        upper_criterion = 0.261 - x1 * (0.0159 * x2 + 0.06486) - 0.019 * x2 * x7 + 0.0144 * x3 * x5 + 0.0154464 * x6
        middle_criterion = (
            0.214
            + 0.00817 * x5
            - (0.045195 + 0.0135168) * x1
            + x2 * (0.03099 * x6 - 0.018 * x7 - 0.018 * x2)
            + (0.007176 + 0.023232) * x3
            - 0.00364 * x5 * x6
        )
        lower_criterion = 0.74 - x2 * (0.61 - 0.227 * x2) - 0.031296 * x3 - 0.031872 * x7
        upper_rib = 28.98 + 3.818 * x3 - 4.2 * x1 * x2 + 1.27296 * x6 - 2.68065 * x7
        middle_rib = 33.86 + 2.95 * x3 - x2 * (5.057 * x1 + 3.795) - 3.4431 * x7 + 1.45728
        lower_rib = 46.36 - 9.9 * x2 - 4.4505 * x1
        violated = violation(
            1 - abdomen,
            0.32 - upper_criterion,
            0.32 - middle_criterion,
            0.32 - lower_criterion,
            32 - upper_rib,
            32 - middle_rib,
            32 - lower_rib,
            4 - force,
            9.9 - pillar,
            15.7 - door,
        )
        return torch.stack((weight, force, (pillar + door) / 2, violated), dim=-1)


@register_problem("re42")
class RE42(RealWorldProblem):
    """Conceptual design of a bulk carrier: cost a tonne carried, weight of the light ship (t), minus the annual cargo
    (t), violations; length, beam, depth, draft (m), speed (knots), block coefficient.

    Regressions of Parsons and Scott, "Formulation of multicriterion design optimization problems for solution with
    scalar numerical optimization methods", 2004, as the suite has them; their coefficients are in the code. Days at sea
    are there (5000/24) times the speed, where a voyage of 5000 miles takes (5000/24) over the speed: the ship burns
    more than it can carry, and cargo and cost are negative (at each of 20,000 points drawn). It is kept,
    since the published points rest on it.
    """

    _lower = (150.0, 20.0, 13.0, 10.0, 14.0, 0.63)
    _upper = (274.32, 32.31, 25.0, 11.71, 18.0, 0.75)
    _ideal = (-2756.2590400638524, 3962.557843228888, 1947.880856925791, 0.0)
    _nadir = (-663.57644, 15690.493, 5179.22898, 3207.04559)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        length, beam, depth, draft, speed, block = x.unbind(dim=-1)
        displacement = 1.025 * length * beam * draft * block
        froude = 0.5144 * speed / (9.8065 * length).sqrt()
        a = 4977.06 * block.square() - 8105.61 * block + 4456.51
        b = -10847.2 * block.square() + 12817.0 * block - 6960.32
        power = displacement ** (2 / 3) * speed**3 / (a + b * froude)

        steel = 0.034 * length**1.7 * beam**0.7 * depth**0.4 * block**0.5
        outfit = length**0.8 * beam**0.6 * depth**0.3 * block**0.1
        light_ship = steel + outfit + 0.17 * power**0.9
        deadweight = displacement - light_ship

        sea_days = 5000 / 24 * speed
        consumption = 0.19 * power * 24 / 1000 + 0.2
        cargo = deadweight - consumption * (sea_days + 5) - 2 * deadweight.sqrt()
        port_days = 2 * (cargo / 8000 + 0.5)
        trips = 350 / (sea_days + port_days)
        annual_cargo = cargo * trips

        capital = 0.2 * 1.3 * (2000 * steel**0.85 + 3500 * outfit + 2400 * power**0.8)
        running = 40000 * deadweight**0.3
        voyage = (1.05 * consumption * sea_days * 100 + 6.3 * deadweight**0.8) * trips

        stability = 0.53 * draft + (0.085 * block - 0.002) * beam.square() / (draft * block) - (1 + 0.52 * depth)
        violated = violation(
            length / beam - 6,
            15 - length / depth,
            19 - length / draft,
            0.45 * deadweight**0.31 - draft,
            0.7 * depth + 0.7 - draft,
            500000 - deadweight,
            deadweight - 3000,
            0.32 - froude,
            stability - 0.07 * beam,
        )
        cost = (capital + running + voyage) / annual_cargo
        return torch.stack((cost, light_ship, -annual_cargo, violated), dim=-1)


@register_problem("re61")
class RE61(RealWorldProblem):
    """Water resource planning: costs of a drainage network, storage, treatment, expected flood damage, expected loss,
    and violations; detention storage x1, treatment rate x2, overflow rate x3.

        f1 = 106780.37 (x2 + x3) + 61704.67, f2 = 3000 x1, f3 = 305700 * 2289 x2 / (.06 * 2289)^.65
        f4 = 250 * 2289 exp(-39.75 x2 + 9.9 x3 + 2.74), f5 = 25 (1.39/(x1 x2) + 4940 x3 - 80)
        f6 = sum of max(-g_i, 0) over seven limits of pollution

    x1 in [.01, .45], x2, x3 in [.01, .1]. (Musselman and Talavage 1980, by way of Ray, Tai, Seow 2001.) Every objective
    is convex on the box: linear scalarization with the right weights finds any point of the front.
    """

    _lower = (0.01, 0.01, 0.01)
    _upper = (0.45, 0.10, 0.10)
    _ideal = (63840.2774, 30.0, 285346.896494, 183749.967061, 7.22222222222, 0.0)
    _nadir = (80896.9128355, 1350.0, 2853468.96494, 7076861.67064, 87748.6339553, 2.50994535821)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        storage, treatment, overflow = x.unbind(dim=-1)
        product = storage * treatment
        rare = 1 / product
        network = 106780.37 * (treatment + overflow) + 61704.67
        plant = 305700 * 2289 / (0.06 * 2289) ** 0.65 * treatment
        damage = 250 * 2289 * torch.exp(-39.75 * treatment + 9.9 * overflow + 2.74)
        loss = 25 * (1.39 * rare + 4940 * overflow - 80)
        violated = violation(
            1 - (0.00139 * rare + 4.94 * overflow - 0.08),
            1 - (0.000306 * rare + 1.082 * overflow - 0.0986),
            50000 - (12.307 * rare + 49408.24 * overflow + 4051.02),
            16000 - (2.098 * rare + 8046.33 * overflow - 696.71),
            10000 - (2.138 * rare + 7883.39 * overflow - 705.04),
            2000 - (0.417 * product + 1721.26 * overflow - 136.54),
            550 - (0.164 * rare + 631.13 * overflow - 54.48),
        )
        return torch.stack((network, 3000 * storage, plant, damage, loss, violated), dim=-1)


@register_problem("re91")
class RE91(RealWorldProblem):
    """Car cab: weight, and eight loads, criteria, deflections and velocities of a side impact over their limits;
    thicknesses x_1 .. x_7 (mm), as RE41.

    In the suite four more variables are drawn at each evaluation: two materials around .345 and .192, and the height
    and the place of the barrier around 0. **Here they are at their means**, so that the problem is a function. The
    published ideal and nadir are of the draws, except for the weight, and only scale the objectives here: the third
    range is a hundred times too wide. Coefficients, in the code: Deb, Gupta, Daum, Branke, Mall, Padmanabhan,
    "Reliability-based optimization using evolutionary algorithms", 2009; from 2 on the objectives are max(., 0).
    """

    _lower = (0.5, 0.45, 0.5, 0.5, 0.875, 0.4, 0.4)
    _upper = (1.5, 1.35, 1.5, 1.5, 2.625, 1.2, 1.2)
    _ideal = (
        *(15.549754, 0.0, 0.0, 0.0907242296262, 0.367459287472),
        *(0.527364946723, 0.735415465187, 0.618676033791, 0.660886967497),
    )
    _nadir = (
        *(39.6023250742, 1.00188125422, 112.487885728, 0.79017024474, 1.42304666576),
        *(1.08576907833, 1.1215181762, 0.993535488298, 1.01068662645),
    )

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2, x3, x4, x5, x6, x7 = x.unbind(dim=-1)
        pillar, floor = 0.345, 0.192  # the materials; the terms in the barrier's height and place are zero
        weight = 1.98 + 4.9 * x1 + 6.67 * x2 + 6.98 * x3 + 4.01 * x4 + 1.75 * x5 + 1e-5 * x6 + 2.73 * x7
        abdomen = 1.16 - 0.3717 * x2 * x4 - 0.484 * floor * x3
        upper_criterion = (
            0.261 - x1 * (0.0159 * x2 + 0.188 * pillar) - 0.019 * x2 * x7 + 0.0144 * x3 * x5 + 0.08045 * floor * x6
        )
        middle_criterion = (
            0.214
            + 0.00817 * x5
            - (0.131 * pillar + 0.0704 * floor) * x1
            + x2 * (0.03099 * x6 - 0.018 * x7 - 0.018 * x2)
            + (0.0208 * pillar + 0.121 * floor) * x3
            - 0.00364 * x5 * x6
        )
        lower_criterion = 0.74 - x2 * (0.61 - 0.227 * x2) - 0.163 * pillar * x3 - 0.166 * floor * x7
        upper_rib = 28.98 + 3.818 * x3 - 4.2 * x1 * x2 + 6.63 * floor * x6 - 7.77 * pillar * x7
        middle_rib = 33.86 + 2.95 * x3 - x2 * (5.057 * x1 + 11 * pillar) - 9.98 * pillar * x7 + 22 * pillar * floor
        lower_rib = 46.36 - 9.9 * x2 - 12.9 * pillar * x1
        force = 4.72 - 0.5 * x4 - 0.19 * x2 * x3
        pillar_velocity = 10.58 - x2 * (0.674 * x1 + 1.95 * pillar)
        door_velocity = 16.45 - 0.489 * x3 * x7 - 0.843 * x5 * x6
        ratios = (
            abdomen,
            upper_criterion / 0.32,
            middle_criterion / 0.32,
            lower_criterion / 0.32,
            (upper_rib + middle_rib + lower_rib) / 3 / 32,
            force / 4,
            pillar_velocity / 9.9,
            door_velocity / 15.7,
        )
        return torch.cat((weight.unsqueeze(-1), torch.stack(ratios, dim=-1).relu()), dim=-1)
