"""One model through a sequence of parts: the loss on the new ones, and those on what is remembered of the old."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

import mtopt

from .network import Classifier
from .streams import Schedule, Stream

Memory = Literal["together", "each", "none"]


class ContinualTrainer(mtopt.MultiLossTrainer):
    """Plain SGD. The losses of a step are ``new`` and one or several of old parts, None as long as there is none.

    At the end of each stage the accuracies on all parts are taken, of validation and test images.

    Attributes:
        stage: the number of the one under way, from 0.
        current: the parts that are in it.
        seen, old: parts of earlier stages, all of them and those that are not in this one.

    Args:
        model, combiner: what is trained, and the rule.
        stream, schedule: the parts, and when they come.
        learning_rate: of SGD.
        seed: draws the examples that are remembered, and the schedule where that is random.
        memory: ``"together"``: one loss, ``old``, the mean over all that is remembered of parts that were there before
            and are not now. ``"each"``: one loss per part, ``old: NAME``. ``"none"``: nothing is remembered.
        memory_size: training examples remembered of each part.
    """

    def __init__(
        self,
        model: Classifier,
        combiner: mtopt.Combiner,
        stream: Stream,
        schedule: Schedule,
        *,
        learning_rate: float,
        seed: int,
        memory: Memory = "together",
        memory_size: int = 20,
    ) -> None:
        if memory not in ("together", "each", "none"):
            raise ValueError(f"memory must be 'together', 'each' or 'none', found {memory!r}")
        super().__init__(model, torch.optim.SGD(model.parameters(), lr=learning_rate), combiner, seed=seed)
        self.classifier = model
        self.stream, self.schedule, self.memory = stream, schedule, memory
        self.masks = stream.masks()
        self.schedule_seed = seed
        self.stage = -1
        self.current: tuple[int, ...] = ()
        self.seen: set[int] = set()
        self.old: list[int] = []
        self.accuracies: dict[str, list[list[float]]] = {"validation": [], "test": []}
        random = np.random.default_rng([seed, 7])
        sizes = [len(labels) for _, labels in stream.splits["train"]]
        self.remembered = [torch.from_numpy(random.permutation(size)[:memory_size]) for size in sizes]

    # -- stages -------------------------------------------------------------------------------------------------------

    def make_gradients(self, batch: Any) -> mtopt.StepRecord:
        if self.total_steps is None:
            raise ValueError("a sequence of tasks is divided by its steps; give fit the number of them, steps=...")
        stage = self.schedule.stage(self.step, self.total_steps)
        if stage > self.stage:
            self.end_stage()
            self.stage = stage
            self.seen |= set(self.current)
            self.current = self.schedule.parts(stage, self.schedule_seed)
            self.old = sorted(self.seen - set(self.current))
            self.start_stage()
        return super().make_gradients(batch)

    def start_stage(self) -> None:
        """Called before the first step of a stage."""

    def end_stage(self) -> None:
        """Called after the last step of a stage, and once before the first: takes the accuracies."""
        for split, rows in self.accuracies.items():
            rows.append([self.accuracy(split, part) for part in range(len(self.stream.names))])

    def matrix(self, split: str) -> npt.NDArray[np.float64]:
        """(stages + 1, parts): accuracies before the first stage and after each.

        Raises:
            ValueError: the sequence has not been trained on to its end.
        """
        if self.total_steps is None or self.step < self.total_steps:
            raise ValueError(
                f"a sequence is judged at its end, and {self.step} of {self.total_steps} steps are done; "
                "call fit first, and leave Budget(evaluations=1)"
            )
        if len(self.accuracies[split]) < self.stage + 2:
            self.end_stage()
        return np.array(self.accuracies[split])

    @torch.no_grad()
    def accuracy(self, split: str, part: int) -> float:
        """The share of a part's examples that are classified right."""
        images, labels = self.stream.splits[split][part]
        return float(((self.logits(images, part) + self.masks[part]).argmax(1) == labels).double().mean())

    # -- losses -------------------------------------------------------------------------------------------------------

    def logits(self, images: torch.Tensor, part: int) -> torch.Tensor:
        """(n, 10) for images of a part."""
        found: torch.Tensor = self.classifier(images)
        return found

    def loss(self, parts: list[int] | tuple[int, ...], places: list[torch.Tensor] | None = None) -> torch.Tensor:
        """The mean cross-entropy over training examples of some parts: all, or those at ``places`` in each."""
        logits, labels = [], []
        for index, part in enumerate(parts):
            images, kinds = self.stream.splits["train"][part]
            rows = slice(None) if places is None else places[index]
            logits.append(self.logits(images[rows], part) + self.masks[part])
            labels.append(kinds[rows])
        return cross_entropy(torch.cat(logits), torch.cat(labels))

    def losses(self, batch: Any) -> dict[str, torch.Tensor | None]:
        new = self.loss(self.current, [batch[part] for part in self.current])
        old = self.old
        if self.memory == "each":
            each = {
                f"old: {name}": self.loss([part], [self.remembered[part]]) if part in old else None
                for part, name in enumerate(self.stream.names)
            }
            return {"new": new, **each}
        known = self.memory == "together" and old
        return {"new": new, "old": self.loss(old, [self.remembered[part] for part in old]) if known else None}
