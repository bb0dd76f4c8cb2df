"""A trainer whose batches lack labels."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import mtopt

STEPS = 25


class Labels(mtopt.MultiLossTrainer):
    """Four tasks, of whose labels most are missing: a task without any has a NaN loss, or is None."""

    none = False

    def losses(self, batch: Any) -> Any:
        inputs, labels = batch
        found: dict[str, Any] = {}
        for k, scores in enumerate(self.model(inputs).chunk(4, 1)):
            missing = bool((labels[:, k] == -100).all())
            found[f"task {k}"] = None if missing and self.none else nn.functional.cross_entropy(scores, labels[:, k])
        return found


class Lacking(Labels):
    absent = "nan"


def batches(share: float = 0.8, least: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(STEPS):
        labels = torch.randint(3, (2, 4), generator=generator)
        labels[torch.rand(2, 4, generator=generator) < share] = -100
        labels[:, :least] = 1
        found.append((torch.randn(2, 5, generator=generator), labels))
    return found


def trained(kind: type[Labels], data: Any, rule: str, **options: Any) -> Labels:
    torch.manual_seed(0)
    model = nn.Linear(5, 12)
    trainer = kind(model, torch.optim.SGD(model.parameters(), lr=0.1), rule, **options)
    trainer.fit(data, epochs=1)
    return trainer


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"autocast": torch.bfloat16}], ids=str)
@pytest.mark.parametrize("rule", ["linear", "mgda", "famo"])
def test_it_trains_as_with_none(rule: str, options: dict[str, Any]) -> None:
    class Told(Labels):
        none = True

    data = batches(least=1)
    told, by_value = trained(Told, data, rule, **options), trained(Labels, data, rule, absent="nan", **options)
    assert not by_value.history["skipped"].any()
    assert torch.equal(by_value.model.weight, told.model.weight)
    assert by_value.evaluate(data) == told.evaluate(data)
    assert trained(Lacking, data, rule, **options).model.weight.equal(told.model.weight)


def test_the_default_loses_most_steps_and_the_option_those_without_a_label() -> None:
    data = batches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        default = trained(Labels, data, "mgda")
    lacking = trained(Labels, data, "mgda", absent="nan")
    empty = [bool((labels == -100).all()) for _, labels in data]
    assert 0 < sum(empty) < default.history["skipped"].sum()
    assert lacking.history["skipped"].astype(bool).tolist() == empty
    reasons = {record.reason for record in lacking.history if record.skipped}
    assert len(reasons) == 1
    assert "absent='nan'" in str(reasons)


def test_many_skips_in_a_row_warn_once() -> None:
    with pytest.warns(
        UserWarning, match="last 20 steps were all skipped.*non-finite loss: task 0.*absent='nan'"
    ) as seen:
        trained(Labels, batches(share=1.0), "mgda")
    assert len(seen) == 1


def test_fewer_skips_do_not() -> None:
    data = batches(share=0.0)
    for n in (*range(19), *range(20, 25)):
        data[n][1].fill_(-100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained(Labels, data, "mgda").history["skipped"].sum() == 24


def test_wrong_words() -> None:
    with pytest.raises(ValueError, match="absent must be 'nan' or None, found 'none'"):
        trained(Labels, batches(), "mgda", absent="none")
