"""Groups of samples as objectives: one pass gives the gradient of each group's mean loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from tests.autograd.helpers import Reference, close, flat_gradient
from tests.autograd.models import build
from tests.autograd.test_models import with_lora

SIZE = 6
GROUPS: dict[str, Any] = {"retain": slice(0, 2), "forget": slice(2, SIZE)}


class Tokens(nn.Module):
    """Embedded tokens, positions, an encoder layer, a recurrent layer, which is not taken apart, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(9, 8), nn.Parameter(torch.randn(5, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.recurrent, self.head = nn.GRU(8, 4, batch_first=True), nn.Linear(4, 1)

    def losses(self) -> torch.Tensor:
        tokens = torch.arange(SIZE * 5).reshape(SIZE, 5) % 9
        states = self.encoder(self.embedding(tokens) + self.positions)
        return self.head(self.recurrent(states)[0][:, -1]).square()[:, 0]  # type: ignore[no-any-return]


class Images(nn.Module):
    """Convolutions with group normalisation, and a linear layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2))
        self.twice = nn.Linear(4, 4)

    def losses(self) -> torch.Tensor:
        images = torch.randn(SIZE, 2, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        states = self.body(images).mean((2, 3))
        return self.twice(self.twice(states).tanh()).exp().mean(1)  # type: ignore[no-any-return]


def made(kind: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().double()


def means(model: Any, groups: dict[Any, Any]) -> Callable[[], list[torch.Tensor]]:
    return lambda: [model.losses()[samples].mean() for samples in groups.values()]


@pytest.mark.parametrize("kind", [Tokens, Images])
@pytest.mark.parametrize("rule", ["ngdiff", "mgda", "graddrop", "linear"])
@pytest.mark.parametrize(
    "groups", [GROUPS, {"odd": torch.arange(SIZE) % 2 == 1, "two": [0, 4]}], ids=["slices", "masks and places"]
)
def test_the_direction_is_that_of_the_groups_losses(kind: Callable[[], Any], rule: str, groups: dict[str, Any]) -> None:
    model = made(kind)
    params = list(model.parameters())
    jacobian = Reference.of(means(model, groups), params).jacobian
    instances = mtopt.per_instance(model)
    with instances:
        losses = model.losses()
    record = instances.backward(losses, mtopt.create_combiner(rule), groups=groups)
    values = torch.stack(means(model, groups)()).detach()
    assert record.losses == pytest.approx(dict(zip(groups, values.tolist(), strict=True)))
    close(flat_gradient(params), mtopt.create_combiner(rule)(jacobian, values), 1e-10)


def test_later_steps_take_one_pass_and_the_first_is_checked() -> None:
    model = made(Images)
    instances = mtopt.per_instance(model)
    found = []
    for _ in range(2):
        with instances:
            losses = model.losses()
        found.append(instances.backward(losses, mtopt.create_combiner("mgda"), groups=GROUPS))
    assert [record.backwards for record in found] == [2, 1]
    assert found[0].plan.endswith("; held against one more pass, in this first step")


def test_an_objective_to_maximise_and_a_scaler() -> None:
    model, twin = made(Images), made(Images)
    groups = {mtopt.Objective("retain"): GROUPS["retain"], mtopt.Objective("forget", "max"): GROUPS["forget"]}
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with mtopt.per_instance(model) as instances:
        losses = model.losses()
    record = instances.backward(losses, mtopt.create_combiner("ngdiff"), groups=groups, scaler=scaler)
    retain, forget = means(twin, GROUPS)()
    expected = mtopt.backward(dict(zip(groups, (retain, forget), strict=True)), twin, mtopt.create_combiner("ngdiff"))
    close(flat_gradient(list(model.parameters())), 64.0 * flat_gradient(list(twin.parameters())), 1e-10)
    assert record.norms == pytest.approx(expected.norms)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("adapted", [False, True])
def test_a_language_model_that_retains_and_forgets(adapted: bool) -> None:
    model = build("gpt2").eval()
    if adapted:
        with_lora(model)
    params = [param for param in model.parameters() if param.requires_grad]
    tokens = (torch.arange(32).reshape(4, 8) * 7) % 23

    def each() -> torch.Tensor:
        logits = model.model(tokens).logits[:, :-1]  # type: ignore[operator,union-attr]
        return nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none").mean(1)

    groups = {"retain": slice(0, 2), "forget": slice(2, 4)}
    jacobian = Reference.of(lambda: [each()[:2].mean(), each()[2:].mean()], params).jacobian
    with mtopt.per_instance(model) as instances:
        losses = each()
    instances.backward(losses, mtopt.create_combiner("upgrad"), groups=groups)
    close(flat_gradient(params), mtopt.create_combiner("upgrad")(jacobian), 1e-10)


def test_samples_that_see_one_another_are_found() -> None:
    model = made(Images)
    with mtopt.per_instance(model) as instances:
        losses = model.losses()
        losses = losses + losses.roll(1).square()
    with pytest.raises(RuntimeError, match="do not add up to that of their losses"):
        instances.backward(losses, mtopt.create_combiner("mgda"), groups=GROUPS)
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([slice(0, 3)], TypeError, "groups must be a mapping"),
        ({}, TypeError, "groups must be a mapping"),
        ({"none": []}, ValueError, r"groups\['none'\] holds none of the 6 samples"),
        ({"far": [5, 6]}, ValueError, r"groups\['far'\] must be a slice, positions or a mask of 6 samples"),
        ({"none": None}, ValueError, r"groups\['none'\] must be a slice, positions or a mask of 6 samples, found None"),
        ({"word": ["a"]}, ValueError, r"groups\['word'\] must be a slice, positions or a mask of 6 samples"),
        ({"a": slice(0, 4), "b": slice(3, 6)}, ValueError, "must not share samples"),
    ],
)
def test_wrong_groups_are_refused(groups: Any, error: type[Exception], message: str) -> None:
    model = made(Images)
    with mtopt.per_instance(model) as instances:
        losses = model.losses()
    with pytest.raises(error, match=message):
        instances.backward(losses, mtopt.create_combiner("mgda"), groups=groups)


def test_a_loss_that_is_not_finite_skips_the_step_by_its_groups_name() -> None:
    model = made(Images)
    with mtopt.per_instance(model) as instances:
        losses = model.losses() * torch.tensor([1.0] * 5 + [torch.inf])
    record = instances.backward(losses, mtopt.create_combiner("mgda"), groups=GROUPS)
    assert record.skipped
    assert record.reason == "non-finite loss: forget"
    assert all(param.grad is None for param in model.parameters())
