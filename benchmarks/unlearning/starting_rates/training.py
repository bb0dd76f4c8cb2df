"""One run of the study: a method from one rate, and what it has kept when it has forgotten, and in the end."""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

import mtopt
from mtopt.diagnosis import StarvationWarning

from ..batches import ForgetRetainBatches
from ..methods import create_trainer, method
from .worlds import Start, open_start

STEPS, BATCH_SIZE, EVERY = 40, 5, 4
"""Of a run: its budget, the rows of a side in a batch, and the steps between two looks at what is forgotten."""

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Case:
    """One cell of the grid. ``optimizer`` is ``"sgd"`` (without momentum) or ``"adamw"`` (weight decay 0.01)."""

    world: str
    optimizer: str
    method: str
    rate: float
    seed: int


@dataclass(frozen=True)
class Row:
    """What came out of one case.

    Args:
        end: model utility after the budget; 0 where the model has diverged.
        known: forget probability after the budget; None where the model has diverged.
        equal: utility at equal forgetting, which is the first look at which the forget probability is not above the
            retrained model's; None if none was.
        equal_step: when that was.
        last_rate: of the last step.
        wanted: the retrained model's forget probability.
        untouched: the utility before unlearning.
        cpu_seconds: of the run with its evaluations.
    """

    case: Case
    end: float
    known: float | None
    equal: float | None
    equal_step: int | None
    last_rate: float
    wanted: float
    untouched: float
    cpu_seconds: float

    @property
    def forgotten(self) -> bool:
        """Whether the model knows no more of the forget set in the end than a retrained one does."""
        return self.known is None or self.known <= self.wanted


class Looks(mtopt.Callback):
    """Looks at the forget probability every few steps until it is down to the retrained model's; a model that has
    diverged is trained no further."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.equal: float | None = None
        self.step: int | None = None

    def on_step_end(self, trainer: mtopt.MultiLossTrainer, record: mtopt.StepRecord) -> None:
        if record.skipped:  # gradients that are not finite
            trainer.stop()
        if self.equal is not None or trainer.step % EVERY:
            return
        known = self.start.probability(trainer.model)
        if math.isnan(known):
            trainer.stop()
        elif known <= self.start.wanted:
            self.equal, self.step = self.start.utility(trainer.model), trainer.step


def unlearn(case: Case, *, steps: int = STEPS, cache_dir: Path | None = None) -> Row:
    """Train one case and judge it."""
    start = open_start(case.world, case.seed, cache_dir)
    began = time.process_time()
    prepared = start.world.prepared
    model = copy.deepcopy(prepared.target).train()
    optimizer = optimizer_of(case, model)
    sizes = {"batch_size": BATCH_SIZE, "pad_id": prepared.tokenizer.pad_token_id, "seed": case.seed}
    automatic = method(case.method).automatic_rate
    looks = Looks(start)
    trainer = create_trainer(
        case.method,
        model,
        optimizer,
        probe_batches=None if automatic is None else automatic.probe_batches(start.world.retained, **sizes),
        reference=prepared.target,
        callbacks=[looks],
        seed=case.seed,
    )
    with warnings.catch_warnings():
        # a loss that its weight starves is what some of the methods are about, and the row says what came of it
        warnings.simplefilter("ignore", StarvationWarning)
        trainer.fit(ForgetRetainBatches(start.world.forget, start.world.retained, **sizes), steps=steps)
    known = start.probability(model)
    diverged = math.isnan(known)
    return Row(
        case,
        end=0.0 if diverged else start.utility(model),
        known=None if diverged else known,
        equal=looks.equal,
        equal_step=looks.step,
        last_rate=float(optimizer.param_groups[0]["lr"]),
        wanted=start.wanted,
        untouched=start.untouched,
        cpu_seconds=round(time.process_time() - began, 2),
    )


def optimizer_of(case: Case, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a case, at its rate."""
    if case.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=case.rate)
    return torch.optim.AdamW(model.parameters(), lr=case.rate, weight_decay=0.01)
