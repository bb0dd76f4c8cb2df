"""The trainer of unlearning: a loss on what is to be forgotten, one on what is to be retained, and any rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

import mtopt

from . import losses as functions
from ._reference import reference_of

Loss = Callable[..., Tensor]

FORGET_LOSSES: dict[str, tuple[Loss, Literal["min", "max"]]] = {
    "nll": (functions.nll, "max"),
    "grad_ascent": (functions.grad_ascent, "min"),
    "npo": (functions.npo, "min"),
    "simnpo": (functions.simnpo, "min"),
    "idk_nll": (functions.idk_nll, "min"),
    "idk_dpo": (functions.idk_dpo, "min"),
    "rmu": (functions.rmu_forget, "min"),
    "undial": (functions.undial, "min"),
    "wga": (functions.wga, "min"),
    "satimp": (functions.satimp, "min"),
    "ce_u": (functions.ce_u, "min"),
    "max_entropy": (functions.max_entropy, "min"),
    "logit_flattening": (functions.logit_flattening, "min"),
}
"""Forget losses by name, and what is done with each. The NLL is the objective that NGDiff maximises."""

RETAIN_LOSSES: dict[str, Loss] = {
    "nll": functions.nll,
    "kl": functions.kl_to_reference,
    "rmu": functions.rmu_retain,
}
"""Retain losses by name; all are minimised."""


class UnlearningTrainer(mtopt.MultiLossTrainer):
    """Unlearns with two losses on separate batches and any rule, in the order (retain, forget) that rules expect.

    ::

        batches = ForgetRetainBatches(forget_rows, retain_rows, batch_size=16, pad_id=tokenizer.pad_token_id)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        trainer = UnlearningTrainer(model, optimizer, "ngdiff", forget="nll", retain="nll", seed=0)
        trainer.fit(batches, epochs=5)

    The forget loss enters as an objective to maximise where it is the NLL, so that ``ngdiff`` is
    ``g_R / ||g_R|| - g_F / ||g_F||`` and ``linear`` with the preference (c, 1 - c) is GDiff,
    ``c g_R - (1 - c) g_F``; every other one is minimised. Each loss is run, differentiated and freed in turn. A rule
    that asks for positive losses takes those that are never negative (``npo``, ``simnpo``, ``idk_*``, ``rmu``,
    ``undial``, ``ce_u``, ``max_entropy``, ``logit_flattening``), and refuses the others by name.

    Args:
        model: A causal language model. What the optimizer does not hold (frozen weights below LoRA's) stays.
        optimizer, combiner: As in :class:`mtopt.MultiLossTrainer`.
        forget: A name in ``FORGET_LOSSES``, or a function ``(model, batch, **context) -> scalar``, whose parameters
            named ``reference`` and ``idk`` get the reference model and the batch's side of that name.
        retain: A name in ``RETAIN_LOSSES``, a function, or None: then there is one objective.
        forget_options, retain_options: Further arguments of the two, such as ``{"beta": 0.1}``.
        forget_sense: ``"min"`` or ``"max"``. Default: what the name stands for, ``"min"`` for a function.
        reference: The model of the losses that have one, run without a graph and in evaluation mode. Default:
            ``model`` as it is now, if one of them needs it: its base where it has fresh LoRA adapters, else a copy of
            all its weights. To resume, build the trainer from the same model.
        options: All others of :class:`mtopt.MultiLossTrainer`.

    A batch is ``{"forget": ..., "retain": ..., "idk": ...}``, as
    :class:`~mtopt_suites.unlearning.batches.ForgetRetainBatches` gives; it is moved to the model's device. A side is
    read when its loss is run, so that :class:`mtopt.GeN` with ``objective="retain"`` probes on batches that have no
    other.

    Raises:
        UnknownNameError: No loss of that name.
        TypeError: An option that the loss does not have.
        ValueError: Weights to train in float16, whose squared gradients are zero or infinite in Adam.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        combiner: mtopt.Combiner | str,
        *,
        forget: str | Loss = "nll",
        retain: str | Loss | None = "nll",
        forget_options: Mapping[str, Any] | None = None,
        retain_options: Mapping[str, Any] | None = None,
        forget_sense: Literal["min", "max"] | None = None,
        reference: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        _refuse_float16(model, optimizer)
        super().__init__(model, optimizer, combiner, **options)
        self._sides: dict[mtopt.Objective, tuple[str, Loss]] = {}
        if retain is not None:
            kept = _known("retain", retain, RETAIN_LOSSES) if isinstance(retain, str) else retain
            self._sides[mtopt.Objective("retain")] = "retain", kept
        sense: Literal["min", "max"]
        lost, sense = _known("forget", forget, FORGET_LOSSES) if isinstance(forget, str) else (forget, "min")
        self._sides[mtopt.Objective("forget", forget_sense or sense)] = "forget", lost
        self._options = {"forget": dict(forget_options or {}), "retain": dict(retain_options or {})}
        for objective, (side, function) in self._sides.items():
            _check_options(objective.name, function, self._options[side])
        if reference is model:
            raise ValueError("reference is the model that is trained; give a copy of it, or leave reference out")
        if reference is None and any("reference" in _context_of(function) for _, function in self._sides.values()):
            reference = reference_of(model)
        self.reference = reference.eval() if isinstance(reference, torch.nn.Module) else reference

    def losses(self, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[mtopt.Objective, Callable[[], Tensor]]:
        """The retain and the forget loss as callables, each of its own side of the batch."""
        return {
            objective: partial(self._loss, function, side, batch) for objective, (side, function) in self._sides.items()
        }

    def batch_size(self, batch: Mapping[str, Mapping[str, Tensor]]) -> int:
        """The rows of one side."""
        return len(next(iter(batch.values()))["input_ids"])

    def _loss(self, function: Loss, side: str, batch: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        context = dict(self._options[side])
        wanted = _context_of(function)
        if "reference" in wanted:
            context["reference"] = self.reference
        if "idk" in wanted:
            context["idk"] = self._side("idk", batch)
        return function(self.model, self._side(side, batch), **context)

    def _side(self, name: str, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        if name not in batch:
            raise ValueError(
                f"batch has no side {name!r}, which a loss of this trainer takes, found {sorted(batch)}; see "
                "ForgetRetainBatches"
            )
        device = self.optimizer.param_groups[0]["params"][0].device
        return {key: value.to(device) for key, value in batch[name].items()}


def _refuse_float16(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    trained = {id(param) for group in optimizer.param_groups for param in group["params"]}
    for name, param in model.named_parameters():
        if id(param) in trained and param.dtype == torch.float16:
            raise ValueError(
                f"{name} is to be trained in float16, in which Adam's squared gradients are zero or infinite; "
                "load the model with dtype=torch.float32 or torch.bfloat16, or train LoRA's adapters"
            )


def _known(argument: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise mtopt.UnknownNameError(f"unknown {argument} loss {name!r}; known names: {', '.join(table)}")
    return table[name]


def _context_of(function: Loss) -> set[str]:
    return {"reference", "idk"} & set(inspect.signature(function).parameters)


def _check_options(argument: str, function: Loss, given: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    own = [name for name in list(parameters)[2:] if name not in ("reference", "idk", "reduction")]
    if unknown := sorted(set(given) - set(own)):
        raise TypeError(f"{argument}_options has {unknown}, which the loss does not take; its own: {own or 'none'}")
