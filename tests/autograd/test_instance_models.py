"""Whole models: layers together, tied weights, several calls, and what takes one backward pass per loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import GPT2Config, GPT2LMHeadModel

import mtopt
from tests.autograd.instance_helpers import check_gramian, check_layers, taken_down

BATCH, LENGTH, WIDTH, VOCABULARY = 6, 5, 8, 11


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def vectors(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(), dtype=torch.float64).to(dtype)


def tokens(batch: int = BATCH) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, LENGTH), generator=generator())


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B,): the mean over positions."""
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_cnn(dtype) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model, inputs = cnn().to(dtype), vectors(BATCH, 3, 8, 8, dtype=dtype)
    labels = torch.arange(BATCH) % 3
    check_layers(model, lambda: F.cross_entropy(model(inputs), labels, reduction="none"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_transformer_encoder_with_dropout(dtype, norm_first) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.2, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(dtype).train()
    inputs = vectors(BATCH, LENGTH, WIDTH, dtype=dtype)
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=dtype)
    check_layers(model, lambda: model(inputs, mask=mask).pow(3).mean((1, 2)))


class Tied(nn.Module):
    """A language model with one matrix for tokens in and tokens out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.out = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if how == "layer":
            self.out.weight = self.tokens.weight
        elif how == "function":
            del self.out

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        hidden = self.tokens(given) + self.positions
        for _ in range(2):  # one layer twice
            hidden = hidden + torch.tanh(self.mix(hidden)).cumsum(1)
        hidden = hidden * self.scale
        return F.linear(hidden, self.tokens.weight) if self.how == "function" else self.out(hidden)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("how", "slow"), [("layer", 0), ("function", 1), ("not at all", 0)])
def test_tied_weights_and_a_layer_called_twice(how, slow, dtype) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model, given = Tied(how).to(dtype), tokens()
    check_layers(model, lambda: token_losses(model(given), given.roll(1, 1)), slow)


def test_the_cross_terms_of_tied_weights_matter() -> None:
    """What this package gets right is not right by accident: without them the Gramian is another."""
    torch.manual_seed(0)
    tied, given = Tied("layer").double(), tokens()
    apart = Tied("not at all").double()
    apart.load_state_dict({**tied.state_dict(), "out.weight": tied.tokens.weight.detach().clone()})
    gramians = []
    for model in (tied, apart):
        instances, losses = taken_down(model, lambda model=model: token_losses(model(given), given.roll(1, 1)))
        gramians.append(instances.gramian(losses))
    lengths = gramians[0].diagonal().sqrt()
    assert float(((gramians[0] - gramians[1]) / lengths / lengths[:, None]).abs().max()) > 0.005


def test_gpt2_whose_positions_are_made_once_for_all_samples() -> None:
    config = GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).double().train()
    given = torch.randint(31, (BATCH, 7), generator=generator())

    def losses() -> torch.Tensor:
        torch.manual_seed(1)  # dropout
        return token_losses(model(input_ids=given).logits[:, :-1], given[:, 1:])

    check_layers(model, losses)


@pytest.mark.parametrize("length", [LENGTH, BATCH])
@pytest.mark.parametrize("leading", [True, False])
def test_an_embedding_of_positions_even_when_there_are_as_many_as_samples(length, leading) -> None:  # type: ignore[no-untyped-def]
    model = nn.ModuleList([nn.Embedding(VOCABULARY, 4), nn.Embedding(length, 4), nn.Linear(4, 2)]).double()
    given = torch.randint(VOCABULARY, (BATCH, length), generator=generator())
    places = torch.arange(length)[None] if leading else torch.arange(length)
    check_layers(model, lambda: model[2](model[0](given) + model[1](places)).pow(3).mean((1, 2)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.out = nn.Linear(5, 2)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(given)[0][:, -1])  # type: ignore[no-any-return]


def test_an_lstm_takes_a_backward_a_loss() -> None:
    torch.manual_seed(0)
    model, inputs = Recurrent().double(), vectors(BATCH, LENGTH, 4)
    check_layers(model, lambda: model(inputs).square().mean(1), slow=4)


class Patches(nn.Module):
    """What vision transformers do with bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, LENGTH + 1, WIDTH))
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([self.token.expand(len(given), -1, -1), given], 1) + self.positions
        return self.out(torch.tanh(hidden).cumsum(1)[:, -1])  # type: ignore[no-any-return]


def test_a_class_token_and_positions() -> None:
    model, inputs = Patches().double(), vectors(BATCH, LENGTH, WIDTH)
    check_layers(model, lambda: model(inputs).pow(3).mean(1))


def test_work_in_place_on_an_output_that_is_a_view() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 7), nn.ReLU(inplace=True), nn.Linear(7, 2)).double()
    check_layers(model, lambda: model(vectors(BATCH, LENGTH, WIDTH)).square().mean((1, 2)))


def test_the_model_called_twice() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    first, second = vectors(BATCH, WIDTH), vectors(BATCH, WIDTH) + 1
    check_layers(model, lambda: (model(first) * model(second)).sum(1))


def test_calls_that_the_losses_do_not_come_from() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 4)).double()

    def losses() -> torch.Tensor:
        model(vectors(3, WIDTH))
        with torch.no_grad():
            model(vectors(BATCH, WIDTH))
        return model(vectors(BATCH, WIDTH)).square().mean(1)

    check_layers(model, losses)


def test_a_layer_on_rows_of_all_samples_takes_a_backward_a_loss() -> None:
    """(B T, d) shows no samples along the first dimension, whatever their order."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(WIDTH, 4), nn.Linear(4, 2)

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            hidden = self.inner(given.transpose(0, 1).reshape(-1, WIDTH)).reshape(LENGTH, BATCH, 4)
            return self.out(hidden.sum(0))  # type: ignore[no-any-return]

    model = Flat().double()
    check_layers(model, lambda: model(vectors(BATCH, LENGTH, WIDTH)).square().mean(1), slow=2)


def test_frozen_and_unused_parameters() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    model.unused = nn.Linear(3, 3)
    model[0].weight.requires_grad_(False)
    inputs = vectors(BATCH, WIDTH)
    run = lambda: model[2](model[1](model[0](inputs))).square().mean(1)  # noqa: E731
    check_layers(model, run)
    assert model[0].weight.grad is None
    assert model.unused.weight.grad is None
    assert model[0].bias.grad is not None


@pytest.mark.parametrize(
    "parametrization", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal]
)
def test_a_weight_computed_from_others_takes_a_backward_a_loss(parametrization) -> None:  # type: ignore[no-untyped-def]
    model = nn.Sequential(parametrization(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2)).double()
    check_gramian(model, lambda: model(vectors(BATCH, 4)).square().mean(1))


def test_a_subclass_with_a_forward_of_its_own_is_not_taken_for_its_base() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return F.linear(input, 2 * self.weight, self.bias)

    model = Doubled(WIDTH, 3).double()
    check_gramian(model, lambda: model(vectors(BATCH, WIDTH)).square().mean(1))


def test_activation_checkpointing() -> None:
    torch.manual_seed(0)
    body = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True).double()
    model = nn.ModuleList([nn.Linear(WIDTH, WIDTH).double(), body, nn.Linear(WIDTH, 2).double()])
    inputs = vectors(BATCH, LENGTH, WIDTH)

    def losses() -> torch.Tensor:
        hidden = checkpoint(body, model[0](inputs), use_reentrant=False)
        return model[2](hidden).square().mean((1, 2))  # type: ignore[no-any-return]

    check_layers(model, losses)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_16_bits(dtype) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)
    inputs = vectors(BATCH, LENGTH, WIDTH, dtype=dtype)
    losses = lambda: model(inputs).float().square().mean((1, 2))  # noqa: E731
    check_gramian(model, losses, 0.02)
    instances, found = taken_down(model, losses)
    assert instances.backward(found, mtopt.create_combiner("upgrad")).backwards == 2
    assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_autocast(tied) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model, given = Tied("layer" if tied else "function"), tokens()

    def losses() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return token_losses(model(given).float(), given)

    check_gramian(model, losses, 0.03)


def test_one_sample() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model.eval()
    check_layers(model, lambda: model(vectors(1, WIDTH)).square().mean(1))


RULES = [
    name
    for traits in ({"needs": "gramian"}, {"needs": "norms"}, {"needs": "losses"})
    for name in mtopt.list_combiners(exact_objectives=None, draws=1, **traits)
    if name not in ("gem", "pbi", "epo", "ferero")  # ask for arguments
]


@pytest.mark.parametrize("name", RULES)
def test_the_direction_of_every_rule(name: str) -> None:
    """It is that of one backward pass per loss, and so are weights, norms and cosines."""
    found: list[Any] = []
    for how in ("layers", "losses"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
        rule, records = mtopt.create_combiner(name), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(2):  # with the rule's state of the first
            optimizer.zero_grad()
            inputs, targets = vectors(4, 2, 4) + step, torch.arange(4) % 3
            compute: Callable[[], torch.Tensor] = lambda m=model, i=inputs, t=targets: F.cross_entropy(  # noqa: E731
                m(i), t, reduction="none"
            )
            if how == "layers":
                instances, losses = taken_down(model, compute)
                records.append(instances.backward(losses, rule))
            else:
                records.append(mtopt.backward(list(compute()), model, rule))
            if rule.awaits_losses:
                rule.reevaluate(compute().detach())
            gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])  # type: ignore[union-attr]
            optimizer.step()
        found.append((gradient, records[-1]))
    (gradient, record), (expected, reference) = found
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))
    assert record.losses == pytest.approx(reference.losses)
    assert record.weights == pytest.approx(reference.weights, rel=1e-6, abs=1e-9)
    if reference.norms is not None:
        assert record.norms == pytest.approx(reference.norms)
    if reference.cosines is not None:
        torch.testing.assert_close(torch.from_numpy(record.cosines), torch.from_numpy(reference.cosines))
