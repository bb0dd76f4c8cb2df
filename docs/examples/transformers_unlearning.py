"""Unlearning with the Trainer of transformers: a tiny random Llama keeps some sequences and forgets others.

python docs/examples/transformers_unlearning.py           # all parameters
python docs/examples/transformers_unlearning.py --lora    # LoRA adapters alone, by PEFT
torchrun --nproc-per-node 2 docs/examples/transformers_unlearning.py           # replicas, by DDP
torchrun --nproc-per-node 2 docs/examples/transformers_unlearning.py --shard   # shards, by FSDP2

On GPUs ``TrainingArguments(fsdp=True)`` shards a model, too, by Accelerate; on CPUs it gives replicas, without a word.
"""

import os
import sys
import tempfile

import torch
from accelerate.utils import broadcast_object_list
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, default_data_collator
from transformers.distributed import DistributedConfig

import mtopt
from mtopt.integrations.transformers import MultiLossMixin

SIZE = int(os.environ.get("WORLD_SIZE", "1"))  # which torchrun sets


class Unlearning(MultiLossMixin, Trainer):
    def compute_losses(self, model, inputs):
        return {
            "retain": model(input_ids=inputs["retain"], labels=inputs["retain"]).loss,
            mtopt.Objective("forget", sense="max"): model(input_ids=inputs["forget"], labels=inputs["forget"]).loss,
        }


def tiny_llama(lora=False):
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=32, **size))
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    return model


def in_shards(model, folder):
    """The same model, of which each process loads its own part, from what the first one writes."""
    (folder,) = broadcast_object_list([folder])
    model.save_pretrained(f"{folder}/whole")  # on the first alone
    torch.distributed.barrier()
    return LlamaForCausalLM.from_pretrained(f"{folder}/whole", distributed_config=DistributedConfig(fsdp_size=SIZE))


def pairs(count=64, length=12):
    """Counting up, to be kept, and random walks, to be forgotten."""
    random = torch.Generator().manual_seed(1)
    for _ in range(count):
        start, steps = torch.randint(64, (1,), generator=random), torch.randint(5, (length,), generator=random)
        yield {"retain": (start + torch.arange(length)) % 64, "forget": (start + steps.cumsum(0)) % 64}


def trainer_for(output_dir, lora=False, shard=False, combiner="ngdiff", **settings):
    settings = {"max_steps": 40, "logging_steps": 10, "save_strategy": "no", **settings}
    args = TrainingArguments(
        output_dir,
        per_device_train_batch_size=8 // SIZE,
        learning_rate=1e-2 if lora else 1e-3,
        remove_unused_columns=False,  # they are for compute_losses
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    data = list(pairs())
    model = tiny_llama(lora)
    return Unlearning(
        in_shards(model, output_dir) if shard and SIZE > 1 else model,
        args,
        train_dataset=data,
        eval_dataset=data[:16],
        data_collator=default_data_collator,
        combiner=mtopt.create_combiner(combiner),
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(folder, lora="--lora" in sys.argv, shard="--shard" in sys.argv)
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
    for name in ("retain", "forget") if trainer.is_world_process_zero() else ():
        print(f"{name}: {before[f'eval_loss_{name}']:.3f} -> {after[f'eval_loss_{name}']:.3f}")
