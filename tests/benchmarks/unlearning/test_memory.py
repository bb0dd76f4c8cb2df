"""The memory formula against what torch's allocator counted while steps were made."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from benchmarks.speed._memory import peak_tensor_bytes
from benchmarks.unlearning.batches import ForgetRetainBatches
from benchmarks.unlearning.cached_reference import cached_reference
from benchmarks.unlearning.memory import Setting, step_memory
from benchmarks.unlearning.methods import create_trainer
from benchmarks.unlearning.methods import method as recipe_of
from benchmarks.unlearning.models import checkpoint_blocks, with_lora

VOCABULARY = 1000


def llama(hidden=128, blocks=2):
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=blocks,
        num_attention_heads=4, bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip


def phi(hidden=128, blocks=2):
    return PhiConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=blocks,
        num_attention_heads=4, bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip


def network(setting):
    architecture = {"llama": LlamaForCausalLM, "phi": PhiForCausalLM}[setting.config.model_type]
    model = architecture._from_config(setting.config, dtype=setting.dtype)
    if setting.checkpointing:
        checkpoint_blocks(model)
    return with_lora(model, rank=setting.lora) if setting.lora else model


def side(setting):
    tokens = torch.randint(2, VOCABULARY, (setting.rows, setting.length))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens.clone()}


def measured(setting, method, steps, folder):
    """The peak of the steps' tensors, with the weights and the reference that are there before."""
    torch.manual_seed(0)
    model = network(setting)
    optimizer = torch.optim.AdamW([param for param in model.parameters() if param.requires_grad], lr=1e-5)
    rows = [[{"input_ids": ids, "labels": ids} for ids in side(setting)["input_ids"].tolist()] for _ in range(2)]
    data = ForgetRetainBatches(*(part * steps * setting.accumulate for part in rows), batch_size=setting.rows, pad_id=1)
    with ExitStack() as stack:
        reference = None
        if setting.cache_reference:
            cache = cached_reference(model, recipe_of(method), data, epochs=1, folder=folder)
            reference = stack.enter_context(cache)
        trainer = create_trainer(method, model, optimizer, seed=0, accumulate=setting.accumulate, reference=reference)
        peak = peak_tensor_bytes(lambda: trainer.fit(data, epochs=1))
    weights = sum(param.numel() * param.element_size() for param in model.parameters())
    return peak + weights * (2 if isinstance(trainer.reference, torch.nn.Module) else 1)


ACTIVATIONS = Setting(llama(), rows=8, length=64)
GRADIENTS = Setting(llama(hidden=384), rows=1, length=8)


@pytest.mark.parametrize(
    ("setting", "method"),
    [
        (ACTIVATIONS, "GA"),
        (ACTIVATIONS, "NGDiff"),
        (ACTIVATIONS, "NPO+NLL"),
        (ACTIVATIONS, "KL"),
        (ACTIVATIONS, "UNDIAL"),
        (GRADIENTS, "NGDiff"),
        (GRADIENTS, "NGDiff+GeN"),
        (GRADIENTS, "NPO+NLL"),
        (replace(GRADIENTS, cache_reference=True), "NPO+NLL"),
        (replace(ACTIVATIONS, cache_reference=True), "KL"),
        (replace(GRADIENTS, accumulate=2), "NGDiff"),
        (Setting(phi(), rows=8, length=64), "NGDiff"),
        (Setting(llama(), rows=8, length=64, dtype=torch.bfloat16), "NGDiff"),
        (Setting(llama(), rows=8, length=64, lora=8, dtype=torch.bfloat16), "NGDiff"),
        (Setting(llama(hidden=256), rows=4, length=32, lora=8), "NPO+NLL"),
        (Setting(llama(blocks=6), rows=8, length=64, lora=8, checkpointing=True), "NPO+KL"),
        (Setting(llama(blocks=6), rows=8, length=64, checkpointing=True), "NGDiff"),
        (Setting(llama(blocks=6), rows=8, length=64, lora=8, checkpointing=True), "NGDiff"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_step_takes_what_the_formula_says(setting, method, tmp_path):
    rate = recipe_of(method).automatic_rate
    steps = 2 if rate is None else rate.every + 1  # a probe is among them
    found = measured(setting, method, steps, tmp_path)
    assert step_memory(setting, method).peak == pytest.approx(found, rel=0.1)
