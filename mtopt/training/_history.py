"""The records of all steps, kept as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtopt._errors import CheckpointError, unknown_name
from mtopt._text import joined, visible
from mtopt._views import data_frame, html_table, number_text
from mtopt.autograd import Probe, StepRecord
from mtopt.solvers import Certificate
from mtopt.training._columns import Columns, Key, Vector
from mtopt.training._forms import Form, checked_form

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SECTIONS = ("losses", "weights", "norms", "cosines")
_SHOWN = 8  # losses that a history shows of itself
_NUMBERS = ("step", "epoch", "learning_rate", "skipped", "conflicts", "backwards")


class History:
    """What every step reported, from the first one of the run on, through all resumptions.

    It grows by float64 columns, not by objects: ``history["losses"]["retain"]`` is a numpy array, one entry per step,
    NaN where a step did not have the loss. Iterating, or ``history[-1]``, gives :class:`mtopt.StepRecord` back.
    Cosines are kept up to ``MOST_COSINES`` objectives (their number grows with the square); beyond, only the number of
    conflicts is, and callbacks see them all.

    The arrays are read-only views: copy one to change it. A loop of one's own keeps one, too::

        history = mtopt.History()
        for batch in loader:
            history.append(mtopt.backward(losses(batch), model, combiner))
        history.plot()
    """

    MOST_COSINES = 12

    def __init__(self) -> None:
        self._steps = Columns()
        self._forms: dict[Form, int] = {}
        self._form_list: list[Form] = []
        self._splits: dict[str, Columns] = {}

    # -- writing ------------------------------------------------------------------------------------------------

    def append(self, record: StepRecord) -> None:
        """Add the record of one step. One without a number, of a loop of one's own, is given the next."""
        conflicts = record.conflicts
        last = self._steps.value(("step",), len(self) - 1) if len(self) else 0
        row: dict[Key, float] = {("skipped",): record.skipped}
        for name, number in (
            ("step", last + 1 if record.step is None else record.step),
            ("epoch", record.epoch),
            ("learning_rate", record.learning_rate),
            ("conflicts", conflicts),
            ("backwards", record.backwards),
        ):
            if number is not None:
                row[(name,)] = number
        for section in ("losses", "weights", "norms"):
            for name, value in (getattr(record, section) or {}).items():
                row[section, name] = value
        names = tuple(record.norms or record.losses)
        keep = record.cosines is not None and len(names) == len(record.cosines) <= self.MOST_COSINES
        if keep and record.cosines is not None:
            for i, j in _pairs(len(names)):
                row[_cosine_key(names[i], names[j])] = record.cosines[i, j]
        certificate = record.certificate
        if certificate is not None:
            row["certificate", "residual"] = certificate.residual
            if certificate.gap is not None:
                row["certificate", "gap"] = certificate.gap
        if record.probe is not None:
            row |= {("probe", name): number for name, number in record.probe.numbers().items()}
        form: Form = (
            tuple(record.losses),
            None if record.weights is None else tuple(record.weights),
            None if record.norms is None else tuple(record.norms),
            keep,
            None if certificate is None else (certificate.method, certificate.gap is not None),
            record.plan,
            record.reason,
        )
        row[("form",)] = self._index_of(form)
        self._steps.append(row)

    def append_evaluation(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Add the values of an evaluation on ``split`` after ``step`` steps; a second one there replaces the first."""
        table = self._splits.setdefault(split, Columns())
        if len(table) and table[("step",)][-1] == step:
            table.drop_last()
        row: dict[Key, float] = {("step",): step, **{("value", name): value for name, value in values.items()}}
        row |= {("nan", name): 1.0 for name, value in values.items() if value != value}  # told from what was not there
        table.append(row)

    # -- reading ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[StepRecord]:
        return (self.record(index) for index in range(len(self)))

    def __getitem__(self, key: str | int) -> Any:
        """A column by name, or the record of a step by position.

        ``"losses"``, ``"weights"``, ``"norms"``: a dictionary from names to arrays. ``"cosines"``: from pairs of names.
        ``"step"``, ``"epoch"``, ``"learning_rate"``, ``"skipped"``, ``"conflicts"``, ``"backwards"``: one array.

        Raises:
            UnknownNameError: no such column, with the nearest names.
            IndexError: no such step.
        """
        if isinstance(key, int):
            return self.record(key)
        if key in _SECTIONS:
            return getattr(self, key)
        if key in _NUMBERS:
            return self._steps[(key,)]
        raise unknown_name("history column", key, [*_SECTIONS, *_NUMBERS])

    @property
    def losses(self) -> dict[str, Vector]:
        """Each loss's values, in the user's sense; NaN where a step did not have it."""
        return self._section("losses")

    @property
    def weights(self) -> dict[str, Vector]:
        """The rule's weight for each loss; NaN where it gave none."""
        return self._section("weights")

    @property
    def norms(self) -> dict[str, Vector]:
        """The norm of each loss's gradient over the shared parameters; NaN where only losses were needed."""
        return self._section("norms")

    @property
    def cosines(self) -> dict[tuple[str, str], Vector]:
        """The cosine between the gradients of each pair of losses; the names of a pair are in alphabetical order."""
        return {(key[1], key[2]): self._steps[key] for key in self._steps if key[0] == "cosines" and key[1] != key[2]}

    @property
    def conflicts(self) -> Vector:
        """The number of pairs of gradients at an obtuse angle; NaN where only losses were needed."""
        return self._steps[("conflicts",)]

    @property
    def learning_rates(self) -> Vector:
        """The learning rate of the optimizer's first group in each step."""
        return self._steps[("learning_rate",)]

    @property
    def probes(self) -> dict[str, Vector]:
        """What an automatic learning rate found, by the names of :class:`mtopt.autograd.Probe`; else NaN."""
        return self._section("probe")

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """The number of each step, from 1."""
        return self._steps[("step",)].astype(np.int64)

    @property
    def skipped(self) -> int:
        """How many steps were skipped for a NaN or infinite loss or gradient."""
        return int(self._steps[("skipped",)].sum())

    @property
    def splits(self) -> list[str]:
        """The names under which evaluations were kept."""
        return list(self._splits)

    def evaluations(self, split: str) -> tuple[npt.NDArray[np.int64], dict[str, Vector]]:
        """The evaluations on ``split``: the steps they were made after, and each metric's values.

        Raises:
            UnknownNameError: nothing was evaluated under this name.
        """
        if split not in self._splits:
            raise unknown_name("split", split, self._splits or ["nothing was evaluated with split=..."])
        table = self._splits[split]
        return table[("step",)].astype(np.int64), {key[1]: table[key] for key in table if key[0] == "value"}

    def evaluated(self, split: str) -> Iterator[tuple[int, dict[str, float]]]:
        """Each evaluation on ``split``: its step, and the values that it gave, NaN among them.

        Raises:
            UnknownNameError: nothing was evaluated under this name.
        """
        steps, metrics = self.evaluations(split)
        table = self._splits[split]
        for row, step in enumerate(steps.tolist()):
            values = {name: float(column[row]) for name, column in metrics.items()}
            yield step, {n: v for n, v in values.items() if v == v or table.value(("nan", n), row) == 1.0}

    def record(self, index: int) -> StepRecord:
        """The record of the step at ``index``, as it was, but for cosines of many objectives.

        Raises:
            IndexError: no such step.
        """
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"history holds {len(self)} steps, found index {index}")
        losses, weights, norms, kept, solved, plan, reason = self._form_list[int(self._steps.value(("form",), row))]

        def named(section: str, names: tuple[str, ...] | None) -> dict[str, float] | None:
            return None if names is None else {name: self._steps.value((section, name), row) for name in names}

        certificate = None
        if solved is not None:
            method, has_gap = solved
            gap = self._steps.value(("certificate", "gap"), row) if has_gap else None
            certificate = Certificate(self._steps.value(("certificate", "residual"), row), gap, method)
        step, epoch, rate = (self._optional(name, row) for name in ("step", "epoch", "learning_rate"))
        return StepRecord(
            losses=named("losses", losses) or {},
            weights=named("weights", weights),
            norms=named("norms", norms),
            cosines=self._cosine_matrix(norms or losses, row) if kept else None,
            certificate=certificate,
            skipped=bool(self._steps.value(("skipped",), row)),
            reason=reason,
            plan=plan,
            backwards=int(self._steps.value(("backwards",), row)),
            step=None if step is None else int(step),
            epoch=None if epoch is None else int(epoch),
            learning_rate=rate,
            probe=self._probe(row),
        )

    def plot(self) -> Figure:
        """A figure of the training: losses, evaluations, weights, gradient norms, cosines and the learning rate.

        Panels for what there is; more than 200 steps are averaged over windows. The figure is shown by nobody:
        ``history.plot().savefig("training.png")``.

        Raises:
            ValueError: no step was done.
        """
        from mtopt.training._history_figure import plot_history  # matplotlib takes long to import

        return plot_history(self)

    def to_frame(self, split: str | None = None) -> pd.DataFrame:
        """A ``pandas.DataFrame`` with one row per step: ``losses/NAME``, ``weights/NAME``, ``norms/NAME``,
        ``cosines/NAME,NAME``, and the numbers of the step; NaN where a step did not have one.

        Args:
            split: the name of a split, whose evaluations are the rows then. Default: the steps.

        Raises:
            ImportError: pandas is not installed.
            UnknownNameError: nothing was evaluated under this name.
        """
        if split is not None:
            steps, values = self.evaluations(split)
            return data_frame({"step": steps, **values}, index="step")
        columns: dict[str, Vector] = {name: self[name] for name in _NUMBERS if np.isfinite(self[name]).any()}
        for section in _SECTIONS[:3]:
            columns |= {f"{section}/{name}": values for name, values in self._section(section).items()}
        columns |= {f"cosines/{joined(pair, ',')}": values for pair, values in self.cosines.items()}
        return data_frame({**columns, "step": self.steps}, index="step")

    def __repr__(self) -> str:
        names = [visible(name) for name in self.losses]
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        losses = f" of {shown}" if names else ""
        evaluated = f", evaluated on {', '.join(map(visible, self.splits))}" if self.splits else ""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"<History: {len(self)} step{'' if len(self) == 1 else 's'}{losses}{skipped}{evaluated}>"

    def _repr_html_(self) -> str:
        rows = []
        for name, values in list(self.losses.items())[: 4 * _SHOWN]:
            others = (self._section(section).get(name) for section in ("weights", "norms"))
            last = [number_text(_last(column)) for column in (values, *others)]
            rows.append((name, number_text(_first(values)), *last))
        header = ("loss", "first", "last", "last weight", "last gradient norm")
        counted = self.conflicts[~np.isnan(self.conflicts)]
        notes = [f"gradients in conflict in {np.mean(counted > 0):.0%} of {len(counted)} steps"] if len(counted) else []
        for split in self.splits:
            found = ", ".join(f"{name} {number_text(_last(v))}" for name, v in self.evaluations(split)[1].items())
            notes.append(f"last on {split}: {found}")
        return html_table(repr(self)[1:-1], header, rows, note="; ".join(notes))

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors, one per column, and the few distinct forms of the records."""
        return {
            "steps": self._steps.state_dict(),
            "forms": list(self._form_list),
            "splits": {name: table.state_dict() for name, table in self._splits.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over another history, in place of what this one holds.

        Raises:
            CheckpointError: its columns do not fit together.
        """
        self._steps.load_state_dict(state_dict["steps"])
        self._form_list = [checked_form(form) for form in state_dict["forms"]]
        self._forms = {form: index for index, form in enumerate(self._form_list)}
        if not np.isin(self._steps[("form",)], range(len(self._form_list))).all():
            raise CheckpointError(f"history must name one of its {len(self._form_list)} forms in every step")
        for name in ("skipped", "backwards"):
            if np.isnan(self[name]).any():
                raise CheckpointError(f"history must have {name} of every step; it was written by another version")
        self._splits = {}
        for name, table in state_dict["splits"].items():
            self._splits[name] = Columns()
            self._splits[name].load_state_dict(table)
            if np.isnan(self._splits[name][("step",)]).any():
                raise CheckpointError(f"history must have the step of every evaluation on {name!r}")

    # -- parts --------------------------------------------------------------------------------------------------

    def _index_of(self, form: Form) -> int:
        if form not in self._forms:
            self._forms[form] = len(self._form_list)
            self._form_list.append(form)
        return self._forms[form]

    def _section(self, section: str) -> dict[str, Vector]:
        return {key[1]: self._steps[key] for key in self._steps if key[0] == section}

    def _optional(self, name: str, row: int) -> float | None:
        """A number that every record may lack, and that is never NaN when it is there."""
        value = self._steps.value((name,), row)
        return None if np.isnan(value) else value

    def _probe(self, row: int) -> Probe | None:
        numbers = {key[1]: self._steps.value(key, row) for key in self._steps if key[0] == "probe"}
        if np.isnan(numbers.get("verdict", np.nan)):
            return None
        return Probe.from_numbers({name: value for name, value in numbers.items() if not np.isnan(value)})

    def _cosine_matrix(self, names: tuple[str, ...], row: int) -> Vector:
        matrix = np.empty((len(names), len(names)))
        for i, j in _pairs(len(names)):
            matrix[i, j] = matrix[j, i] = self._steps.value(_cosine_key(names[i], names[j]), row)
        return matrix


def _first(values: Vector) -> float | None:
    seen = values[~np.isnan(values)]
    return float(seen[0]) if len(seen) else None


def _last(values: Vector | None) -> float | None:
    return None if values is None else _first(values[::-1])


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    """The upper triangle with the diagonal, which is 0 for a zero gradient."""
    return ((i, j) for i in range(count) for j in range(i, count))


def _cosine_key(first: str, second: str) -> Key:
    """One key a pair, in whichever order a step names the two."""
    return "cosines", *sorted((first, second))
