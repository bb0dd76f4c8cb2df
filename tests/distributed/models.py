"""A model, its losses on a part of a batch, and steps of a rule on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import mtopt
from mtopt import Objective

SAMPLES = 12


def place() -> tuple[int, int]:
    """This rank, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class Shared(nn.Module):
    """A trunk, one parameter of a single entry, a layer that all but the first loss pass, and a head for each loss."""

    def __init__(self, tasks: int, seed: int = 0) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.gain = nn.Parameter(torch.ones(1))
        self.some = nn.Linear(5, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(tasks))
        generator = torch.Generator().manual_seed(seed)
        for param in self.parameters():
            nn.init.normal_(param, std=0.6, generator=generator)
        self.double()

    def parts(self) -> list[nn.Module]:
        """Those that are sharded each by itself, where the model is."""
        return [self.trunk, self.some]

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.trunk(inputs) * self.gain

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        self.seen = self.features(inputs)
        return [head(self.some(self.seen) if k else self.seen).sum(1) for k, head in enumerate(self.heads)]


def batch_of(step: int, tasks: int, draw: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's part of the whole batch of a step."""
    generator = torch.Generator().manual_seed(100 * step + draw)
    inputs = torch.randn(SAMPLES, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(SAMPLES, tasks, generator=generator, dtype=torch.float64)
    rank, size = place()
    return inputs[rank::size], targets[rank::size]


def losses_of(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> dict[Any, torch.Tensor]:
    """Positive losses; the fourth is maximised, where there is one."""
    found: dict[Any, torch.Tensor] = {}
    outputs = model(inputs)
    for k, output in enumerate(outputs):
        sense = "max" if k == 3 else "min"
        found[Objective(f"task_{k}", sense)] = (k + 1) * (output - targets[:, k]).square().mean() + 0.1
    return found


SHARDED: dict[str, dict[str, Any]] = {
    "fsdp": {},
    "hsdp": {},
    "copies": {},
    "freed": {"reshard_after_forward": True},
    "hsdp_freed": {"reshard_after_forward": True},
    "freed_to_pairs": {"reshard_after_forward": 2},
    "parts_freed": {},
    "freed_in_forward": {"reshard_after_forward": True},
    "kept": {"reshard_after_forward": False},
}
"""Ways to shard, and what ``fully_shard`` is given. For two of them methods of the model set the rest."""


def wrapped(model: nn.Module, wrap: str) -> nn.Module:
    """The model as it is, under DDP with settings that a user may have, or sharded on all ranks or on pairs of them."""
    if wrap == "bare" or not distributed.is_initialized():
        return model
    if wrap in SHARDED:
        return sharded(model, wrap, **SHARDED[wrap])
    options = {"find_unused_parameters": wrap == "unused", "gradient_as_bucket_view": wrap == "views"}
    return DistributedDataParallel(model, **options)


def sharded(model: nn.Module, wrap: str = "fsdp", **options: Any) -> nn.Module:
    """The model with its parts, and the rest, in groups of their own."""
    size = distributed.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    if wrap.startswith(("hsdp", "copies")):
        shards = 1 if wrap == "copies" else 2
        mesh = init_device_mesh("cpu", (size // shards, shards), mesh_dim_names=("copies", "shards"))
    for part in (*model.parts(), model):  # type: ignore[operator]
        fully_shard(part, mesh=mesh, **options)  # type: ignore[arg-type]
        if wrap == "parts_freed" and part is not model:
            part.set_reshard_after_forward(True)
    if wrap == "freed_in_forward":
        model.set_reshard_after_backward(False)  # type: ignore[operator]
    return model


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, of which this rank may have a shard."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gradient_of(model: nn.Module) -> torch.Tensor:
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([whole(gradient).reshape(-1) for gradient in found])


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([whole(param.detach()).reshape(-1) for param in model.parameters()])


Step = Callable[[nn.Module, mtopt.Combiner, int, int], mtopt.StepRecord]
"""A step of a model with so many tasks: the model, the rule, the number of the step, the number of tasks."""


def step_on_tensors(model: nn.Module, rule: mtopt.Combiner, step: int, tasks: int, **options: Any) -> Any:
    losses = losses_of(model, *batch_of(step, tasks))
    if options.pop("with_features", False):
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        options["features"] = inner.seen
    return mtopt.backward(losses, model, rule, **options)


def step_on_callables(model: nn.Module, rule: mtopt.Combiner, step: int, tasks: int) -> Any:
    def one(k: int) -> Callable[[], torch.Tensor]:
        return lambda: list(losses_of(model, *batch_of(step, tasks)).values())[k]

    names = list(losses_of(model, *batch_of(step, tasks)))
    return mtopt.backward({name: one(k) for k, name in enumerate(names)}, model, rule)


def step_by_callable(model: nn.Module, rule: mtopt.Combiner, step: int, tasks: int, **options: Any) -> Any:
    return mtopt.backward(lambda: losses_of(model, *batch_of(step, tasks)), model, rule, **options)


def step_on_draws(model: nn.Module, rule: mtopt.Combiner, step: int, tasks: int, **options: Any) -> Any:
    def draw(number: int) -> Callable[[], Any]:
        return lambda: losses_of(model, *batch_of(step, tasks, number))

    return mtopt.backward([draw(number) for number in range(rule.draws)], model, rule, **options)


def step_accumulated(model: nn.Module, rule: mtopt.Combiner, step: int, tasks: int) -> Any:
    """Two micro-batches, the halves of the batch."""
    inputs, targets = batch_of(step, tasks)
    half = len(inputs) // 2
    objectives = list(losses_of(model, inputs, targets))
    sums = mtopt.JacobianAccumulator(model, objectives)
    for part in (slice(None, half), slice(half, None)):
        losses = losses_of(model, inputs[part], targets[part])
        for k, (objective, loss) in enumerate(losses.items()):
            sums.add(objective.name, loss * len(inputs[part]) / len(inputs), retain_graph=k + 1 < len(losses))
    return sums.combine(rule)


STEPS: dict[str, Callable[..., Any]] = {
    "tensors": step_on_tensors,
    "callables": step_on_callables,
    "callable": step_by_callable,
    "draws": step_on_draws,
    "accumulated": step_accumulated,
}


def steps(
    rule: mtopt.Combiner,
    tasks: int,
    kind: str = "tensors",
    options: dict[str, Any] | None = None,
    wrap: str = "ddp",
    count: int = 3,
    rate: float = 0.05,
) -> dict[str, Any]:
    """So many steps of a rule: their directions, their records, and the parameters at the end."""
    model = wrapped(Shared(tasks), wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    directions: list[torch.Tensor] = []
    records = []
    for step in range(count):
        optimizer.zero_grad()
        record = STEPS[kind](model, rule, step, tasks, **(options or {}))
        directions.append(gradient_of(model))
        records.append((record.losses, record.weights, record.norms, record.skipped, record.reason, record.plan))
        optimizer.step()
        if rule.reevaluates and rule.awaits_losses:  # of the whole batch, as one process sees it
            rule.reevaluate(whole_losses(model, step, tasks))
    return {"directions": torch.stack(directions), "records": records, "end": weights_of(model)}


def whole_losses(model: nn.Module, step: int, tasks: int) -> torch.Tensor:
    with torch.no_grad():
        found = losses_of(model, *batch_of(step, tasks))
        values = torch.stack([objective.sign * loss for objective, loss in found.items()])
    if distributed.is_initialized():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values


def kinds_of(rule: mtopt.Combiner) -> str:
    """How a rule takes its losses."""
    return "draws" if rule.draws > 1 else "callable" if rule.revisits else "tensors"


def tasks_of(make: Callable[[], mtopt.Combiner]) -> int:
    """Three, or two for a rule that takes no more."""
    rule = make()
    try:
        steps(rule, 3, kinds_of(rule), wrap="bare", count=1)
    except ValueError:
        return 2
    return 3


RULES: dict[str, Callable[[], mtopt.Combiner]] = {
    "every": lambda: mtopt.Every(mtopt.create_combiner("mgda"), 2),
    "every_draws": lambda: mtopt.Every(mtopt.create_combiner("modo"), 2),
    "layers": lambda: mtopt.PerGroup(mtopt.create_combiner("mgda"), by="layer"),
    "smoothed": lambda: mtopt.Smoothed(mtopt.create_combiner("pcgrad"), beta=0.5),
    "normalized": lambda: mtopt.Normalized(mtopt.create_combiner("mgda"), by="l2"),
}


def rule_of(name: str) -> mtopt.Combiner:
    """A rule of the registry, or a wrapper around one."""
    return RULES[name]() if name in RULES else mtopt.create_combiner(name)


def run_plan(name: str, tasks: int, kind: str, options: dict[str, Any], wrap: str = "ddp") -> dict[str, Any]:
    return steps(rule_of(name), tasks, kind, options, wrap)


def run_rule(name: str, tasks: int, wrap: str = "ddp", count: int = 3) -> dict[str, Any]:
    rule = mtopt.create_combiner(name)
    return steps(rule, tasks, kinds_of(rule), wrap=wrap, count=count)
