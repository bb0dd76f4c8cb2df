"""The memory of an unlearning step, worked out before the machine is there: python -m mtopt_suites.unlearning.memory

No weights are loaded and none allocated: the architecture is built of tensors without storage, and what autograd keeps
of a forward pass is counted as it is kept. With n the bytes of the weights that are trained, the peak is

    weights + reference + 2 n + max(K n + block, (K - 1) n + activations + head, 6 n with GeN)

where 2 n are AdamW's two moments, K is the number of gradients held at once: one per loss (they are made in turn, so
the first ones wait while the last one is made), and one more where a step accumulates several batches, ``activations``
are what autograd keeps of one loss's forward pass, and ``head`` is twice the logits in float32, four times for losses
that compare whole distributions over the vocabulary. ``reference`` is another copy of all weights for the losses that
have one, but nothing with LoRA, where it is the base without its adapters, and nothing where it is cached on the disk.
With checkpointing the activations are those outside the blocks and each block's input, and ``block`` those inside one,
made again for the backward; without, ``block`` is 0. A probe of GeN copies the parameters and the optimizer's state,
and holds no graph.

In units of bytes of tensors; an allocator's own share (10 to 20 % on CUDA), the CUDA context and the evaluation, which
needs a key-value cache in place of all but the weights, come on top. ``tests/benchmarks/unlearning/test_memory.py``
measures steps of tiny models and finds the formula within a tenth.
"""

from __future__ import annotations

import argparse
import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._command import run_command
from .methods import Recipe, method
from .models import with_lora
from .trainer import FORGET_LOSSES, RETAIN_LOSSES

GIB = 2.0**30
DISTRIBUTIONS = {"kl", "undial"}
"""The losses that hold the reference's distribution over the vocabulary, and the product, beside the model's own."""


@dataclass(frozen=True)
class Setting:
    """How a model is trained.

    Args:
        config: Of ``transformers``, as ``LlamaConfig()``.
        rows, length: Of the batch of one loss, in tokens after padding.
        dtype: Of the weights. LoRA's adapters are float32 whatever it is.
        lora: The rank of adapters on all linear layers; 0: all weights are trained.
        checkpointing: Keep each block's input alone and run the block again in the backward.
        accumulate: Batches a step.
        cache_reference: Whether the reference is on the disk.
    """

    config: Any
    rows: int
    length: int
    dtype: torch.dtype = torch.float32
    lora: int = 0
    checkpointing: bool = False
    accumulate: int = 1
    cache_reference: bool = False


@dataclass(frozen=True)
class StepMemory:
    """Bytes of tensors, by what they are for; ``peak`` is not their sum, since not all of them are there at once."""

    weights: int
    reference: int
    optimizer: int
    gradients: int
    activations: int
    head: int
    probe: int
    peak: int


def step_memory(setting: Setting, recipe: Recipe | str) -> StepMemory:
    """The memory of a step of that method."""
    recipe = method(recipe) if isinstance(recipe, str) else recipe
    model = _network(setting, setting.config.num_hidden_layers)
    weights = sum(_bytes(param) for param in model.parameters())
    trained = sum(_bytes(param) for param in model.parameters() if param.requires_grad)
    losses = [FORGET_LOSSES[recipe.forget][0], *([RETAIN_LOSSES[recipe.retain]] if recipe.retain else [])]
    has_reference = any("reference" in inspect.signature(loss).parameters for loss in losses)
    reference = weights if has_reference and not setting.lora and not setting.cache_reference else 0
    activations, block = _activations(setting)
    # the reference's own forward pass holds one of the four
    tables = 4 - setting.cache_reference if DISTRIBUTIONS & {recipe.forget, recipe.retain} else 2
    head = tables * 4 * setting.rows * setting.length * setting.config.vocab_size
    gradients, optimizer = (len(losses) + (setting.accumulate > 1)) * trained, 2 * trained
    probe = 0 if recipe.automatic_rate is None else 6 * trained
    peak = weights + reference + optimizer + max(gradients + block, gradients - trained + activations + head, probe)
    return StepMemory(weights, reference, optimizer, gradients, activations, head, probe, peak)


def _activations(setting: Setting) -> tuple[int, int]:
    """What autograd keeps of one loss's forward pass, and what the last block to be differentiated needs on top of all
    gradients, from models of one and of two blocks."""
    one, two = _kept(setting, 1), _kept(setting, 2)
    blocks, block = setting.config.num_hidden_layers, two - one
    if not setting.checkpointing:
        return one + (blocks - 1) * block, 0
    inputs = setting.rows * setting.length * setting.config.hidden_size * setting.dtype.itemsize
    # what is around the blocks is freed before the first of them is run again
    return one - block + blocks * inputs, block + inputs


def _kept(setting: Setting, blocks: int) -> int:
    from torch._subclasses.fake_tensor import FakeTensorMode

    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # a storage's number is its own while it lives

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    model = _network(setting, blocks)
    with FakeTensorMode():
        _without_storage(model)
        own = {param.untyped_storage()._cdata for param in model.parameters()}
        tokens = torch.zeros(setting.rows, setting.length, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
            torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").sum()
    return sum(sizes.values())


def _network(setting: Setting, blocks: int) -> Any:
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(setting.config)
    config.num_hidden_layers = blocks
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=setting.dtype)
        return with_lora(model, rank=setting.lora) if setting.lora else model


def _without_storage(model: Any) -> None:
    """Turns the model's meta tensors into fake ones of the CPU, in the same places, tied where they were tied: models
    cannot be run on the former, nor adapters be made of the latter."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                tensors[name] = made[id(tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def settings() -> dict[str, Setting]:
    """The settings of the recipe page: Phi-1.5 in full, and Llama-2-7B in full and with adapters."""
    from transformers import LlamaConfig, PhiConfig

    phi = PhiConfig(vocab_size=51200, hidden_size=2048, intermediate_size=8192, num_hidden_layers=24)
    llama = LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
    adapters: dict[str, Any] = {"dtype": torch.bfloat16, "lora": 8, "accumulate": 4}
    less: dict[str, Any] = {**adapters, "checkpointing": True}
    return {
        "Phi-1.5, TOFU, all weights, float32": Setting(phi, 8, 128, accumulate=4),
        "Phi-1.5, TOFU, all weights, bfloat16": Setting(phi, 8, 128, torch.bfloat16, accumulate=4),
        "Phi-1.5, TOFU, LoRA 8, bfloat16": Setting(phi, 8, 128, **adapters),
        "Llama-2-7B, TOFU, all weights, bfloat16, checkpointing": Setting(llama, 8, 128, **{**less, "lora": 0}),
        "Llama-2-7B, TOFU, LoRA 8, bfloat16": Setting(llama, 8, 128, **adapters),
        "Llama-2-7B, TOFU, LoRA 8, bfloat16, checkpointing": Setting(llama, 8, 128, **less),
        "Llama-2-7B, MUSE-News, LoRA 8, bfloat16, checkpointing": Setting(llama, 1, 2048, **less),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the recipe page's table; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.memory", description="GiB of a step.")
    parser.add_argument("--methods", nargs="+", default=["GDiff", "NGDiff", "NGDiff+GeN", "NPO+NLL"], metavar="NAME")
    methods = parser.parse_args(arguments).methods
    print(
        "| setting | rows x tokens | weights | 2 n | activations + head |" + "".join(f" {name} |" for name in methods)
    )
    print("|---" * (5 + len(methods)) + "|")
    for name, setting in settings().items():
        found = [step_memory(setting, method) for method in methods]
        first = found[0]
        parts = [first.weights, first.optimizer, first.activations + first.head, *(memory.peak for memory in found)]
        figures = " | ".join(f"{part / GIB:.1f}" for part in parts)
        print(f"| {name} | {setting.rows} x {setting.length} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
