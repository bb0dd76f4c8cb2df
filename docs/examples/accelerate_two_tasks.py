"""Two tasks on one trunk with Accelerate: gradient accumulation, clipping, and a checkpoint with the rule's state.

python docs/examples/accelerate_two_tasks.py
torchrun --nproc-per-node 2 docs/examples/accelerate_two_tasks.py           # replicas, by DDP
torchrun --nproc-per-node 2 docs/examples/accelerate_two_tasks.py --shard   # shards, by FSDP2

On GPUs ``Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))`` shards a model when it prepares it,
and saves it; on CPUs it gives replicas, without a word. So it is sharded here before Accelerate sees its parameters.
"""

import sys
import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import mtopt
from mtopt.integrations.accelerate import backward


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU())
        self.sign, self.size = torch.nn.Linear(32, 2), torch.nn.Linear(32, 1)

    def forward(self, x):
        features = self.trunk(x)
        return self.sign(features), self.size(features)[:, 0]


def losses_of(model, x):
    sign, size = model(x)
    return {"sign": cross_entropy(sign, (x.sum(1) > 0).long()), "size": mse_loss(size, x.norm(dim=1))}


def train(folder, epochs=3, shard=False):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Net()
    shard = shard and accelerator.num_processes > 1
    if shard:
        fully_shard(model.trunk)
        fully_shard(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(torch.randn(256, 8)), batch_size=16 // accelerator.num_processes)
    optimizer, loader = accelerator.prepare(optimizer, loader)
    if not shard:
        model = accelerator.prepare(model)
    combiner = mtopt.create_combiner("moco")  # once, before the loop: this rule tracks gradients
    accelerator.register_for_checkpointing(combiner)
    for epoch in range(epochs):
        for (x,) in loader:
            with accelerator.accumulate(model):
                record = backward(accelerator, losses_of(model, x), model, combiner)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        accelerator.print(epoch, {name: round(value, 3) for name, value in record.losses.items()}, record.weights)
    if shard:  # Accelerate does not know of the model
        return record
    (folder,) = broadcast_object_list([folder])  # the first process's, for all
    accelerator.save_state(folder)
    accelerator.wait_for_everyone()
    accelerator.load_state(folder)  # as a new process would, to go on
    accelerator.wait_for_everyone()
    return record


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder, shard="--shard" in sys.argv)
