"""Tokenizers and causal language models: tiny ones built here, or any other by its name; LoRA on either."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

END, PAD = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class ModelConfig:
    """A tiny decoder with random weights and tied embeddings.

    Args:
        architecture: ``"llama"`` or ``"gpt2"``.
        hidden: Width; a multiple of ``heads``.
        layers: Blocks.
        heads: Attention heads.
        vocabulary: Tokens of the tokenizer that is trained for it, at most.
        positions: The longest sequence.
    """

    architecture: str = "llama"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: int = 1000
    positions: int = 512

    def __post_init__(self) -> None:
        if self.architecture not in ("llama", "gpt2"):
            raise ValueError(f"architecture must be 'llama' or 'gpt2', got {self.architecture!r}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got {self.hidden} and {self.heads}")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of those texts, with an end and a padding token and no beginning token.

    The two field names of the plain template are one token each, so that they cost a tiny model nothing.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fields = ["Question:", "\nAnswer:"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(fields),
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(field, normalized=False) for field in fields])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def tiny_llama(config: ModelConfig, tokenizer: Any, seed: int = 0) -> Any:
    """A Llama with random weights: RMS norm, rotary positions, SwiGLU of width 8/3 ``hidden``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _initialised(
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=-(-8 * config.hidden // 24) * 8,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        seed,
    )


def tiny_gpt2(config: ModelConfig, tokenizer: Any, seed: int = 0) -> Any:
    """A GPT-2 with random weights and no dropout, since it is to memorise."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return _initialised(
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=config.hidden,
            n_layer=config.layers,
            n_head=config.heads,
            n_positions=config.positions,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        seed,
    )


def build(config: ModelConfig, tokenizer: Any, seed: int = 0) -> Any:
    """The model of the configuration's architecture, with random weights."""
    make = {"llama": tiny_llama, "gpt2": tiny_gpt2}[config.architecture]
    return make(config, tokenizer, seed)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Any causal language model and its tokenizer, ``(model, tokenizer)``, from a folder or the Hugging Face hub.

    Args:
        name_or_path: ``"microsoft/phi-1_5"``, a folder that ``save_pretrained`` wrote (model and tokenizer), ...
        tokenizer: The same for the tokenizer, where a checkpoint was published without. None: the model's.
        dtype: None is the one the checkpoint was saved in, but float32 for float16, in which training overflows.
        options: Further arguments of ``AutoModelForCausalLM.from_pretrained``, as ``device_map`` or ``revision``.

    A tokenizer without a padding token pads with its end token: padded positions are masked everywhere in the suite.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    its_tokenizer = AutoTokenizer.from_pretrained(name_or_path if tokenizer is None else tokenizer)
    if its_tokenizer.pad_token_id is None:
        its_tokenizer.pad_token = its_tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype or "auto", **options)
    if dtype is None and model.dtype == torch.float16:
        model = model.float()
    return model.eval(), its_tokenizer


def with_lora(
    model: Any, *, rank: int = 8, alpha: int = 16, targets: str | Sequence[str] = "all-linear", seed: int = 0
) -> Any:
    """The model with its weights frozen and low-rank adapters to train instead (PEFT), at the start the same function.

    Args:
        model: A causal language model; it is changed in place and wrapped.
        rank: Of each adapter.
        alpha: The adapter's output is scaled by ``alpha / rank``.
        targets: The layers that get one: ``"all-linear"`` (all but the output layer) or the ends of their names.
        seed: Of the adapters' random half.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise ModuleNotFoundError('LoRA needs `peft`: pip install "mtopt[unlearning]"', name="peft") from error
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        lora_dropout=0.0,
        # GPT-2 keeps its matrices transposed
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT still reads the old name of a property that Transformers has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def checkpoint_blocks(model: Any) -> None:
    """From now on a forward pass keeps each block's input alone, and the backward runs the block again."""
    # the older name is deprecated in favour of the newer one, which the first releases of Transformers 5 do not have
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _initialised(architecture: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture(config)
    model.generation_config.do_sample = False
    return model.eval()
