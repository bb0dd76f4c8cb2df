"""Two tasks on one trunk with Lightning.

python docs/examples/lightning_two_tasks.py
torchrun --nproc-per-node 2 docs/examples/lightning_two_tasks.py           # replicas, by DDP
torchrun --nproc-per-node 2 docs/examples/lightning_two_tasks.py --shard   # shards, by FSDP2
"""

import os
import sys

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import mtopt
from mtopt.integrations.lightning import MultiLossMixin


class TwoTasks(MultiLossMixin, LightningModule):
    def __init__(self, combiner="mgda", **options):
        super().__init__(combiner=mtopt.create_combiner(combiner), **options)
        self.trunk = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU())
        self.sign, self.size = torch.nn.Linear(32, 2), torch.nn.Linear(32, 1)

    def configure_model(self):
        if self.device_mesh is not None:  # under ModelParallelStrategy: all that losses() calls, but not self
            for part in (self.trunk, self.sign, self.size):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def losses(self, batch):
        x, sign, size = batch
        features = self.trunk(x)
        return {"sign": cross_entropy(self.sign(features), sign), "size": mse_loss(self.size(features)[:, 0], size)}

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)]


def two_tasks_data(count=256):
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.sum(1) > 0).long(), x.norm(dim=1))


def quiet_trainer(**settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **{**quiet, **settings})


def strategy_for(size, shard=False):
    if size == 1:
        return "auto"
    return ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1) if shard else "ddp"


if __name__ == "__main__":
    torch.manual_seed(0)
    module = TwoTasks(accumulate_grad_batches=2, gradient_clip_val=1.0)
    size = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun sets it
    trainer = quiet_trainer(max_epochs=5, devices=size, strategy=strategy_for(size, "--shard" in sys.argv))
    trainer.fit(module, DataLoader(two_tasks_data(), batch_size=32 // size))
    if trainer.is_global_zero:
        print(f"{trainer.global_step} steps")
        for name, value in trainer.callback_metrics.items():
            print(f"{name:16s} {value:.4f}")
