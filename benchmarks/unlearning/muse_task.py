"""MUSE in miniature as tasks that rules are compared on: one request, a large one, and one upon another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mtopt
from mtopt.experiments import Budget

from .muse import FOLDS
from .unlearning_task import UnlearningTask

if TYPE_CHECKING:
    from .batches import ForgetRetainBatches, Sides
    from .metrics.evaluation import Evaluation
    from .models import ReferenceConfig

MEMORY, UTILITY = "memory beyond retrained", "KnowMem of the retain set"
MEMBERSHIP = "membership AUC, distance to retrained"
EPOCHS = 5
"""Passes over each fold of :class:`SustainedMuse`."""


class MuseTask(UnlearningTask):
    """Unlearn MUSE's first fold of articles, judged by MUSE's figures.

    The objectives are the **memory beyond retrained** (lower is better), by how much VerbMem or KnowMem on the forget
    set, whichever is more, exceeds that of a model retrained without it, or 0; and the **utility** (higher is better),
    KnowMem on the retain set. PrivLeak against the same retrained model stands beside them (0 is as private as
    retraining, -100 % a full leak, above 0 the set shows by being too unlikely), and the distance of the two AUCs, of
    which it is the signed share; it is left out where the retrained model's AUC is 0. A run is judged by the
    hypervolume of its evaluations up to the reference point (1, 0).
    """

    name = "muse"
    title = "MUSE in miniature: forgetting 16 articles"
    objectives = (mtopt.Objective(MEMORY), mtopt.Objective(UTILITY, "max"))
    reference_point = (1.0, 0.0)
    views = ((MEMORY, UTILITY), (MEMBERSHIP, UTILITY))
    axis_labels = {  # noqa: RUF012  (a class-level constant)
        MEMORY: "VerbMem or KnowMem beyond the retrained model's",
        MEMBERSHIP: "AUC of Min-K %, distance to the retrained model's",
    }
    budget = Budget(steps=40, trials=8, seeds=3, evaluations=4)
    quick_budget = Budget(steps=40, trials=2, seeds=2, evaluations=4)

    forgotten = "raw/forget"

    def config_of(self, seed: int) -> ReferenceConfig:
        from .models import muse_reference

        config = muse_reference() if self.config is None else self.config
        return replace(config, corpus=replace(config.corpus, seed=seed), seed=seed)

    def data(self, split: str, *, seed: int) -> Any:
        return self._batches(seed, self.forgotten)

    def figures(self, evaluation: Evaluation, retain: Evaluation) -> dict[str, float]:
        names = ("verbmem_forget", "knowmem_forget", "auc_min_k", "knowmem_retain")
        # none of them is ever None, which PrivLeak can be
        mine, theirs = ({name: float(found.summary[name] or 0.0) for name in names} for found in (evaluation, retain))
        excess = [mine[name] - theirs[name] for name in ("verbmem_forget", "knowmem_forget")]
        leak = evaluation.summary["privleak"]
        return {
            MEMORY: max(*excess, 0.0),
            UTILITY: mine["knowmem_retain"],
            "VerbMem": mine["verbmem_forget"],
            "KnowMem": mine["knowmem_forget"],
            MEMBERSHIP: abs(mine["auc_min_k"] - theirs["auc_min_k"]),
            **({} if leak is None else {"PrivLeak": leak}),
        }

    def _batches(self, seed: int, name: str) -> ForgetRetainBatches:
        from .batches import ForgetRetainBatches

        world = self.world(seed)
        pad_id = world.prepared.tokenizer.pad_token_id
        rows = world.rows(name)
        return ForgetRetainBatches(rows, world.retained, batch_size=self.batch_size, pad_id=pad_id, seed=seed)


class LargeMuse(MuseTask):
    """MUSE's scalability, at its largest: all four folds are forgotten at once, in as many steps as one of them.

    Memory and PrivLeak are those of the first fold, which is what the retrained models lack.
    """

    name = "muse-scalability"
    title = "MUSE in miniature: four times as many articles at once"
    forgotten = f"scal/forget_{FOLDS}"


class SustainedMuse(MuseTask):
    """MUSE's sustainability: four requests one upon another, ten steps each, with an evaluation after each.

    The optimizer goes on from request to request, where MUSE begins a new training with each. Memory and PrivLeak are
    those of the first request, however long ago; a run's path is the utility along the requests.
    """

    name = "muse-sustainability"
    title = "MUSE in miniature: four requests, one upon another"

    def data(self, split: str, *, seed: int) -> Any:
        return InTurn([self._batches(seed, f"sust/forget_{fold}") for fold in range(1, FOLDS + 1)], EPOCHS)


class InTurn:
    """Batches of several requests: so many epochs of the first, then of the next; the last one stays.

    Args:
        requests: the batches of each.
        epochs: of each.
    """

    def __init__(self, requests: Sequence[ForgetRetainBatches], epochs: int) -> None:
        self.requests, self.epochs = requests, epochs
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives epoch number ``epoch``, from 0."""
        self._now = self.requests[min(epoch // self.epochs, len(self.requests) - 1)]
        self._now.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._now)

    def __iter__(self) -> Iterator[Sides]:
        return iter(self._now)
