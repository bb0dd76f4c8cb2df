"""MUSE's tasks: their figures, what each is to forget, and a comparison on models of a second."""

import pytest

import mtopt
from benchmarks.unlearning.contestants import CONTESTANTS
from benchmarks.unlearning.corpus import CorpusConfig
from benchmarks.unlearning.metrics import evaluate_muse
from benchmarks.unlearning.models import FitConfig, ModelConfig, ReferenceConfig
from benchmarks.unlearning.muse_suite import suite
from benchmarks.unlearning.muse_task import (
    EPOCHS,
    MEMBERSHIP,
    MEMORY,
    UTILITY,
    InTurn,
    LargeMuse,
    MuseTask,
    SustainedMuse,
)
from benchmarks.unlearning.unlearning_task import BEFORE, RETRAINED
from mtopt.experiments import Budget, Suite, compare

SMALL = ReferenceConfig(
    corpus=CorpusConfig(authors=10, questions=4, background_authors=6, countries=2),
    model=ModelConfig(hidden=32, layers=1, heads=2, vocabulary=400, positions=256),
    pretraining=FitConfig(epochs=2, learning_rate=1e-2, batch_size=8),
    finetuning=FitConfig(epochs=16, learning_rate=1.5e-2, batch_size=8, replay=10),
    dataset="muse",
)
BUDGET = Budget(steps=4, trials=1, seeds=1, evaluations=2)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    options = {"cache_dir": tmp_path_factory.mktemp("models"), "config": SMALL, "budget": BUDGET, "batch_size": 4}
    return [kind(**options) for kind in (MuseTask, LargeMuse, SustainedMuse)]


def texts_of(task, batch):
    tokenizer = task.world(0).prepared.tokenizer
    return {tokenizer.decode(ids, skip_special_tokens=True) for ids in batch["forget"]["input_ids"]}


def test_figures_are_muses_and_memory_is_what_exceeds_the_retrained_model(tasks):
    task = tasks[0]
    world = task.world(0)
    prepared = world.prepared
    retain = evaluate_muse(prepared.retain, prepared.tokenizer, prepared.corpus, shots=0)
    own = evaluate_muse(prepared.target, prepared.tokenizer, prepared.corpus, shots=0, retain_logs=retain)
    values = task.figures(world.evaluate(prepared.target), world.evaluations["retain"])
    excess = {name: own.summary[name] - retain.summary[name] for name in ("verbmem_forget", "knowmem_forget")}
    assert values[MEMORY] == pytest.approx(max(*excess.values(), 0.0))
    assert values[MEMORY] > 0  # it was trained on them
    assert values[UTILITY] == pytest.approx(own.summary["knowmem_retain"])
    assert values["PrivLeak"] == own.summary["privleak"]
    assert values[MEMBERSHIP] == pytest.approx(abs(own.summary["auc_min_k"] - retain.summary["auc_min_k"]))
    itself = task.figures(world.evaluate(prepared.retain), world.evaluations["retain"])
    assert itself[MEMORY] == 0
    assert itself[MEMBERSHIP] == 0


def test_each_task_forgets_its_requests(tasks):
    first, large, sustained = (task.data("train", seed=0) for task in tasks)
    corpus = tasks[0].world(0).prepared.corpus
    assert len(first.forget) == len(corpus["raw/forget"])
    assert len(large.forget) == 4 * len(first.forget)
    assert isinstance(sustained, InTurn)
    assert [len(request.forget) for request in sustained.requests] == [len(first.forget)] * 4
    seen = []
    for epoch in (0, sustained.epochs - 1, sustained.epochs, 4 * sustained.epochs, 9 * sustained.epochs):
        sustained.set_epoch(epoch)
        seen.append(set().union(*(texts_of(tasks[2], batch) for batch in sustained)))
    assert seen[0] == seen[1]  # the first request all along, then the second, and the last one from its turn on
    assert not seen[1] & seen[2]
    assert seen[3] == seen[4]
    assert not seen[2] & seen[3]


def test_full_budget_gives_each_request_ten_steps_and_an_evaluation():
    budget = SustainedMuse.budget
    assert budget.evaluations == 4
    # 16 articles, of which each is one row, in batches of eight
    assert budget.steps == 4 * EPOCHS * 2


def test_texts_are_not_refused():
    assert {name for name in suite.combiners if name not in mtopt.list_combiners()} <= {
        c.name for c in suite.contestants
    }
    assert "IdkDPO" not in {contestant.name for contestant in suite.contestants}
    assert "NGDiff+GeN(fresh)" in {contestant.name for contestant in suite.contestants}


def test_comparison_end_to_end(tasks, tmp_path):
    small = Suite("muse", tuple(tasks), combiners=("NGDiff+GeN",), contestants=CONTESTANTS)
    comparison = compare(small, out=tmp_path, jobs=1, progress=False)
    for cell in comparison.cells:
        assert len(cell.runs) == BUDGET.seeds, cell.errors
        for run in cell.runs:
            assert set(run["result"]["landmarks"]) == {BEFORE, RETRAINED}
            assert run["result"]["paths"][0]["step"] == [2, 4]
            assert MEMBERSHIP in run["result"]["paths"][0]
