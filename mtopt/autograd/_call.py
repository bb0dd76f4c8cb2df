"""What was asked of one step, with every check of an argument; and the losses of its mini-batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from mtopt._losses import Absent, check_absent, without_nan
from mtopt.autograd._matrix_free_options import MatrixFree
from mtopt.combiners import Combiner
from mtopt.distributed import ALONE, Processes, refuse_ranks, unwrapped
from mtopt.linalg import Place

Params = nn.Module | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]
"""What gradients are written to; with their names, where a rule tells layers apart."""

Features = torch.Tensor | Sequence[torch.Tensor] | None

PlanName = Literal["auto", "loop", "batched", "features", "layers", "matrix_free"]

Store = Literal["recompute"] | torch.dtype | None

Private = Literal["own", "weighted", "combined"]

SHORT = (torch.bfloat16, torch.float16)
"""The dtypes of 16 bits, which rows may be kept in."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of ``mtopt.backward``, or of another way to take a step: what its arguments say, checked.

    Attributes:
        losses: as they were given.
        places: the parameters to train, and where each stands; ``params``: these alone.
        rule: what combines the gradients.
        model: the module whose parameters they are, where that was given.
        scale: a GradScaler's factor, which rows carry and ``.grad`` keeps; 1 without one.
        scaled: there is a GradScaler, which must see it when a step is skipped.
        free: the settings of a matrix-free step; None for another.
        takes_absent: ``absent="nan"`` is an option of the caller's.
        processes: those that each have a part of the batch, and all of the parameters.
        The others are the arguments of ``mtopt.backward``.
    """

    losses: Any
    places: Sequence[Place]
    params: Sequence[torch.Tensor]
    rule: Combiner
    scale: float = 1.0
    scaled: bool = False
    private: Private | None = None
    strict: bool = False
    model: nn.Module | None = None
    features: Features = None
    plan: PlanName = "auto"
    free: MatrixFree | None = None
    store: Store = None
    absent: Absent = None
    takes_absent: bool = True
    retain_graph: bool = False
    processes: Processes = ALONE

    @classmethod
    def of(
        cls,
        losses: Any,
        params: Params,
        rule: Combiner,
        *,
        scaler: Any = None,
        private: Private | None = None,
        strict: bool = False,
        features: Features = None,
        plan: PlanName | MatrixFree = "auto",
        store: Store = None,
        absent: Absent = None,
        takes_absent: bool = True,
        retain_graph: bool = False,
        processes: Processes | None = None,
        what: str = "this step",
    ) -> Call:
        """The call with these arguments, once each is what it should be.

        Without ``processes`` there must be one alone; ``what`` is then refused by this name.
        """
        check_rule(rule, private)
        check_features(features)
        check_absent(absent)
        free = as_matrix_free(plan, features, store)
        if free is None:
            check_plan(plan, store, rule)
        if processes is None:
            refuse_ranks(what)
        params = unwrapped(params)
        places = trainable(params, processes or ALONE)
        scale, scaled = factor_of(scaler, places[0].parameter.device)
        call = cls(
            losses if absent is None or rule.draws > 1 else without_nan(losses),
            places,
            [place.parameter for place in places],
            rule,
            scale,
            scaled,
            private,
            strict,
            params if isinstance(params, nn.Module) else None,
            features,
            "matrix_free" if isinstance(plan, MatrixFree) else plan,
            free,
            store,
            absent,
            takes_absent and (free is None or rule.draws == 1),
            retain_graph,
            processes or ALONE,
        )
        call._check_together()
        if call.processes.shards is not None:
            call._check_sharded()
        if call.processes.several:
            note_call(call.processes, places, rule, scale)
            arguments = (private, strict, plan, store, absent, features is None)
            call.processes.note("the arguments of mtopt.backward", arguments)
        return call

    def _check_together(self) -> None:
        """Raise for arguments that do not go together."""
        rule, matrix_free = self.rule, self.free is not None
        if self.retain_graph and (matrix_free or rule.revisits):
            what = "plan='matrix_free'" if matrix_free else repr(rule)
            raise ValueError(
                f"{what} runs the losses anew, at other parameters too, and keeps no graph of the caller's; "
                "leave retain_graph out"
            )
        if matrix_free and self.absent is not None and rule.draws > 1:
            raise ValueError(
                f"plan='matrix_free' takes the same losses from all of {rule!r}'s mini-batches; leave "
                f"absent={self.absent!r} out, or the plan"
            )
        if rule.draws > 1 and self.features is not None:
            raise ValueError(f"features belong to one mini-batch, and {rule!r} takes {rule.draws}; leave it out")
        as_usual = self.features is None and self.plan in ("auto", "loop") and self.store is None
        if rule.revisits and not (matrix_free or as_usual):
            raise ValueError(
                f"{rule!r} takes one backward pass per loss at each of two points; leave features, plan and store out"
            )

    def _check_sharded(self) -> None:
        """Raise for what needs whole parameters or gradients in each process, where ``fully_shard`` holds them."""
        on_features = self.rule.on_features and self.features is not None
        refused = {
            "plan='features'": self.plan == "features",
            f"features= for {self.rule!r}, which weighs by them,": on_features,
            "plan='matrix_free'": self.free is not None,
            "store=torch.float16": self.store == torch.float16,
        }
        for what, asked in refused.items():
            if asked:
                raise ValueError(
                    f"params are sharded by fully_shard, with which {what} does not work; see docs/distributed.md for "
                    "what does, or leave fully_shard out (DistributedDataParallel takes every plan)"
                )


def note_call(processes: Processes, places: Sequence[Place], rule: Combiner, scale: float) -> None:
    """Have the processes agree in what a step is made of."""
    looks = [(tuple(place.parameter.shape), str(place.parameter.dtype)) for place in places]
    processes.note("the number, shapes and dtypes of params", looks)
    processes.note("the rule", type(rule).__name__)
    processes.note("the factor of the GradScaler", scale)


def factor_of(scaler: Any, device: torch.device) -> tuple[float, bool]:
    """The factor of a GradScaler, and whether there is one that scales."""
    if scaler is None or not scaler.is_enabled():
        return 1.0, False
    # asked by scaling a one: a scaler sets itself up when it scales for the first time, and not in get_scale()
    return float(scaler.scale(torch.ones((), device=device))), True


def check_rule(combiner: object, private: object) -> None:
    """Raise for what is no rule, and for a word that ``private`` does not know."""
    if isinstance(combiner, type):
        raise TypeError(f"combiner must be a Combiner, found a class; create it: {combiner.__name__}()")
    if not isinstance(combiner, Combiner):
        hint = ""
        if isinstance(combiner, str):
            hint = f"; create it once, before the loop: mtopt.create_combiner({combiner!r})"
        raise TypeError(f"combiner must be a Combiner, found {type(combiner).__name__}{hint}")
    if private not in (None, "own", "weighted", "combined"):
        raise ValueError(f"private must be 'own', 'weighted' or 'combined', found {private!r}")


def check_features(features: object) -> None:
    """Raise for what is neither a tensor nor some of them, whatever the plan makes of it."""
    if features is None or isinstance(features, torch.Tensor):
        return
    if not isinstance(features, Sequence) or isinstance(features, str):
        raise TypeError(f"features must be a tensor or a sequence of tensors, found {type(features).__name__}")
    if len(features) == 0:
        raise ValueError("features is empty: give what the shared trunk gave, or None where no trunk is shared")
    for index, feature in enumerate(features):
        if not isinstance(feature, torch.Tensor):
            raise ValueError(f"features[{index}] must be a tensor with a graph, found {type(feature).__name__}")


def trainable(params: Params, processes: Processes = ALONE) -> list[Place]:
    """The parameters to write gradients to: leaves that require gradients, each once; shards, where they are sharded.

    One process alone refuses these.
    """
    used_up = isinstance(params, Iterator)  # if it holds nothing now
    if isinstance(params, nn.Module):
        params = params.named_parameters()
    elif isinstance(params, torch.Tensor):
        raise TypeError("params must be an iterable of parameters (or a module), found one tensor; give [tensor]")
    elif not isinstance(params, Iterable):
        raise TypeError(
            f"params must be a module or an iterable of parameters, found {type(params).__name__}; give the model"
        )
    found: dict[int, Place] = {}
    for index, entry in enumerate(params):
        name, param = entry if isinstance(entry, tuple) and len(entry) == 2 else (None, entry)
        used_up = False
        if not isinstance(param, torch.Tensor) or not (name is None or isinstance(name, str)):
            raise TypeError(f"params[{index}] must be a tensor, found {type(entry).__name__}; give model.parameters()")
        if not param.requires_grad or id(param) in found:
            continue  # frozen, as in LoRA, or given twice
        if not param.is_leaf:
            raise ValueError(
                f"params[{index}] of shape {tuple(param.shape)} is no leaf: it was computed from others; give those"
            )
        found[id(param)] = Place(param, index, name)
    if used_up:
        raise ValueError(
            "params is an iterator that holds nothing (any more): model.parameters() can be gone through once, and not "
            "again in the next step; give the model itself, or list(model.parameters())"
        )
    if not found:
        raise ValueError("params holds no parameter that requires gradients; unfreeze some or give the right ones")
    return processes.hold(list(found.values()))


def as_matrix_free(plan: object, features: object, store: object) -> MatrixFree | None:
    """The settings that ``plan`` stands for; None for another plan."""
    if plan == "matrix_free":
        plan = MatrixFree()
    if not isinstance(plan, MatrixFree):
        return None
    for name, value in (("features", features), ("store", store)):
        if value is not None:
            raise ValueError(f"plan='matrix_free' keeps no gradients and runs the losses itself; leave {name} out")
    return plan


def check_plan(plan: object, store: object, rule: Combiner) -> None:
    """Raise for a plan or a store that does not exist, or that the rule cannot be run with."""
    if plan not in get_args(PlanName):
        raise ValueError(f"plan must be one of {', '.join(map(repr, get_args(PlanName)))}, found {plan!r}")
    if store is not None and store not in ("recompute", *SHORT):
        raise ValueError(
            f"store must be None, 'recompute', torch.bfloat16 or torch.float16, found {store!r}; "
            "None keeps the gradients as they are"
        )
    if plan == "features" and not (weighs_by_products(rule) and rule.features):
        raise ValueError(
            f"plan='features' weighs by inner products of the representation's gradients, and {rule!r} needs "
            "those of the parameters; leave it out"
        )
    if plan == "layers" and not weighs_by_products(rule):
        raise ValueError(
            f"plan='layers' makes inner products and no gradients, and {rule!r} needs their coordinates; leave it out"
        )
    if plan in ("features", "layers") and store is not None:
        what = "the parameters" if plan == "features" else "matrices"
        raise ValueError(f"plan={plan!r} keeps no gradients of {what}; leave store={store!r} out")
    if rule.draws > 1 and (plan not in ("auto", "loop") or store is not None):
        raise ValueError(
            f"{rule!r} takes {rule.draws} mini-batches per step, and one backward pass per loss of each; "
            f"leave plan={plan!r} and store={store!r} out"
        )
    if store == "recompute" and not weighs_by_products(rule):
        raise ValueError(
            f"store='recompute' keeps no gradients, and {rule!r} needs their coordinates; "
            "leave it out, or take store=torch.bfloat16 for half the memory"
        )


def weighs_by_products(rule: Combiner) -> bool:
    """Whether the rule weighs by inner products alone, so that no row need be kept for it."""
    return rule.needs == "losses" or (rule.needs in ("norms", "gramian") and rule.weighted)
