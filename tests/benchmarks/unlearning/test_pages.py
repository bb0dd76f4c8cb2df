"""The pages docs/unlearning.md and docs/unlearning_metrics.md: their code runs as it is printed."""

import copy

import torch

from benchmarks.unlearning.encoding import encode


def test_unlearning(run_page, authors, capsys):
    model = copy.deepcopy(authors.model)
    rows = {
        name: [encode(authors.tokenizer, row["question"], row["answer"]) for row in authors.corpus[name][:8]]
        for name in ("forget10", "retain90")
    }
    page = run_page(
        "docs/unlearning.md",
        forget_rows=rows["forget10"],
        retain_rows=rows["retain90"],
        tokenizer=authors.tokenizer,
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-4),
    )
    assert page["batches"]
    assert any((a != b).any() for a, b in zip(model.parameters(), authors.model.parameters(), strict=True))


def test_metrics(run_page, authors):
    page = run_page(
        "docs/unlearning_metrics.md",
        retain_model=authors.untrained,
        model=authors.model,
        tokenizer=authors.tokenizer,
        corpus=authors.corpus,
        base_logs="retain.json",
    )
    assert 0 <= page["evaluation"].summary["forget_quality"] <= 1
