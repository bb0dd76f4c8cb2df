"""Steps of a model that ``fully_shard`` holds, and what is asked of them beside their direction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import mtopt
import mtopt.distributed
from mtopt.linalg import view_shard
from tests.distributed.models import (
    Shared,
    batch_of,
    gradient_of,
    losses_of,
    place,
    sharded,
    step_on_tensors,
    weights_of,
    whole,
    wrapped,
)
from tests.distributed.spawned import Caught

TASKS = 3


def run_listed(when: str) -> torch.Tensor:
    """The direction where bare parameters are listed before the forward, or after it."""
    model = wrapped(Shared(TASKS), "fsdp")
    rule = mtopt.create_combiner("mgda")
    before = list(model.named_parameters())
    for step in range(2):
        for _, param in before:
            param.grad = None
        losses = losses_of(model, *batch_of(step, TASKS))
        params: Any = before
        if when == "after":
            params = list(model.named_parameters())  # among them whole ones, in the place of those of the root
        mtopt.backward(losses, params, rule)
    return torch.cat([whole(param.grad).reshape(-1) for _, param in before])  # type: ignore[arg-type]


def run_accumulating(wrap: str = "fsdp") -> dict[str, Any]:
    """Two steps without zeroing, and whether ``.grad`` stayed the tensor that it was; hooks see each direction once."""
    model = wrapped(Shared(TASKS), wrap)
    told: list[float] = []
    gain = model.gain
    if hasattr(gain, "placements"):
        gain.register_post_accumulate_grad_hook(lambda param: told.append(float(whole(param.grad).sum())))
    step_on_tensors(model, mtopt.create_combiner("mgda"), 0, TASKS)
    first = [param.grad for param in model.parameters()]
    step_on_tensors(model, mtopt.create_combiner("uw"), 1, TASKS)
    same = all(param.grad is held for param, held in zip(model.parameters(), first, strict=True))
    return {"gradient": gradient_of(model), "same": same, "told": len(told)}


def run_plain_after(wrap: str = "fsdp") -> dict[str, Any]:
    """A step of the user's own after one of a rule with the graph retained."""
    model = wrapped(Shared(TASKS), wrap)
    step_on_tensors(model, mtopt.create_combiner("mgda"), 0, TASKS, retain_graph=True)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad()
    sum(losses_of(model, *batch_of(1, TASKS)).values()).backward()  # type: ignore[union-attr]
    return {"gradient": gradient_of(model), "end": weights_of(model)}


def run_without_sync(wrap: str = "fsdp") -> torch.Tensor:
    """A step of a rule while the user accumulates without reduction, and the user's own gradient after it."""
    model = wrapped(Shared(TASKS), wrap)
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(False)
    sum(losses_of(model, *batch_of(0, TASKS)).values()).backward()  # type: ignore[union-attr]
    step_on_tensors(model, mtopt.create_combiner("mgda"), 1, TASKS)
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(True)
    sum(losses_of(model, *batch_of(2, TASKS)).values()).backward()  # type: ignore[union-attr]
    return gradient_of(model)


class Tied(nn.Module):
    """A layer of which some is frozen, a weight that two modules share, and layers whose activations are made again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.frozen = nn.Linear(4, 5), nn.Linear(5, 5)
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])
        self.one, self.other = nn.Linear(5, 1), nn.Linear(5, 1)
        generator = torch.Generator().manual_seed(1)
        for param in self.parameters():
            nn.init.normal_(param, std=0.6, generator=generator)
        self.other.weight = self.one.weight
        self.frozen.requires_grad_(False)
        self.first.bias.requires_grad_(False)
        self.double()

    def parts(self) -> list[nn.Module]:
        """Those that are sharded each by itself."""
        return [self.first, self.frozen, *self.blocks]

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        hidden = self.frozen(self.first(inputs).tanh())
        for block in self.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False).tanh()
        return [self.one(hidden).sum(1), self.other(hidden).sum(1)]


def run_tied(rule: str, wrap: str = "fsdp") -> torch.Tensor:
    """The direction of a model with shared and frozen parameters, under activation checkpoints."""
    model = wrapped(Tied(), wrap)
    mtopt.backward(losses_of(model, *batch_of(0, 2)), model, mtopt.create_combiner(rule))
    return gradient_of(model)


def run_mixed() -> dict[str, Any]:
    """Gradients of a bfloat16 policy: their dtype, and how near they are to those of float32."""
    found = {}
    for name, options in {"float32": {}, "bfloat16": {"param_dtype": torch.bfloat16}}.items():
        model = Shared(TASKS).float()
        sharded(model, mp_policy=MixedPrecisionPolicy(**options))  # type: ignore[arg-type]
        inputs, targets = batch_of(0, TASKS)
        outputs = model(inputs.float())
        losses = [(each.float() - targets[:, k].float()).square().mean() for k, each in enumerate(outputs)]
        record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"))
        assert all(param.grad is None or param.grad.dtype == torch.float32 for param in model.parameters())
        found[name] = gradient_of(model), list((record.norms or {}).values())
    return found


class _Collectives(TorchDispatchMode):
    """Counts the collectives that are begun, by their kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def run_counted(rule: str) -> dict[str, Any]:
    """How many collectives of each kind a step takes, and a plain one."""
    found = {}
    for name in ("plain", rule):
        model = wrapped(Shared(TASKS), "fsdp")
        combiner = mtopt.create_combiner(rule)
        losses_of(model, *batch_of(0, TASKS))  # torch sets itself up in the first forward
        model.reshard()  # type: ignore[operator]
        with _Collectives() as counted:
            losses = losses_of(model, *batch_of(1, TASKS))
            if name == "plain":
                sum(losses.values()).backward()  # type: ignore[union-attr]
            else:
                mtopt.backward(losses, model, combiner)
        found[name] = dict(counted.counts)
    return found


def run_between(wrap: str) -> dict[str, list[Any]]:
    """At the beginning of each pass of a step, and after it, which parts and rest are gathered, and collectives so far.

    All but the last loss reach all groups.
    """
    model = wrapped(Shared(TASKS), wrap)
    losses_of(model, *batch_of(0, TASKS))  # torch sets itself up in the first forward
    model.reshard()  # type: ignore[operator]
    held: list[list[bool]] = []
    gathered: list[int] = []
    with _Collectives() as counted:

        def look(_: object = None) -> None:
            held.append([_is_held(module) for module in (*model.parts(), model)])  # type: ignore[operator]
            gathered.append(counted.counts["_allgather_base_"])

        first, *others = losses_of(model, *batch_of(1, TASKS)).values()
        losses = [*others, first]
        for loss in losses:
            loss.register_hook(look)
        mtopt.backward(losses, model, mtopt.create_combiner("mgda"))
        look()
    return {"held": held, "gathered": gathered, "scattered": [counted.counts["_reduce_scatter_base_"]]}


def _is_held(module: Any) -> bool:
    """Whether there is memory behind the whole parameters of a module's group: of all of them, or of none."""
    entries = module._get_fsdp_state()._fsdp_param_group.fsdp_params
    sizes = [entry._unsharded_param.untyped_storage().nbytes() for entry in entries]
    assert all(sizes) or not any(sizes), sizes
    return any(sizes)


def run_state(rule: str) -> list[int]:
    """How many columns a rule tracks here after two steps."""
    model = wrapped(Shared(TASKS), "fsdp")
    combiner = mtopt.create_combiner(rule)
    for step in range(2):
        step_on_tensors(model, combiner, step, TASKS, private="combined")
    tracked: Any = combiner._tracked  # type: ignore[attr-defined]
    return [tracked.shape[1], sum(param.numel() for param in model.parameters())]


def _lacking(losses: dict[Any, torch.Tensor], model: nn.Module) -> dict[Any, Any]:
    return {name: None if name.name == "task_1" else loss for name, loss in losses.items()}


def _elsewhere(losses: dict[Any, torch.Tensor], model: nn.Module) -> dict[Any, Any]:
    """A loss that takes another way here: past its head."""
    return {
        name: model.seen.square().mean() if name.name == "task_1" else loss  # type: ignore[union-attr, operator]
        for name, loss in losses.items()
    }


class _SpoilsOneHead(torch.autograd.Function):
    """A loss whose own head's weight has a NaN in its first entry, which lies on the first rank."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        spoiled = torch.zeros_like(weight)
        spoiled.view(-1)[0] = torch.nan
        return gradient, spoiled


def _nan_in_a_head(losses: dict[Any, torch.Tensor], model: nn.Module) -> dict[Any, Any]:
    head = model.heads[1].weight  # type: ignore[index, union-attr]
    return {name: _SpoilsOneHead.apply(loss, head) if name.name == "task_1" else loss for name, loss in losses.items()}


def _nan(losses: dict[Any, torch.Tensor], model: nn.Module) -> dict[Any, Any]:
    return {name: loss * torch.nan if name.name == "task_1" else loss for name, loss in losses.items()}


TROUBLES: dict[str, tuple[Callable[..., Any], str, str]] = {
    "absent": (
        _lacking,
        "RankError",
        r"which losses are there .*'task_1'.* on rank 0, \['task_0', 'task_2'\] on rank 1",
    ),
    "reach": (_elsewhere, "RankError", r"which of params loss 'task_1' reaches, .* on rank 0, .* on rank 1"),
    "nan": (_nan, "skipped", "^non-finite loss: task_1"),
    "nan_in_a_head": (_nan_in_a_head, "skipped", "^non-finite gradient: task_1$"),
}
"""What the second rank has, and what it comes to on all."""


def run_trouble(name: str, rule: str) -> dict[str, Any]:
    """The step after one without trouble, how long it took, what it changed, and the step after it."""
    model = wrapped(Shared(TASKS), "fsdp")
    combiner = mtopt.create_combiner(rule)
    step_on_tensors(model, combiner, 0, TASKS)
    model.zero_grad()
    state = repr(combiner.state_dict())
    started = time.monotonic()
    outcome: tuple[str, str | None] = "", ""
    with Caught() as caught:
        losses = losses_of(model, *batch_of(1, TASKS))
        record = mtopt.backward(TROUBLES[name][0](losses, model) if place()[0] == 1 else losses, model, combiner)
        outcome = "skipped" if record.skipped else "went well", record.reason
    if caught.raised is not None:
        outcome = caught.raised.kind, caught.raised.text
    seconds = time.monotonic() - started
    changed = state != repr(combiner.state_dict()) or bool(gradient_of(model).any())
    step_on_tensors(model, combiner, 2, TASKS)
    return {"outcome": outcome, "seconds": seconds, "changed": changed, "after": gradient_of(model)}


def _with(rule: str, kind: str = "tensors", **options: Any) -> tuple[str, str, dict[str, Any]]:
    return rule, kind, options


REFUSED = {
    "representation": (*_with("mgda", plan="features", with_features=True), "plan='features'"),
    "matrix_free": (*_with("mgda", "callable", plan="matrix_free"), "plan='matrix_free'"),
    "float16": (*_with("mgda", store=torch.float16), "float16"),
}
"""The rule, how it takes its losses, the options, and what the error must name."""


def run_agreement(wrap: str, what: str) -> tuple[list[bool], str]:
    """When ranks were compared, and what was said of those that differ in a parameter or in a weight."""
    model = wrapped(Shared(TASKS), wrap)
    agreement = mtopt.distributed.Agreement(model, every=2)
    weights = {"task_0": 0.5, "task_1": 0.5}
    compared = [agreement.check(weights) for _ in range(4)]
    if place()[0] == place()[1] - 1:
        if what == "parameter":
            with torch.no_grad():
                for name, param in model.named_parameters():
                    if name.endswith(("some.bias", "heads.1.weight")):
                        view_shard(param)[..., -1:] *= 1.0 + 1e-15
        else:
            weights["task_1"] += 1e-16
    compared.append(agreement.check(weights))
    with Caught() as caught:
        agreement.check(weights)
    return compared, "" if caught.raised is None else caught.raised.text


def run_partly() -> None:
    """A step of a model of which only a part is sharded."""
    model = Shared(TASKS)
    fully_shard(model.trunk)
    step_on_tensors(model, mtopt.create_combiner("mgda"), 0, TASKS)
