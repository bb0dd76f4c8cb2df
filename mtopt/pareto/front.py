"""A front, and what one does with it: look at it, choose from it, keep it, and get a point's model back."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt._checkpoints import read_checkpoint, write_checkpoint
from mtopt._content import check_alike, content_of
from mtopt._errors import CheckpointError, unknown_name
from mtopt._text import visible
from mtopt._views import html_table, number_text
from mtopt.files import folder_written_whole
from mtopt.pareto._inputs import Vector, as_vector
from mtopt.pareto._models import State, model_file, state_in, write_state
from mtopt.pareto.choosing import achievement, bulges, ideal_and_nadir, pseudo_weights, suggest_reference, tradeoffs
from mtopt.pareto.dominance import hypervolume, is_nondominated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bounds = Mapping[str, float] | Sequence[float | None] | torch.Tensor
Module = TypeVar("Module", bound=torch.nn.Module)

_FILE = "front.pt"
_SHOWN = 40  # points that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Front:
    """A set of trade-offs, such as a set of preferences led to: :func:`trace_front`. Both tensors are float64 on the
    CPU, row i of one belonging to row i of the other.

    A row of `points` with NaN or infinity (a run that diverged) is kept, and counts as dominated.

    ::

        front = mtopt.pareto.trace_front(train, preferences, models="memory", names=["accuracy loss", "unfairness"])
        best = front.choose(bounds={"unfairness": 0.05})
        front.plot(chosen=[best, front.knee()]).savefig("front.png")
        model = front.load(best, Network())
        front.save("front")
        front = mtopt.pareto.Front.read("front")

    Whatever chooses, chooses among the non-dominated points, and gives a position in `points`.
    """

    preferences: torch.Tensor | None
    """(N, K); None where the points belong to none."""

    points: torch.Tensor
    """(N, K) objective values, minimised."""

    names: tuple[str, ...] | None = None
    """Of the objectives."""

    models: tuple[State | Path | None, ...] | None = None
    """The state of each point's model, or its file; None where none was kept."""

    def __post_init__(self) -> None:
        if self.names is not None and len(self.names) != self.points.shape[1]:
            raise ValueError(f"names must be {self.points.shape[1]}, one per objective, found {list(self.names)}")
        if self.models is not None and len(self.models) != len(self.points):
            raise ValueError(f"models must be {len(self.points)}, one per point, found {len(self.models)}")

    def nondominated(self) -> torch.Tensor:
        """Which points are finite and dominated by no other, (N,) bool; see `is_nondominated`."""
        mask = self.points.isfinite().all(dim=1)
        if mask.any():
            mask[mask.clone()] = is_nondominated(self.points[mask])
        return mask

    def hypervolume(self, reference: Vector) -> float:
        """Hypervolume of the finite points, 0.0 where there are none; see `hypervolume`."""
        finite = self.points[self.points.isfinite().all(dim=1)]
        if len(finite) == 0:
            return 0.0
        return hypervolume(finite, reference)

    def suggest_reference(self) -> torch.Tensor:
        """A reference point for the hypervolume, by the rule of :func:`suggest_reference`."""
        return suggest_reference(self.points[self._candidates()])

    # -- choosing -----------------------------------------------------------------------------------------------

    def knee(self, by: Literal["bulge", "tradeoff"] = "bulge") -> int:
        """The point from which any move costs much and gains little.

        Args:
            by: ``"bulge"``, the point farthest before the plane through the ends of the front (:func:`bulges`); or
                ``"tradeoff"``, the one whose cheapest move costs most for what it gains (:func:`tradeoffs`). On a front
                without a knee, such as a straight or a concave one, the first answers an end or any point.
        """
        if by not in ("bulge", "tradeoff"):
            raise ValueError(f"by must be 'bulge' or 'tradeoff', found {by!r}")
        kept = self._candidates()
        measure = bulges if by == "bulge" else tradeoffs
        return int(kept[int(measure(self.points[kept]).argmax())])

    def choose(
        self,
        *,
        preference: Vector | None = None,
        bounds: Bounds | None = None,
        aspiration: Vector | None = None,
    ) -> int:
        """The point that does best what is asked for.

        Args:
            preference: (K,), non-negative, how much each objective matters: the point whose pseudo-weights are nearest
                to it. (This is where the point lies among the others, not what it was trained with.)
            bounds: the largest value of each objective, as K numbers (None for no bound) or by name. Of the points
                within them, what the other argument says; alone, the lowest of the one objective that has no bound, or
                else the one that is best balanced between those that have none.
            aspiration: (K,), the values one would like, reachable or not: the point with the least achievement
                scalarizing function, each objective in units of its range (:func:`achievement`).

        Raises:
            ValueError: nothing, or both a preference and an aspiration, are given; or no point is within the bounds.
        """
        if preference is not None and aspiration is not None:
            raise ValueError("choose takes a preference or an aspiration, found both; leave one out")
        if preference is None and aspiration is None and bounds is None:
            raise ValueError("choose needs a preference, bounds or an aspiration; knee() takes none of them")
        kept = self._candidates()
        every = self.points[kept]
        limits = None if bounds is None else self._limits(bounds)
        inside = np.arange(len(kept)) if limits is None else self._within(every, limits)
        if preference is not None:
            wanted = as_vector("preference", preference, every.shape[1], "objective")
            if (wanted < 0).any() or not wanted.sum() > 0:
                raise ValueError(f"preference must be non-negative and not zero, found {wanted.tolist()}")
            found = (pseudo_weights(every) - torch.from_numpy(wanted / wanted.sum())).norm(dim=1)
        else:
            ideal, nadir = ideal_and_nadir(every.numpy())
            extent = np.where(nadir > ideal, nadir - ideal, 1.0)
            wish: Any = ideal
            if aspiration is not None:
                wish = as_vector("aspiration", aspiration, every.shape[1], "objective")
            free = np.ones(every.shape[1], dtype=bool) if limits is None or aspiration is not None else np.isinf(limits)
            free = free if free.any() else ~free
            found = achievement(every[:, free], wish[free], extent[free])
        return int(kept[inside[int(found[inside].argmin())]])

    def _candidates(self) -> NDArray[np.intp]:
        """The positions of the points that are on the front."""
        kept = np.flatnonzero(self.nondominated().numpy())
        if not len(kept):
            raise ValueError(f"the front has no finite point to choose, found {len(self)} that diverged")
        return kept

    def _limits(self, bounds: Bounds) -> NDArray[np.float64]:
        count = self.points.shape[1]
        if isinstance(bounds, Mapping):
            known = self.names or tuple(f"f{k + 1}" for k in range(count))
            for name in bounds:
                if name not in known:
                    raise unknown_name("objective", name, known)
            bounds = [bounds.get(name) for name in known]
        limits = np.array([np.inf if bound is None else float(bound) for bound in bounds])
        if limits.shape != (count,) or np.isnan(limits).any():
            raise ValueError(f"bounds must be {count} numbers or None, one per objective, found {bounds!r}")
        return limits

    def _within(self, every: torch.Tensor, limits: NDArray[np.float64]) -> NDArray[np.intp]:
        inside = np.flatnonzero((every.numpy() <= limits).all(axis=1))
        if len(inside):
            return inside
        over = np.maximum(every.numpy() - limits, 0.0).max(axis=1)
        nearest = every[int(over.argmin())].tolist()
        raise ValueError(
            f"no point is within the bounds {limits.tolist()}; the nearest is {nearest}, over by {over.min():.3g}: "
            "loosen them, or trace more of the front there"
        )

    # -- looking ------------------------------------------------------------------------------------------------

    def plot(
        self,
        *,
        chosen: int | Sequence[int] = (),
        reference: Vector | None = None,
        labels: Sequence[str] | None = None,
        title: str | None = None,
    ) -> "Figure":
        """The points, dominated ones grey: in the plane, in space, or for more than three objectives on parallel axes.

        Args:
            chosen: positions of points to mark, such as that of :meth:`knee`.
            reference: shade what is dominated up to this point, and write the hypervolume in the legend.
            labels: of the objectives. Default: their names.
            title: default: none.
        """
        from mtopt.pareto._figure import draw_front  # matplotlib takes long to import

        marked = [chosen] if isinstance(chosen, int) else list(dict.fromkeys(chosen))
        for index in marked:
            self._check(index)
        return draw_front(
            self.points.numpy(),
            self.nondominated().numpy(),
            marked,
            None if reference is None else as_vector("reference", reference, self.points.shape[1], "objective"),
            self.names if labels is None else labels,
            title,
        )

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        names = "" if self.names is None else f" in {', '.join(map(visible, self.names))}"
        models = "" if self.models is None else ", with models"
        count = int(self.nondominated().sum())
        return f"<Front: {len(self)} points of {self.points.shape[1]} objectives{names}, {count} non-dominated{models}>"

    def _repr_html_(self) -> str:
        count = self.points.shape[1]
        names = self.names or [f"f{k + 1}" for k in range(count)]
        weights = [] if self.preferences is None else [f"preference {name}" for name in names]
        inside = self.nondominated().tolist()
        rows = []
        for index, point in enumerate(self.points[:_SHOWN].tolist()):
            given = [] if self.preferences is None else self.preferences[index].tolist()
            numbers = [number_text(value) or "NaN" for value in (*point, *given)]
            rows.append((index, *numbers, "non-dominated" if inside[index] else "dominated"))
        note = f"and {len(self) - _SHOWN} more points" if len(self) > _SHOWN else ""
        return html_table(repr(self)[1:-1], ("", *names, *weights, ""), rows, note=note)

    # -- keeping ------------------------------------------------------------------------------------------------

    def load(self, index: int, model: Module) -> Module:
        """Give ``model`` the weights of point ``index``; the model itself.

        Raises:
            ValueError: no model was kept: ``trace_front(..., models="memory")`` keeps them.
            IndexError: no such point.
            CheckpointError: the file is damaged, or of another model.
            FileNotFoundError: it is not there any more.
        """
        self._check(index)
        held = None if self.models is None else self.models[index]
        if held is None:
            raise ValueError(
                "the front holds no model of this point; trace it with models='memory' or models=Path(...), and let "
                "train return the values and the model"
            )
        state = state_in(held) if isinstance(held, Path) else held
        with content_of(f"model of point {index}"):
            model.load_state_dict(state)
        return model

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the front, and the models that it holds, to a folder; all of it comes to stand there, or nothing.

        A folder in which the models are already gets the front beside them.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        path = Path(path)
        content = {
            "preferences": self.preferences,
            "points": self.points,
            "names": None if self.names is None else list(self.names),
            "models": None if self.models is None else [held is not None for held in self.models],
        }
        models = self.models or ()
        if path.is_dir() and all(held is None or held == path / model_file(i) for i, held in enumerate(models)):
            write_checkpoint(path / _FILE, {"front": content})
            return path
        with folder_written_whole(path) as folder:
            for index, held in enumerate(models):
                if held is not None:
                    write_state(folder / model_file(index), state_in(held) if isinstance(held, Path) else held)
            write_checkpoint(folder / _FILE, {"front": content})
        return path

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """The front in a folder that :meth:`save` or :func:`trace_front` wrote. Its models stay in their files.

        Nothing in the files is run: they hold tensors and plain values.

        Raises:
            CheckpointError: the file is damaged, or none of a front.
            FileNotFoundError: there is none.
        """
        path = Path(path)
        content = read_checkpoint(path / _FILE)
        if not isinstance(content, Mapping) or not isinstance(content.get("front"), Mapping):
            raise CheckpointError(f"{path / _FILE} holds no front; give a folder that Front.save wrote")
        with content_of(f"front in {path}"):
            found = content["front"]
            points, preferences, names, models = (found[key] for key in ("points", "preferences", "names", "models"))
            table, part = points.new_zeros(0, 0), f"front in {path}"
            check_alike(table, points, f"{part}, points")
            if not points.is_floating_point():
                raise ValueError(f"points are {points.dtype}")
            for name, fresh in (
                ("preferences", table),
                ("names", [""] * points.shape[1]),
                ("models", [False] * len(points)),
            ):
                if found[name] is not None:
                    check_alike(fresh, found[name], f"{part}, {name}")
            if preferences is not None and preferences.shape != points.shape:
                raise ValueError(f"preferences are {tuple(preferences.shape)}, and points {tuple(points.shape)}")
            held = None if models is None else tuple(path / model_file(i) if m else None for i, m in enumerate(models))
            return cls(preferences, points, None if names is None else tuple(names), held)

    def _check(self, index: int) -> None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self):
            raise IndexError(f"the front has points 0 to {len(self) - 1}, found {index!r}")
