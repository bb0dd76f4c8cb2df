"""The model before unlearning, without a second copy of it: the base under fresh adapters."""

import copy

import pytest
import torch

from benchmarks.unlearning._reference import AdaptersOff, reference_of
from benchmarks.unlearning.methods import create_trainer
from benchmarks.unlearning.models import checkpoint_blocks, with_lora
from tests.benchmarks.unlearning.steps import adam, batches, flat, model_of
from tests.benchmarks.unlearning.tiny import batch_of


@pytest.mark.parametrize("method", ["NPO+NLL", "NPO+KL", "IdkDPO", "UNDIAL", "RMU", "BLUR"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_the_base_without_adapters_trains_as_a_copy_does(method, checkpointing):
    ends = []
    for copied in (True, False):
        base = model_of(0)
        if checkpointing:
            checkpoint_blocks(base)
        reference = copy.deepcopy(base).requires_grad_(False) if copied else None
        model = with_lora(base, rank=2, alpha=4, seed=0).train()
        trainer = create_trainer(method, model, adam(model, 1e-2), reference=reference, seed=0)
        assert isinstance(trainer.reference, torch.nn.Module if copied else AdaptersOff)
        history = trainer.fit(batches(), epochs=2)
        assert not history["skipped"].any()
        assert all(module.training for module in model.modules())
        ends.append(flat(model))
    assert torch.equal(*ends)


def test_adapters_that_are_trained_already_are_part_of_the_reference():
    model = with_lora(model_of(0), rank=2, seed=0)
    batch = batch_of(3)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    fresh = reference_of(model)
    before = model(**inputs).logits
    assert isinstance(fresh, AdaptersOff)
    assert torch.equal(fresh(**inputs).logits, before)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.normal_()
    now = model(**inputs).logits
    assert not torch.equal(now, before)
    # the fresh one's base has not moved, and a reference taken now is of the adapters, too
    assert torch.equal(fresh(**inputs).logits, before)
    taken = reference_of(model)
    assert isinstance(taken, torch.nn.Module)
    torch.testing.assert_close(taken(**inputs).logits, now)
    assert all(param.requires_grad for name, param in model.named_parameters() if "lora_" in name)
