"""The models along one training that no other of its models dominates."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtopt._content import content_of
from mtopt._counts import check_count
from mtopt._errors import CheckpointError, unknown_name
from mtopt._losses import Objective
from mtopt.distributed import load_whole, make_whole, unwrapped
from mtopt.pareto import Front, is_nondominated
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.checkpoint import read_checkpoint, write_checkpoint


@dataclass(frozen=True, slots=True)
class Kept:
    """One model of an archive: the step it was evaluated after, its values as the user knows them, and its file."""

    step: int
    values: dict[str, float]
    path: Path


class FrontArchive(Callback):
    """Keeps the model of each evaluation that no other one dominates, so that a single run gives a front, too.

    ::

        archive = mtopt.training.FrontArchive("validation", ["retain", mtopt.Objective("forget", "max")], path="front")
        trainer = Unlearn(model, optimizer, "ngdiff", callbacks=[mtopt.Evaluator(validation, every=10), archive])
        trainer.fit(loader, steps=200)
        archive.points()  # (N, 2), minimised, in the order of archive.kept
        archive.load(archive.kept[0], model)

    Each model is one file, written atomically; that of a model that drops out is deleted. When more than ``capacity``
    are non-dominated, the one in the most crowded place goes: of the two that are nearest to each other, each
    objective scaled to the archive's range, that which is nearer to its next neighbour; the best of an objective stays.

    Args:
        split: the name that is evaluated, such as an :class:`Evaluator`'s.
        objectives: two or more of the evaluation's values; an :class:`mtopt.Objective` for those to maximise.
        path: the directory of the files, for this archive alone; made if need be.
        capacity: the most models that are kept. Default: 32.

    Attributes:
        kept: the models, by step.

    A resumed run goes on with the archive of its checkpoint, and comes to the same one as a run that was not killed.

    Raises:
        ValueError: fewer than two objectives, or a capacity below their number.
        UnknownNameError: an evaluation of ``split`` lacks an objective.
    """

    def __init__(
        self,
        split: str,
        objectives: Sequence[str | Objective],
        *,
        path: str | os.PathLike[str],
        capacity: int = 32,
    ) -> None:
        if isinstance(objectives, str) or len(objectives) < 2:
            raise ValueError(f"objectives must be two or more names or Objective, found {objectives!r}")
        self.objectives = [o if isinstance(o, Objective) else Objective(o) for o in objectives]
        if (check_count("capacity", capacity) or 0) < len(self.objectives):
            raise ValueError(f"capacity must be at least {len(self.objectives)}, one per objective, found {capacity!r}")
        self.split, self.capacity, self.path = split, capacity, Path(path)
        self.kept: list[Kept] = []

    def points(self) -> torch.Tensor:
        """The values of the models kept, (N, K) in float64, minimised: those of objectives to maximise are negated."""
        rows = [[kept.values[o.name] * o.sign for o in self.objectives] for kept in self.kept]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(self.objectives))

    def front(self) -> Front:
        """The models kept as a :class:`mtopt.pareto.Front`, whose ``load`` gives them back from their files."""
        names = tuple(objective.name for objective in self.objectives)
        return Front(None, self.points(), names, tuple(kept.path for kept in self.kept))

    def load(self, kept: Kept, model: torch.nn.Module) -> None:
        """Give ``model`` the weights of a model kept.

        Raises:
            CheckpointError: the file is damaged, or of another model.
            FileNotFoundError: it is not there: a run was resumed from before the moment at which it dropped out.
        """
        content = read_checkpoint(kept.path)
        with content_of(f"model in {kept.path}"):
            load_whole(unwrapped(model), content["model"])

    def on_evaluate(self, trainer: Training, split: str, values: Mapping[str, float]) -> None:
        if split != self.split:
            return
        for objective in self.objectives:
            if objective.name not in values:
                raise unknown_name("metric", objective.name, values)
        found = {objective.name: float(values[objective.name]) for objective in self.objectives}
        if not torch.tensor(list(found.values())).isfinite().all():
            return  # NaN is on no front
        new = self._kept(trainer.step, found)
        before = self.kept
        self.kept = [kept for kept in before if kept.step != new.step] + [new]
        inside = is_nondominated(self.points()).tolist()
        self.kept = [kept for kept, stays in zip(self.kept, inside, strict=True) if stays]
        while len(self.kept) > self.capacity:
            del self.kept[_most_crowded(self.points())]
        content = {"model": unwrapped(trainer.model).state_dict(), "step": new.step, "values": new.values}
        whole = make_whole(content, trainer.processes) if new in self.kept else None
        if trainer.processes.rank > 0:
            return  # which has the same archive; the files are the first one's
        if whole is not None:
            write_checkpoint(new.path, whole)
        for dropped in before:
            if all(dropped.path != kept.path for kept in self.kept):
                dropped.path.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [{"step": kept.step, "values": kept.values} for kept in self.kept]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.kept = [self._kept(one["step"], one["values"]) for one in state_dict["kept"]]

    def _kept(self, step: int, values: Mapping[str, float]) -> Kept:
        """A model kept, whose file is named here: a state that is loaded names none, so that it reaches no other."""
        names = [objective.name for objective in self.objectives]
        found = [values.get(name) for name in names]
        good = type(step) is int and step >= 0 and all(isinstance(v, float) and math.isfinite(v) for v in found)
        if not good:
            raise CheckpointError(
                f"a model of the front must have a step and numbers for {names}, found {step!r}, {values}"
            )
        return Kept(step, {name: values[name] for name in names}, self.path / f"front-{step:010d}.pt")


def _most_crowded(points: torch.Tensor) -> int:
    """The point with the nearest neighbour; of the two, that with the nearer second one. Never an objective's best."""
    extent = points.amax(0) - points.amin(0)
    scaled = points / torch.where(extent > 0, extent, 1.0)
    distances = torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    nearest = distances.sort(1).values[:, :2].tolist()
    best = set(points.argmin(0).tolist())
    return min((k for k in range(len(points)) if k not in best), key=lambda k: (nearest[k], -k))
