"""The baseline has the best static weights that the run trained, at every budget."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import mtopt
from mtopt.experiments import Budget, Comparison, Contestant, Suite, compare
from mtopt.experiments._baseline import static_weights
from mtopt.experiments._plan import TUNING_SEED
from tests.experiments.tiny import ParabolasTask


class NarrowTask(ParabolasTask):
    """Good is what is within 0.1 of 0.4, the minimiser of 0.3 (x + 1)^2 + 0.7 (x - 1)^2, and nothing else."""

    reference_point = (0.1, 0.1)
    budget = quick_budget = Budget(steps=300, trials=2, seeds=2)
    learning_rates = (0.1, 0.3)

    def values(self, trainer, split, *, seed):
        (x,) = trainer.model.parameters()
        distance = abs(float(x.detach()) - 0.4)
        return {"near": distance, "far": distance}


class SquaresTask(ParabolasTask):
    """K parabolas at the corners of a simplex; the validation split likes one corner less than the test split does."""

    quick_budget = Budget(steps=10, trials=2, seeds=2)

    def __init__(self, count, **settings):
        super().__init__(f"squares-{count}")
        self.count = count
        self.objectives = tuple(mtopt.Objective(f"f{k}") for k in range(count))
        self.reference_point = (3.0,) * count
        for name, value in settings.items():
            setattr(self, name, value)

    def trainer(self, combiner, *, learning_rate, seed, point, points, scale=1.0):
        count = self.count

        class Squares(mtopt.MultiLossTrainer):
            def losses(self, batch):
                (x,) = self.model.parameters()
                corners = torch.eye(count)
                return {f"f{k}": scale * (x - corners[k]).square().sum() for k in range(count)}

        start = torch.Generator().manual_seed(seed + point)
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.rand(count, generator=start))])
        return Squares(model, torch.optim.SGD(model.parameters(), lr=learning_rate), combiner)

    def front(self, points=50):
        return None

    def values(self, trainer, split, *, seed):
        values = {name: float(value.detach()) for name, value in trainer.losses(None).items()}
        return {**values, "f0": values["f0"] * (2.5 if split == "validation" else 0.5)}


def baseline(comparison):
    return next(cell for cell in comparison.cells if cell.combiner == "linear")


def test_the_only_good_weights_are_found_with_two_trials(tmp_path):
    comparison = compare(NarrowTask("narrow"), combiners=["mgda"], quick=True, out=tmp_path, jobs=1, progress=False)
    cell = baseline(comparison)
    assert cell.chosen["hyperparameters"]["preference"] == pytest.approx([0.3, 0.7])
    trials = [row for row in rows_of(comparison) if row["hyperparameters"].get("preference") != [0.3, 0.7]]
    assert all(row["result"]["score"]["validation"] == 0 for row in trials if row["combiner"] == "linear")
    # SGD is at the minimiser, so that the whole square up to the reference point is dominated
    assert cell.score().value == pytest.approx(0.01, rel=1e-3)
    page = comparison.report().read_text()
    assert "best static weights: near 0.3, far 0.7 (of 7 configurations, chosen on validation)" in page


def rows_of(comparison):
    return list(comparison.store.results(comparison.store.all_keys()).values())


@pytest.mark.parametrize(
    "task",
    [
        SquaresTask(2),
        SquaresTask(3),
        SquaresTask(6),
        SquaresTask(2, spread_preferences=False, quick_budget=Budget(steps=10, points=2, trials=2, seeds=2)),
        SquaresTask(2, quick_budget=Budget(steps=10, points=3, trials=2, seeds=2)),
        SquaresTask(2, static_front=False, quick_budget=Budget(steps=10, trials=1, seeds=1, evaluations=2)),
    ],
    ids=["two", "three", "six", "starts", "spread", "paths"],
)
def test_no_static_weights_that_were_trained_are_better_than_the_baseline(task, tmp_path):
    entered = (
        Contestant(
            "tilted", "linear", hyperparameters={"preference": [0.02, *[0.98 / (task.count - 1)] * (task.count - 1)]}
        ),
    )
    suite = Suite("s", (task,), combiners=("tilted", "mgda"), contestants=entered)
    comparison = compare(suite, quick=True, out=tmp_path, jobs=1, progress=False)
    chosen = baseline(comparison).chosen["result"]["score"]["validation"]
    static = [row for row in rows_of(comparison) if row["combiner"] == "linear" and row["seed"] == TUNING_SEED]
    assert len(static) >= 2
    assert chosen == max(row["result"]["score"]["validation"] for row in static)
    # on the seeds of the comparison nothing is trained but what was chosen
    finals = [row for row in rows_of(comparison) if row["combiner"] == "linear" and row["seed"] != TUNING_SEED]
    tilted = [
        row for row in finals if row["hyperparameters"] == {"preference": entered[0].hyperparameters["preference"]}
    ]
    settings = baseline(comparison).chosen["hyperparameters"]
    assert all(row["hyperparameters"] == settings for row in finals if row not in tilted)


def test_a_contestant_on_other_losses_is_not_the_baseline(tmp_path):
    # near the best weights on validation, whose hypervolume is (3 - 5 (1 - w)^2) (3 - 2 w^2)
    entered = (
        Contestant("same", "linear", hyperparameters={"preference": [0.68, 0.32]}, options={"scale": 1.0}),
        Contestant("other", "linear", hyperparameters={"preference": [0.68, 0.32]}, options={"scale": 0.5}),
    )
    for contestant in entered:
        suite = Suite(
            "s", (SquaresTask(2, learning_rates=(0.3, 0.3)),), combiners=(contestant.name,), contestants=entered
        )
        comparison = compare(suite, quick=True, trials=1, out=tmp_path, jobs=1, progress=False)
        taken = baseline(comparison).chosen["hyperparameters"].get("preference") == [0.68, 0.32]
        assert taken == (contestant.name == "same")


def test_selection_does_not_look_at_the_test_split(tmp_path):
    class Swapped(SquaresTask):
        def values(self, trainer, split, *, seed):
            return super().values(trainer, {"validation": "test", "test": "validation"}[split], seed=seed)

    chosen = []
    for task in (SquaresTask(2), Swapped(2)):
        cell = baseline(compare(task, combiners=["linear"], quick=True, out=tmp_path, jobs=1, progress=False))
        chosen.append(cell.chosen["hyperparameters"].get("preference"))
    assert chosen[0] != chosen[1]  # the splits disagree, and the validation split decides


@pytest.mark.parametrize("count", [2, 3, 4, 5, 12])
def test_static_weights_lie_in_the_simplex_and_leave_no_objective_out(count):
    weights = np.array(static_weights(count))
    assert weights.shape == (5 if count == 2 else 10, count)
    assert np.abs(weights.sum(1) - 1).max() < 1e-9
    assert weights.min() >= 0.2 / count - 1e-5
    assert len({tuple(row) for row in weights.tolist()}) == len(weights)
    if count == 2:
        assert weights[:, 0].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    if count in (3, 4):  # the best spread there is: no two closer than the lattice's step
        gaps = [np.abs(a - b).max() for a, b in pairwise(weights)]
        assert min(gaps) > 0.2


def test_the_line_of_the_figure_is_what_the_weights_were_chosen_from(tmp_path):
    cell = baseline(compare(SquaresTask(2), combiners=["linear"], quick=True, out=tmp_path, jobs=1, progress=False))
    assert [row["hyperparameters"]["preference"][0] for row in cell.front] == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    assert {row["seed"] for row in cell.front} == {TUNING_SEED}
    assert (cell.tuned, cell.swept) == (7, 5)
    hidden = compare(
        SquaresTask(2, static_front=False), combiners=["linear"], quick=True, out=tmp_path, jobs=1, progress=False
    )
    assert baseline(hidden).front == ()
    assert Comparison(tmp_path).cells[0].swept == 5
