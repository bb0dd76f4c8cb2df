"""Two tasks on one trunk with Lightning's Fabric, saved and restored with the rule's state.

python docs/examples/fabric_two_tasks.py
"""

import tempfile
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch.nn.functional import cross_entropy, mse_loss

import mtopt
from mtopt.integrations.lightning import backward


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


def train(folder, steps=50):
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0, verbose=False)
    model = Net()
    model, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), lr=0.01))
    combiner = mtopt.create_combiner("moco")  # once, before the loop: this rule tracks gradients
    state = {"model": model, "optimizer": optimizer, "combiner": combiner}
    for step in range(steps):
        optimizer.zero_grad()
        record = backward(fabric, losses_of(model, torch.randn(64, 8)), model, combiner)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        if step % 10 == 0:
            fabric.print(step, {name: round(value, 3) for name, value in record.losses.items()}, record.weights)
    fabric.save(Path(folder) / "last.ckpt", state)
    fabric.load(Path(folder) / "last.ckpt", state)  # as a new process would, to go on
    return record


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder)
