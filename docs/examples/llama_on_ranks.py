"""Unlearning with a tiny random Llama on one process or several, by the same script: NGDiff, and GeN for the rate.

python docs/examples/llama_on_ranks.py
torchrun --nproc-per-node 2 docs/examples/llama_on_ranks.py           # replicas, by DDP
torchrun --nproc-per-node 2 docs/examples/llama_on_ranks.py --shard   # shards, by FSDP2
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from transformers import LlamaConfig, LlamaForCausalLM

import mtopt

BATCH = 16  # sequences a step, over all ranks


class Unlearning(mtopt.MultiLossTrainer):
    def losses(self, batch):
        return {
            "retain": self.next_token(batch["retain"]),
            mtopt.Objective("forget", sense="max"): self.next_token(batch["forget"]),
        }

    def next_token(self, tokens):
        logits = self.model(input_ids=tokens).logits
        return cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:])


def tiny_llama():
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=32, **size)).double()


def pairs(count, seed, length=12):
    """Counting up, to be kept, and random walks, to be forgotten."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        start, steps = torch.randint(64, (1,), generator=random), torch.randint(5, (length,), generator=random)
        yield {"retain": (start + torch.arange(length)) % 64, "forget": (start + steps.cumsum(0)) % 64}


def loader(data, rank, size):
    sampler = DistributedSampler(data, num_replicas=size, rank=rank)
    return DataLoader(data, batch_size=BATCH // size, sampler=sampler)


def divided(model, shard):
    """The model as each process has it: whole, or a part of every parameter."""
    if not dist.is_initialized():
        return model
    if not shard:
        return DistributedDataParallel(model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def train(folder=None, shard=False, epochs=5):
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    model = divided(tiny_llama(), shard)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)  # where GeN's search begins
    held_out = list(pairs(32, seed=2))[rank::size]
    callbacks = [
        mtopt.GeN(optimizer, every=5, startup=3, objective="retain"),
        mtopt.Evaluator(DataLoader(held_out, batch_size=8)),
    ]
    combiner = mtopt.create_combiner("ngdiff", preference=[0.8, 0.2])
    trainer = Unlearning(model, optimizer, combiner, callbacks=callbacks, seed=0)
    trainer.fit(loader(list(pairs(64, seed=1)), rank, size), epochs=epochs, checkpoint_dir=folder)
    if rank == 0:
        _, values = trainer.history.evaluations("validation")
        for name in ("retain", "forget"):
            print(f"{name}: {values[name][0]:.6f} -> {values[name][-1]:.6f}")
        print(f"learning rate: {trainer.history.learning_rates[-1]:.6f}")
    return trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "RANK" in os.environ:  # torchrun sets it
        dist.init_process_group("gloo")  # "nccl" on GPUs
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", nargs="?", help="for checkpoints, from which it goes on")
    arguments.add_argument("--shard", action="store_true")
    train(**vars(arguments.parse_args()))
    if dist.is_initialized():
        dist.destroy_process_group()
