"""On the models that people train the direction is that of a plain loop over ``autograd.grad``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import nn
from torch.utils.checkpoint import checkpoint

import mtopt
from tests.autograd.helpers import Reference, close, flat_gradient
from tests.autograd.models import MODELS, Model, build

RULES = ("linear", "ngdiff", "mgda", "nash_mtl", "pcgrad", "trimmed_mean")
"""One of each kind: on losses, norms, the Gramian (two exact programs, a stochastic rule), and coordinates."""


def expected_direction(model: Model, rule: mtopt.Combiner) -> torch.Tensor:
    """By hand: a graph and a call of ``autograd.grad`` for each loss, and the rule on rows of the same parameters.

    Parameters are put together by the losses that reach them, since the rule is applied to each such group.
    """
    params = list(model.parameters())
    reference = Reference.of(lambda: list(model.losses().values()), params)
    if rule.needs == "losses":
        return reference.direction(rule)
    result = reference.jacobian.sum(0)  # where one loss reaches
    columns = reference.reach.T
    for reach in {tuple(column) for column in columns.tolist()}:
        if sum(reach) > 1:
            here = (columns == torch.tensor(reach)).all(1)
            rows = torch.tensor(reach)
            result[here] = rule.fresh()(reference.jacobian[rows][:, here], reference.losses[rows])
    return result


def by_tensors(model: Model, rule: mtopt.Combiner) -> mtopt.StepRecord:
    return mtopt.backward(model.losses(), model, rule)


def by_callables(model: Model, rule: mtopt.Combiner) -> mtopt.StepRecord:
    names = list(model.losses())
    return mtopt.backward({name: lambda name=name: model.losses()[name] for name in names}, model, rule)


def in_a_batch(model: Model, rule: mtopt.Combiner) -> mtopt.StepRecord:
    return mtopt.backward(model.losses(), model, rule, plan="batched")


def without_rows(model: Model, rule: mtopt.Combiner) -> mtopt.StepRecord:
    return mtopt.backward(model.losses(), model, rule, store="recompute" if rule.needs != "jacobian" else None)


def by_accumulation(model: Model, rule: mtopt.Combiner) -> mtopt.StepRecord:
    losses = model.losses()
    accumulator = mtopt.JacobianAccumulator(model, list(losses))
    for name, loss in losses.items():
        accumulator.add(name, loss / 4, retain_graph=True)
        accumulator.add(name, 0.75 * loss, retain_graph=True)
    return accumulator.combine(rule)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step", [by_tensors, by_callables, by_accumulation, in_a_batch, without_rows])
def test_the_direction_is_the_hand_written_one(name: str, step: Callable[..., mtopt.StepRecord]) -> None:
    for rule in RULES:
        model = build(name)
        expected = expected_direction(model, mtopt.create_combiner(rule))
        record = step(model, mtopt.create_combiner(rule))
        assert not record.skipped
        close(flat_gradient(list(model.parameters())), expected, 1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_a_float32_model_has_the_direction_of_float64(name: str) -> None:
    expected = expected_direction(build(name), mtopt.create_combiner("ngdiff"))
    model = build(name).float()
    by_tensors(model, mtopt.create_combiner("ngdiff"))
    close(flat_gradient(list(model.parameters())), expected, 5e-6)


@pytest.mark.parametrize("rule", ["ngdiff", "mgda", "moco"])
def test_a_task_that_is_missing_changes_nothing_for_the_others(rule: str) -> None:
    with_it, without = build("mlp"), build("mlp")
    losses = with_it.losses()
    mtopt.backward({**losses, "norm": None}, with_it, mtopt.create_combiner(rule))
    rest = {name: loss for name, loss in without.losses().items() if name != "norm"}
    mtopt.backward(rest, without, mtopt.create_combiner(rule))
    close(flat_gradient(list(with_it.parameters())), flat_gradient(list(without.parameters())))
    assert with_it.heads[2].weight.grad is None  # type: ignore[index,union-attr]


def test_batchnorm_statistics_move_once_a_forward() -> None:
    model, plain = build("cnn"), build("cnn")
    mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"))
    torch.stack(list(plain.losses().values())).sum().backward()
    for (name, found), (_, expected) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(found, expected), name


# -- compiled models ---------------------------------------------------------------------------------------------------


def compiled(name: str, part: str, backend: str) -> Model:
    """The model with one of its modules compiled, without dropout: compiled code draws other masks."""
    model = build(name).eval()
    torch._dynamo.reset()
    model.get_submodule(part).compile(backend=backend)
    return model


@pytest.mark.parametrize(
    ("name", "part", "backend"), [("cnn", "trunk", "aot_eager"), ("transformer", "encoder", "eager")]
)
def test_a_compiled_model(name: str, part: str, backend: str) -> None:
    expected = expected_direction(build(name).eval(), mtopt.create_combiner("mgda"))
    model = compiled(name, part, backend)
    for step in (by_tensors, by_callables, by_accumulation):
        model.zero_grad()
        step(model, mtopt.create_combiner("mgda"))
        close(flat_gradient(list(model.parameters())), expected, 1e-7)


def test_a_compiled_model_whose_first_backward_was_a_plain_one() -> None:
    """It gives activations away in the backward: torch refuses a second one, and the note says what to do."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    inputs = torch.ones(3, 4)
    jacobian = Reference.of(lambda: list(model(inputs).square().mean(0)), list(model.parameters())).jacobian
    expected = mtopt.create_combiner("mgda")(jacobian)

    def after_a_plain_backward() -> Callable[[torch.Tensor], torch.Tensor]:
        torch._dynamo.reset()
        run: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model, backend="aot_eager")
        run(inputs).square().mean().backward()
        model.zero_grad()
        return run

    def step(losses: Any) -> None:
        mtopt.backward(losses, model, mtopt.create_combiner("mgda"), private="combined")

    run = after_a_plain_backward()
    with pytest.raises(RuntimeError, match="donated buffer") as caught:
        step(list(run(inputs).square().mean(0)))
    assert "torch._functorch.config.donated_buffer = False" in caught.value.__notes__[0]
    assert all(param.grad is None for param in model.parameters())
    step([lambda k=k: run(inputs).square().mean(0)[k] for k in range(2)])
    close(flat_gradient(list(model.parameters())), expected, 1e-5)

    with torch._functorch.config.patch(donated_buffer=False):
        run = after_a_plain_backward()
        step(list(run(inputs).square().mean(0)))
    close(flat_gradient(list(model.parameters())), expected, 1e-5)


# -- activation checkpointing ------------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.model, self.reentrant = build("transformer"), reentrant
        encoder = self.model.encoder
        encoder.forward, self.plain = self.recomputed, encoder.forward  # type: ignore[method-assign,assignment]

    def recomputed(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = checkpoint(self.plain, states, use_reentrant=self.reentrant)
        return found

    def losses(self) -> dict[str, torch.Tensor]:
        return self.model.losses()


@pytest.mark.parametrize("step", [by_tensors, by_callables, by_accumulation])
def test_activation_checkpointing(step: Callable[..., mtopt.StepRecord]) -> None:
    model = Checkpointed(reentrant=False)
    step(model, mtopt.create_combiner("mgda"))
    expected = expected_direction(build("transformer"), mtopt.create_combiner("mgda"))
    close(flat_gradient(list(model.parameters())), expected, 1e-7)


@pytest.mark.parametrize("step", [by_tensors, by_callables, by_accumulation])
def test_reentrant_checkpointing_is_refused_with_the_remedy(step: Callable[..., mtopt.StepRecord]) -> None:
    with pytest.raises(ValueError, match="use_reentrant=False"):
        step(Checkpointed(reentrant=True), mtopt.create_combiner("mgda"))


def test_transformers_own_checkpointing() -> None:
    model = build("gpt2")
    expected = expected_direction(build("gpt2"), mtopt.create_combiner("ngdiff"))
    model.model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator,union-attr]
    by_tensors(model, mtopt.create_combiner("ngdiff"))
    close(flat_gradient(list(model.parameters())), expected, 1e-7)


# -- what trains -----------------------------------------------------------------------------------------------------


def with_lora(model: Model) -> nn.Module:
    """A language model of which only low-rank adapters train; B is not zero, so that A has gradients."""
    from peft import LoraConfig, get_peft_model  # seconds that other tests need not wait

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        adapted = get_peft_model(model.model, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))  # type: ignore[arg-type]
        for name, param in adapted.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(param, std=0.1)
    model.model = adapted
    return adapted.double()  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("step", [by_tensors, by_callables, by_accumulation])
def test_lora(step: Callable[..., mtopt.StepRecord]) -> None:
    model = build("gpt2")
    with_lora(model)
    trained = [param for param in model.parameters() if param.requires_grad]
    assert 0 < len(trained) < len(list(model.parameters()))
    reference = Reference.of(lambda: list(model.losses().values()), trained)
    record = step(model, mtopt.create_combiner("ngdiff"))
    close(flat_gradient(trained), mtopt.create_combiner("ngdiff")(reference.jacobian), 1e-7)
    assert list(record.norms or {}) == ["retain", "forget"]
    assert all(param.grad is None for param in model.parameters() if not param.requires_grad)


def test_a_frozen_trunk() -> None:
    model = build("cnn")
    model.trunk.requires_grad_(False)  # type: ignore[operator]
    record = by_tensors(model, mtopt.create_combiner("mgda"))
    assert all(param.grad is None for param in model.trunk.parameters())  # type: ignore[operator]
    heads = list(model.heads.parameters())  # type: ignore[operator]
    reference = Reference.of(lambda: list(model.losses().values()), heads)
    close(flat_gradient(heads), reference.jacobian.sum(0))  # each has a loss of its own
    assert "no parameter is shared" in record.plan


def test_sparse_embeddings_are_refused_by_name() -> None:
    model = build("transformer")
    model.embedding = nn.Embedding(11, 8, sparse=True, dtype=torch.float64)
    for step in (by_tensors, by_callables, by_accumulation):
        with pytest.raises(TypeError, match=r"loss 'tokens' has a sparse gradient .* sparse=False"):
            step(model, mtopt.create_combiner("mgda"))
