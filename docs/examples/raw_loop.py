"""Two objectives in a loop of one's own: fit one half of the data, forget the other.

python docs/examples/raw_loop.py
"""

import torch
from torch.nn.functional import cross_entropy

import mtopt

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
combiner = mtopt.create_combiner("ngdiff")  # once, before the loop: a rule may carry state
forget = mtopt.Objective("forget", sense="max")

x, labels = torch.randn(256, 8), torch.randint(4, (256,))
retain_x, retain_y, forget_x, forget_y = x[:192], labels[:192], x[192:], labels[192:]

for step in range(100):
    optimizer.zero_grad()
    losses = {
        "retain": cross_entropy(model(retain_x), retain_y),
        forget: cross_entropy(model(forget_x), forget_y),
    }
    record = mtopt.backward(losses, model, combiner)  # instead of loss.backward()
    optimizer.step()
    if step % 20 == 0:
        values = "  ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
        print(f"step {step:3d}  {values}  cosine {record.cosines[0, 1]:.2f}")

# Batches too large for memory: the raw gradients of the micro-batches are summed, and the rule is applied once.
optimizer.zero_grad()
accumulator = mtopt.JacobianAccumulator(model, ["retain", forget])
for part in range(4):
    rows, other_rows = slice(part * 48, part * 48 + 48), slice(part * 16, part * 16 + 16)
    accumulator.add("retain", cross_entropy(model(retain_x[rows]), retain_y[rows]) / 4)
    accumulator.add("forget", cross_entropy(model(forget_x[other_rows]), forget_y[other_rows]) / 4)
record = accumulator.combine(combiner)
optimizer.step()
print("from four micro-batches:", {name: round(value, 3) for name, value in record.losses.items()})
