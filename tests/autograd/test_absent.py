"""Losses that are absent since their value is NaN, losses given as one callable or one tensor, graphs that are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from tests.autograd.helpers import FIVE, MultiHead, flat_gradient

PLANS: dict[str, dict[str, Any]] = {
    "auto": {},
    "batched": {"plan": "batched"},
    "recompute": {"store": "recompute"},
    "bfloat16": {"store": torch.bfloat16},
    "own": {"private": "own"},
}


def possible(name: str, how: str) -> bool:
    return how != "recompute" or name in ("linear", "mgda", "ngdiff")


CASES = [(name, how) for name in FIVE for how in PLANS if possible(name, how)]


class Ways:
    """Losses of which one is NaN, or None, in every form in which they can be given."""

    def __init__(self, model: MultiHead, absent: tuple[int, ...], value: float | None) -> None:
        self.model, self.absent, self.value = model, absent, value
        self.runs: list[int] = []

    def tensors(self) -> list[Any]:
        found: list[Any] = self.model.losses()
        for k in self.absent:
            found[k] = None if self.value is None else found[k] * self.value
        return found

    def mapping(self) -> dict[Any, Any]:
        objectives = (mtopt.Objective(name, "max" if name == "c" else "min") for name in "abcd")
        return dict(zip(objectives, self.tensors(), strict=False))

    def whole(self) -> Callable[[], Any]:
        return self.tensors

    def each(self) -> list[Any]:
        def run(k: int) -> torch.Tensor:
            self.runs.append(k)
            loss = self.model.loss(k, self.model.features())
            return loss * self.value if k in self.absent else loss

        count = len(self.model.heads)
        return [None if self.value is None and k in self.absent else lambda k=k: run(k) for k in range(count)]


FORMS: dict[str, Callable[[Ways], Any]] = {
    "tensors": Ways.tensors,
    "mapping": Ways.mapping,
    "one callable": Ways.whole,
    "callables": Ways.each,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "how"), CASES)
def test_nan_is_as_none(name: str, how: str, form: str) -> None:
    if how == "recompute" and form == "callables":
        form = "tensors"
    records, gradients = [], []
    for value in (None, torch.nan):
        model = MultiHead(4)
        ways = Ways(model, (1,), value)
        rule = mtopt.create_combiner(name)
        for _ in range(2):
            model.zero_grad()
            records.append(mtopt.backward(FORMS[form](ways), model, rule, absent="nan", **PLANS[how]))
        gradients.append(flat_gradient([*model.parameters()]))
        assert all(param.grad is None for param in model.heads[1].parameters())
    assert torch.equal(*gradients)
    for first, second in zip(records[:2], records[2:], strict=True):
        assert not second.skipped
        assert (first.losses, first.weights, first.norms) == (second.losses, second.weights, second.norms)
        assert list(second.losses) == (["a", "c", "d"] if form == "mapping" else ["loss_0", "loss_2", "loss_3"])


@pytest.mark.parametrize("name", FIVE)
def test_the_default_skips_and_names_the_option(name: str) -> None:
    model = MultiHead(2)
    record = mtopt.backward(Ways(model, (0,), torch.nan).tensors(), model, mtopt.create_combiner(name))
    assert record.skipped
    assert record.reason is not None
    assert "non-finite loss: loss_0" in record.reason
    assert "absent='nan'" in record.reason
    record = mtopt.backward(Ways(model, (0,), torch.inf).tensors(), model, mtopt.create_combiner(name), absent="nan")
    assert record.reason == "non-finite loss: loss_0"  # infinity is no label that is missing


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FIVE)
def test_where_none_is_left_the_step_is_skipped(name: str, form: str) -> None:
    model, rule = MultiHead(2), mtopt.create_combiner(name)
    mtopt.backward(model.losses(), model, rule)
    before = flat_gradient([*model.parameters()])
    record = mtopt.backward(FORMS[form](Ways(model, (0, 1), torch.nan)), model, rule, absent="nan", strict=True)
    assert record.skipped
    assert record.reason is not None
    assert "no loss is present" in record.reason
    assert "absent='nan'" in record.reason
    assert torch.equal(flat_gradient([*model.parameters()]), before)


def test_the_option_is_named_only_where_there_is_one() -> None:
    model = MultiHead(2)
    losses = Ways(model, (0,), torch.nan).tensors
    accumulator = mtopt.JacobianAccumulator(model, 2)
    for k, loss in enumerate(losses()):
        accumulator.add(k, loss, retain_graph=True)
    assert "absent='nan'" in str(accumulator.combine(mtopt.create_combiner("mgda")).reason)
    for plan, named in (("auto", True), ("matrix_free", False)):
        record = mtopt.backward([losses] * 3, model, mtopt.create_combiner("modo"), plan=plan)  # type: ignore[arg-type]
        assert record.skipped
        assert ("absent='nan'" in str(record.reason)) == named
    for name in ("linear", "mgda"):
        with mtopt.per_instance(model) as instances:
            found = model.heads[0](model.features())[:, 0] * torch.nan
        assert "absent" not in str(instances.backward(found, mtopt.create_combiner(name)).reason)


def test_a_cross_entropy_whose_labels_are_all_ignored() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    scores, ignored = model(torch.randn(5, 3)), torch.full((5,), -100)
    losses = [nn.functional.cross_entropy(scores, torch.arange(5) % 4), nn.functional.cross_entropy(scores, ignored)]
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"), absent="nan")
    assert list(record.losses) == ["loss_0"]
    assert model.weight.grad.isfinite().all()


def _draws(models: MultiHead, nan: tuple[int, ...], value: float | None) -> list[Any]:
    return [Ways(models, nan if number == 1 or value is None else (), value).tensors() for number in range(3)]


@pytest.mark.parametrize("form", ["tensors", "callables"])
def test_of_several_draws_a_loss_that_one_lacks_is_absent(form: str) -> None:
    gradients = []
    for value in (None, torch.nan):
        model = MultiHead(3)
        draws = _draws(model, (1,), value)
        if form == "callables":  # in the first draw alone
            draws = [Ways(model, (1,) if value is None or number == 0 else (), value).each() for number in range(3)]
        record = mtopt.backward(draws, model, mtopt.create_combiner("modo"), absent="nan")
        assert list(record.losses) == ["loss_0", "loss_2"]
        gradients.append(flat_gradient([*model.parameters()]))
    assert torch.equal(*gradients)


def test_draws_with_no_loss_in_common() -> None:
    model = MultiHead(2)
    draws = [Ways(model, (number % 2,), torch.nan).tensors() for number in range(3)]
    assert mtopt.backward(draws, model, mtopt.create_combiner("modo"), absent="nan").skipped


@pytest.mark.parametrize("form", ["one callable", "callables"])
@pytest.mark.parametrize("name", ["mgda", "moco_plus"])
def test_plans_that_run_the_losses_again(name: str, form: str) -> None:
    options: dict[str, Any] = {"plan": "matrix_free"} if name == "mgda" else {}
    gradients = []
    for value in (None, torch.nan):
        model = MultiHead(3)
        rule = mtopt.create_combiner(name)
        for _ in range(2):
            ways = Ways(model, (1,), value)
            record = mtopt.backward(FORMS[form](ways), model, rule, absent="nan", **options)
            assert list(record.losses) == ["loss_0", "loss_2"]
        gradients.append(flat_gradient([*model.parameters()]))
    assert torch.equal(*gradients)


def test_micro_batches() -> None:
    gradients = []
    for value in (None, torch.nan):
        model = MultiHead(2)
        accumulator = mtopt.JacobianAccumulator(model, 2, absent="nan")
        for absent in ((0,), ()):
            for k, loss in enumerate(Ways(model, absent, value).tensors()):
                accumulator.add(k, loss, retain_graph=True)
        accumulator.combine(mtopt.create_combiner("mgda"))
        gradients.append(flat_gradient([*model.parameters()]))
    assert torch.equal(*gradients)
    for loss in Ways(model, (0, 1), torch.nan).tensors():
        accumulator.add(0, loss)
    record = accumulator.combine(mtopt.create_combiner("mgda"))
    assert record.skipped
    assert "absent='nan'" in str(record.reason)
    with pytest.raises(ValueError, match="nothing was added"):
        accumulator.combine(mtopt.create_combiner("mgda"))


def test_wrong_words() -> None:
    model, rule = MultiHead(2), mtopt.create_combiner("mgda")
    with pytest.raises(ValueError, match="absent must be 'nan' or None, found 'NaN'"):
        mtopt.backward(model.losses(), model, rule, absent="NaN")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="absent must be 'nan' or None, found True"):
        mtopt.JacobianAccumulator(model, 2, absent=True)  # type: ignore[arg-type]
    modo = mtopt.create_combiner("modo")
    with pytest.raises(ValueError, match="leave absent='nan' out, or the plan"):
        mtopt.backward([model.losses] * 3, model, modo, plan="matrix_free", absent="nan")


@pytest.mark.parametrize(("name", "how"), CASES)
def test_one_callable_and_one_tensor(name: str, how: str) -> None:
    class OneTrunk(MultiHead):  # without heads: of a vector each loss reaches all
        def losses(self) -> list[torch.Tensor]:
            return [(self.features() - k).square().mean() for k in range(3)]

    gradients = []
    for give in (OneTrunk.losses, lambda m: m.losses, lambda m: torch.stack(m.losses()), lambda m: m.stacked):
        model = OneTrunk(1)
        model.stacked = lambda model=model: torch.stack(model.losses())  # type: ignore[assignment]
        record = mtopt.backward(give(model), model, mtopt.create_combiner(name), **PLANS[how])
        assert list(record.losses) == ["loss_0", "loss_1", "loss_2"]
        gradients.append(flat_gradient([*model.parameters()]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(("name", "how"), [*CASES, ("mgda_ub", "auto"), ("every", "auto")])
def test_a_graph_that_is_kept_serves_again(name: str, how: str, features: bool) -> None:
    model = MultiHead(3)
    trunk = model.features()
    losses = [model.loss(k, trunk) for k in range(3)]
    rule = mtopt.Every(mtopt.create_combiner("mgda"), 3) if name == "every" else mtopt.create_combiner(name)
    options = {**PLANS[how], "features": trunk if features else None}
    for _ in range(2):
        mtopt.backward(losses, model, rule, retain_graph=True, **options)
    mtopt.backward(losses, model, rule, **options)
    if how != "batched":
        with pytest.raises(RuntimeError, match="second time"):
            losses[0].backward()


def test_a_graph_of_samples_and_of_draws_that_is_kept() -> None:
    model = MultiHead(2)
    draws = [model.losses() for _ in range(3)]
    modo = mtopt.create_combiner("modo")
    mtopt.backward(draws, model, modo, retain_graph=True)
    draws[2][0].backward()
    for name in ("mgda", "linear"):
        with mtopt.per_instance(model) as instances:
            losses = model.heads[0](model.features())[:, 0].square()
        first = instances.backward(losses, mtopt.create_combiner(name), retain_graph=True)
        assert instances.backward(losses, mtopt.create_combiner(name)).weights == first.weights
    with pytest.raises(ValueError, match="leave retain_graph out"):
        mtopt.backward(model.losses, model, mtopt.create_combiner("mgda"), plan="matrix_free", retain_graph=True)


def test_callables_are_run_once_whatever_they_reach() -> None:
    torch.manual_seed(0)
    parts = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(3))  # three rows of 12 MiB
    batches = iter(range(9))
    rule = mtopt.create_combiner("ngdiff")
    norm = nn.BatchNorm1d(1024)

    def loss(step: int, k: int) -> torch.Tensor:
        batch = next(batches)
        value = norm(torch.randn(4, 1024, generator=torch.Generator().manual_seed(batch)))
        return parts[(k + step) % 3](parts[k](value)).square().mean()

    for step in range(3):
        record = mtopt.backward([lambda step=step, k=k: loss(step, k) for k in range(3)], parts, rule)
        assert record.backwards == 3
    assert next(batches, None) is None
    assert int(norm.num_batches_tracked) == 9
