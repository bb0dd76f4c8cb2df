"""The comparison's task: worlds, figures, contestants, and a whole comparison on models of a second."""

import pytest
import torch
from scipy.stats import ks_2samp

import mtopt
from benchmarks.unlearning import suite
from benchmarks.unlearning.automatic_rate import AutomaticRate
from benchmarks.unlearning.contestants import CONTESTANTS
from benchmarks.unlearning.corpus import CorpusConfig
from benchmarks.unlearning.methods import METHODS
from benchmarks.unlearning.metrics import evaluate
from benchmarks.unlearning.metrics.tofu import log_truth_ratios
from benchmarks.unlearning.models import FitConfig, ModelConfig, ReferenceConfig
from benchmarks.unlearning.tofu_task import GAP, UTILITY, TofuTask
from benchmarks.unlearning.world import open_world
from mtopt.experiments import Budget, Suite, compare

CONFIG = ReferenceConfig(
    corpus=CorpusConfig(authors=10, questions=4, background_authors=4, countries=3),
    model=ModelConfig(hidden=32, layers=2, heads=2, vocabulary=400, positions=256),
    pretraining=FitConfig(epochs=4, learning_rate=1e-2),
    finetuning=FitConfig(epochs=6, learning_rate=1e-2, replay=20),
)
BUDGET = Budget(steps=4, trials=2, seeds=2, evaluations=2)
NAMED = {contestant.name: contestant for contestant in CONTESTANTS}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return TofuTask(cache_dir=tmp_path_factory.mktemp("models"), config=CONFIG, budget=BUDGET, quick_budget=BUDGET)


def train(task, contestant, *, steps=1, seed=0, learning_rate=1e-3):
    rule = contestant.rule(**contestant.hyperparameters)
    trainer = task.trainer(rule, learning_rate=learning_rate, seed=seed, point=0, points=1, **contestant.options)
    trainer.fit(task.data("train", seed=seed), steps=steps)
    return trainer


def test_suite_names_contestants_that_there_are():
    assert set(suite.combiners) <= {*NAMED, *mtopt.list_combiners()}
    assert set(METHODS) <= set(NAMED)
    for contestant in CONTESTANTS:
        assert set(contestant.hyperparameters) <= set(contestant.rule.hyperparameter_defaults())
    for name, recipe in METHODS.items():  # the same algorithm here as in every other command
        rate = NAMED[name].options.get("automatic_rate")
        assert (rate and AutomaticRate(**rate)) == recipe.automatic_rate
        assert NAMED[name].tuned == (rate is None)
    for name in ("NGDiff", "LossNGDiff", "NPO+NLL"):  # what a paper does not weigh is not weighed here
        assert NAMED[name].hyperparameters["preference"] is None
    assert NAMED["npo:pcgrad"].options["forget_options"] == {"beta": 0.1}


@pytest.mark.parametrize("name", [*METHODS, "simnpo:mgda", "wga:upgrad"])
def test_every_method_takes_a_step_on_the_task(task, name):
    contestant = NAMED[name]
    trainer = train(task, contestant)
    (record,) = trainer.history
    assert not record.skipped, record.reason
    assert set(record.losses) == (
        {"forget"} if contestant.options.get("retain", "nll") is None else {"retain", "forget"}
    )
    target = task.world(0).prepared.target
    moved = [
        not torch.equal(mine, theirs)
        for mine, theirs in zip(trainer.model.parameters(), target.parameters(), strict=True)
    ]
    assert any(moved)


def test_every_seed_is_a_world_of_its_own_and_comes_from_the_cache(task, tmp_path):
    first, second = task.world(0), task.world(1)
    assert first.prepared.corpus["full"] != second.prepared.corpus["full"]
    again = open_world(first.prepared.config, task._cache_dir)
    assert all(record["cached"] for record in again.prepared.records.values())
    assert {role: e.summary for role, e in again.evaluations.items()} == {
        role: e.summary for role, e in first.evaluations.items()
    }


def test_values_are_those_of_tofu_and_the_distance_to_the_retrained_model(task):
    trainer = train(task, NAMED["GDiff"], steps=6, learning_rate=3e-3)
    values = task.values(trainer, "test", seed=trainer.seed)
    world = task.world(0)
    prepared = world.prepared
    retain = evaluate(prepared.retain, prepared.tokenizer, prepared.corpus, max_new_tokens=40)
    own = evaluate(trainer.model, prepared.tokenizer, prepared.corpus, retain_logs=retain, max_new_tokens=40)
    distance = ks_2samp(*(log_truth_ratios(e.items, "forget") for e in (own, retain)))
    assert values[GAP] == pytest.approx(distance.statistic)
    assert values["forget quality"] == pytest.approx(distance.pvalue)
    assert values[UTILITY] == pytest.approx(own.summary["model_utility"])
    marks = task.landmarks(trainer)
    assert marks["before unlearning"][UTILITY] == pytest.approx(world.evaluations["target"].summary["model_utility"])
    assert marks["retrained without the forget set"].keys() == values.keys()


def test_rules_start_from_the_same_model_and_see_the_same_batches(task):
    one, other = train(task, NAMED["NGDiff"]), train(task, NAMED["MGDA"])
    assert one.history[0].losses == other.history[0].losses
    assert train(task, NAMED["NGDiff"], seed=1).history[0].losses != one.history[0].losses


def test_automatic_rate_is_probed_on_the_retain_loss(task):
    for name in ("NGDiff+GeN", "NGDiff+GeN(fresh)"):
        trainer = train(task, NAMED[name], steps=2)
        assert trainer.history[0].probe is not None, name
        (gen,) = (callback for callback in trainer.callbacks if isinstance(callback, mtopt.GeN))
        if name == "NGDiff+GeN":
            assert gen.batches is None
        else:
            assert {len(batch["retain"]["input_ids"]) for batch in gen.batches} == {task.batch_size}
            assert all(set(batch) == {"retain"} for batch in gen.batches)


def test_comparison_end_to_end(task, tmp_path):
    small = Suite("unlearning", (task,), combiners=("NGDiff+GeN", "npo:ngdiff"), contestants=CONTESTANTS)
    comparison = compare(small, out=tmp_path, jobs=1, progress=False)
    assert comparison.combiners == ["linear", "NGDiff+GeN", "npo:ngdiff"]
    for cell in comparison.cells:
        assert len(cell.runs) == BUDGET.seeds, cell.errors
        for run in cell.runs:
            assert run["result"]["paths"][0]["step"] == [2, 4]
    page = comparison.report().read_text()
    for text in ("retrained without the forget set", "forget quality", "forgetting gap"):
        assert text in page
    names = {path.name for path in comparison.figures()}
    assert "unlearning-tofu-paths.png" in names
