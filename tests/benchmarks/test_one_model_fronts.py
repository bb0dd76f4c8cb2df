"""The script on models that take the preference: each trains, and its front is judged on the split that counts."""

import pytest
import torch

from benchmarks.multitask import one_model_fronts, two_wordings
from benchmarks.multitask.one_model_fronts import SUBJECTS, Found, train

DIGITS = SUBJECTS["digits"]


@pytest.mark.parametrize("name", DIGITS.models)
def test_every_model_learns_something(name):
    few, more = (train(DIGITS, name, 3e-3, 0, steps, "test") for steps in (1, 60))
    assert 0 <= few.hypervolume < more.hypervolume < 1
    assert 1 <= more.points <= 11
    assert more.parameters[0] > 9_000


@pytest.mark.parametrize(("name", "subject"), SUBJECTS.items())
def test_the_rate_is_chosen_on_validation(monkeypatch, capsys, name, subject):
    def found(given, model, rate, seed, steps, split):
        tuning = seed == one_model_fronts.TUNING_SEED
        assert (given, steps, split) == (subject, 1, "validation" if tuning else "test")
        return Found((0.5 if rate == 3e-3 else 0.4) if tuning else 0.1 * seed, 3, 0.2, 1.0, (6_000, 5_000))

    monkeypatch.setattr(one_model_fronts, "train", found)
    one_model_fronts.main(["--on", name, "--steps", "1"])
    last = len(subject.seeds)
    cells = f"| 6,000 | 5,000 | 0.003 | {0.05 * (1 + last):.4f} (0.1000 to {0.1 * last:.4f}) | 3.0 | 0.200 | 1 |"
    assert capsys.readouterr().out.count(cells) == len(subject.models)


def test_only_some_models(monkeypatch, capsys):
    monkeypatch.setattr(one_model_fronts, "train", lambda *_: Found(0.5, 3, 0.2, 1.0, (2, 1)))
    one_model_fronts.main(["--models", "PaMaL"])
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]] == ["PaMaL"]
    with pytest.raises(SystemExit):
        one_model_fronts.main(["--models", "PaMaLs"])
    assert "--models has ['PaMaLs']" in capsys.readouterr().err


@pytest.fixture
def half_learned(monkeypatch):
    """A world of few questions, whose model has seen each of them twice."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(two_wordings, "AUTHORS", {"train": range(3), "validation": range(3, 4), "test": range(4, 5)})
    monkeypatch.setattr(two_wordings, "QUESTIONS", 4)
    monkeypatch.setattr(two_wordings, "MODEL", two_wordings.ModelConfig(hidden=16, layers=1, heads=2, vocabulary=350))
    monkeypatch.setattr(two_wordings, "PRETRAINING", two_wordings.FitConfig(epochs=2, learning_rate=6e-3))
    two_wordings.known.cache_clear()
    yield two_wordings.known()
    two_wordings.known.cache_clear()


@pytest.mark.parametrize("name", two_wordings.MODELS)
def test_every_model_starts_from_the_llama_and_learns_both_wordings(half_learned, name):
    ids, labels = half_learned.splits["train"].tensors
    model, middle = two_wordings.MODELS[name](), torch.tensor([0.5, 0.5])
    start = model(ids, labels, preference=middle)
    torch.testing.assert_close(start, two_wordings.network()(ids, labels))
    trainer = two_wordings.ForAllWordings(
        model, torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3), "linear", num_objectives=2
    )
    trainer.fit(two_wordings.training_data(0), steps=10)
    assert (model(ids, labels, preference=middle) < start).all()
    assert (model(ids, labels, preference=torch.tensor([1.0, 0.0])) != model(ids, labels, preference=middle)).all()


@torch.no_grad()
def test_the_loss_is_that_of_whole_answers_and_their_probabilities_sum_to_one_at_most(half_learned):
    ids, labels = half_learned.splits["test"].tensors
    network = two_wordings.network()
    logs = torch.zeros(len(ids), 2)
    for question in range(len(ids)):
        for wording in range(2):
            chances = network.model(input_ids=ids[question, wording][None]).logits[0].log_softmax(-1)
            for place in range(1, ids.shape[2]):
                if labels[question, wording, place] >= 0:
                    logs[question, wording] += chances[place - 1, labels[question, wording, place]]
    torch.testing.assert_close(network(ids, labels), -logs.mean(0))
    padding = half_learned.model.config.pad_token_id
    for question, marks in zip(ids, labels, strict=True):
        one, other = (row[(mark < 0) & (row != padding)].tolist() for row, mark in zip(question, marks, strict=True))
        assert one == other  # what both answers are answers to
    answers = [row[mark >= 0].tolist() for row, mark in zip(ids.flatten(0, 1), labels.flatten(0, 1), strict=True)]
    end = half_learned.model.config.eos_token_id
    assert all(answer[-1] == end and end not in answer[:-1] for answer in answers)
    assert all(answers[k] != answers[k + 1] for k in range(0, len(answers), 2))  # so that they exclude each other
    assert float(logs.exp().sum(1).max()) <= 1.0
    assert logs.isfinite().all()
