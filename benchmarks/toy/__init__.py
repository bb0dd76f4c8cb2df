"""Problems whose Pareto fronts are known."""

from mtopt.experiments import Budget, Suite

from .problem_task import ProblemTask

BUDGET = Budget(steps=1000, points=10, trials=8, seeds=5)
QUICK = Budget(steps=120, points=4, trials=2, seeds=3)


def _front_task(problem: str, title: str) -> ProblemTask:
    return ProblemTask(problem, title=title, learning_rates=(1e-3, 1e-1), budget=BUDGET, quick_budget=QUICK)


suite = Suite(
    name="toy",
    about=(
        "Problems whose fronts are known, so that the answer can be judged and not only compared. A run is several "
        "trainings, judged together as an approximation of the front; so few points cannot cover 100 % of the "
        "front's hypervolume, even the best. The trajectory problem has the three start points of the "
        "literature instead."
    ),
    tasks=(
        _front_task("zdt1", "ZDT1: convex front, 30 variables"),
        _front_task("zdt2", "ZDT2: concave front, 30 variables"),
        _front_task("vlmop2", "VLMOP2 (Fonseca-Fleming): concave front"),
        _front_task("quadratic_pair", "Two convex quadratics"),
        ProblemTask(
            "cagrad_toy",
            title="The trajectory problem of CAGrad and Nash-MTL",
            learning_rates=(3e-3, 3e-1),
            from_published_starts=True,
            budget=Budget(steps=20_000, points=3, trials=8, seeds=1),
            quick_budget=Budget(steps=450, points=3, trials=2, seeds=1),
        ),
    ),
)
