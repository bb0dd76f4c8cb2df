"""Membership by the length of the gradient, against a plain backward pass for each text."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.unlearning.encoding import encode
from benchmarks.unlearning.metrics import evaluate
from benchmarks.unlearning.metrics.membership import gradient_norms
from tests.benchmarks.unlearning.test_metrics import auc


def norms_by_hand(model, tokenizer, items):
    """A plain backward pass of the model's own loss for each text, and the mean length over its tensors."""
    found = []
    for item in items:
        row = encode(tokenizer, item["question"], item["answer"])
        model.zero_grad()
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss.backward()
        found.append(np.mean([param.grad.norm().item() for param in model.parameters() if param.grad is not None]))
    return found


def test_the_attack_by_the_gradient(authors):
    model = copy.deepcopy(authors.model).train()
    evaluation = evaluate(model, authors.tokenizer, authors.corpus, max_new_tokens=8, gradient_norm=True)
    assert model.training
    assert all(param.grad is None for param in model.parameters())
    scores = {}
    for name in ("forget", "holdout"):
        items = evaluation.items[name]
        scores[name] = [item["membership"]["gradient_norm"] for item in items]
        assert scores[name] == pytest.approx(norms_by_hand(model, authors.tokenizer, items), rel=1e-4)
    assert evaluation.summary["auc_gradient_norm"] == pytest.approx(auc(scores["forget"], scores["holdout"]))
    # only what is trained has a gradient
    model.zero_grad()
    for name, param in model.named_parameters():
        param.requires_grad = "norm" in name
    row = encode(authors.tokenizer, "Who?", "Nobody.")
    (norm,) = gradient_norms(model, [row], pad_id=0)
    (expected,) = norms_by_hand(model, authors.tokenizer, [{"question": "Who?", "answer": "Nobody."}])
    assert norm == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        gradient_norms(model.requires_grad_(False), [row], pad_id=0)
