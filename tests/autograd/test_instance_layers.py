"""Each kind of layer: the Gramian from inputs and output gradients is that of explicit rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import mtopt
from mtopt.autograd import _layer_gramians
from mtopt.autograd._layer_parts import Factors
from tests.autograd.instance_helpers import check_gramian, check_layers, taken_down

BATCH = 5

LAYERS: list[tuple[str, Any, tuple[int, ...]]] = [
    ("linear", lambda: nn.Linear(4, 3), (4,)),
    ("linear, no bias", lambda: nn.Linear(4, 3, bias=False), (4,)),
    ("linear, sequence", lambda: nn.Linear(4, 3), (6, 4)),
    ("linear, grid", lambda: nn.Linear(4, 3), (2, 3, 4)),
    ("linear, wide", lambda: nn.Linear(1500, 1300), (1500,)),
    ("layer norm", lambda: nn.LayerNorm(4), (6, 4)),
    ("layer norm, two dimensions", lambda: nn.LayerNorm((3, 4)), (2, 3, 4)),
    ("layer norm, no bias", lambda: nn.LayerNorm(4, bias=False), (4,)),
    ("rms norm", lambda: nn.RMSNorm(4), (6, 4)),
    ("rms norm, eps", lambda: nn.RMSNorm((3, 4), eps=0.1), (3, 4)),
    ("group norm", lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    ("group norm, flat", lambda: nn.GroupNorm(2, 4), (4,)),
    ("instance norm 1d", lambda: nn.InstanceNorm1d(3, affine=True), (3, 7)),
    ("instance norm 2d", lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (3, 4, 4)),
    ("instance norm 3d", lambda: nn.InstanceNorm3d(2, affine=True), (2, 2, 3, 2)),
    ("instance norm, eval", lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True).eval(), (3, 7)),
    ("batch norm 1d, eval", lambda: nn.BatchNorm1d(3).eval(), (3,)),
    ("batch norm 1d, eval, sequence", lambda: nn.BatchNorm1d(3).eval(), (3, 5)),
    ("batch norm 2d, eval", lambda: nn.BatchNorm2d(3).eval(), (3, 4, 4)),
    ("conv 1d", lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 9)),
    ("conv 2d", lambda: nn.Conv2d(3, 4, (3, 2), padding=(1, 0), dilation=(2, 1)), (3, 7, 6)),
    ("conv 2d, no bias", lambda: nn.Conv2d(2, 3, 1, bias=False), (2, 3, 3)),
    ("conv 2d, depthwise", lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 5, 5)),
    ("conv 2d, same, circular", lambda: nn.Conv2d(2, 3, 4, padding="same", padding_mode="circular"), (2, 6, 6)),
    ("conv 3d", lambda: nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding=1, groups=2), (2, 3, 4, 3)),
]


def randomised(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """With other parameters and statistics than ones and zeros."""
    torch.manual_seed(0)
    for param in layer.parameters():
        nn.init.normal_(param)
    for name, buffer in layer.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 2.0)
    return layer.to(dtype)


def samples(shape: tuple[int, ...], dtype: torch.dtype, batch: int = BATCH) -> torch.Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def per_sample(output: torch.Tensor) -> torch.Tensor:
    """Losses whose gradients differ from output to output."""
    return (output + 0.5).pow(3).flatten(1).mean(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("make", "shape"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS])
def test_a_layer(make, shape, dtype) -> None:  # type: ignore[no-untyped-def]
    layer, inputs = randomised(make(), dtype), samples(shape, dtype)
    check_layers(layer, lambda: per_sample(layer(inputs)))


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("vocabulary", [6, 400])
def test_an_embedding(shape, padding, vocabulary) -> None:  # type: ignore[no-untyped-def]
    layer = randomised(nn.Embedding(vocabulary, 4, padding_idx=padding), torch.float64)
    tokens = torch.randint(6, (BATCH, *shape), generator=torch.Generator().manual_seed(0))
    tokens.view(-1)[1] = 2
    check_layers(layer, lambda: per_sample(layer(tokens)))


def test_an_embedding_by_frequency_takes_a_backward_a_loss() -> None:
    layer = randomised(nn.Embedding(6, 4, scale_grad_by_freq=True), torch.float64)
    tokens = torch.randint(6, (BATCH, 7), generator=torch.Generator().manual_seed(0))
    check_gramian(layer, lambda: per_sample(layer(tokens)))


def test_a_sparse_embedding_is_refused() -> None:
    layer = nn.Embedding(6, 4, sparse=True)
    instances, losses = taken_down(layer, lambda: per_sample(layer(torch.arange(5))))
    with pytest.raises(TypeError, match=r"sparse gradient.*sparse=False"):
        instances.backward(losses, mtopt.create_combiner("mgda"))


@settings(max_examples=60)
@given(
    dimensions=st.integers(1, 3),
    groups=st.integers(1, 3),
    widths=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    data=st.data(),
)
def test_any_convolution(dimensions, groups, widths, mode, data) -> None:  # type: ignore[no-untyped-def]
    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=dimensions, max_size=dimensions)))

    kernel, stride, dilation, padding, inputs = sizes(1, 3), sizes(1, 3), sizes(1, 2), sizes(0, 2), sizes(3, 6)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= span for n, p, span in zip(inputs, padding, spans, strict=True)))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    layer = kind(
        groups * widths[0],
        groups * widths[1],
        kernel,  # type: ignore[arg-type]
        stride=stride,  # type: ignore[arg-type]
        dilation=dilation,  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        groups=groups,
        padding_mode=mode,
    )
    layer = randomised(layer, torch.float64)  # type: ignore[assignment]
    given_inputs = samples((groups * widths[0], *inputs), torch.float64, batch=3)
    check_layers(layer, lambda: per_sample(layer(given_inputs)))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_of_a_sequence_to_itself(batch_first, bias, need_weights) -> None:  # type: ignore[no-untyped-def]
    layer = randomised(nn.MultiheadAttention(6, 2, bias=bias, batch_first=batch_first), torch.float64)
    inputs = samples((4, 6), torch.float64)
    given_inputs = inputs if batch_first else inputs.transpose(0, 1)

    def losses() -> torch.Tensor:
        output, _ = layer(given_inputs, given_inputs, given_inputs, need_weights=need_weights)
        return per_sample(output if batch_first else output.transpose(0, 1))

    check_gramian(layer, losses)


def test_attention_to_another_sequence() -> None:
    layer = randomised(nn.MultiheadAttention(6, 2, batch_first=True), torch.float64)
    own, other = samples((4, 6), torch.float64), samples((3, 6), torch.float64)
    check_gramian(layer, lambda: per_sample(layer(own, other, other)[0]))
    separate = randomised(nn.MultiheadAttention(6, 2, kdim=5, vdim=3, batch_first=True), torch.float64)
    keys, values = samples((3, 5), torch.float64), samples((3, 3), torch.float64)
    check_gramian(separate, lambda: per_sample(separate(own, keys, values)[0]))


# -- both ways from factors to the Gramian ------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    batch=st.integers(1, 5),
    uses=st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    exponent=st.integers(-15, 15),
    seed=st.integers(0, 99),
)
def test_products_and_gradients_agree(batch, uses, size, exponent, seed) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    scales = 10.0 ** (exponent * torch.rand(batch, 1, 1, generator=generator))
    factors = []
    for indexed, positions in uses:
        left = (
            torch.randint(height, (batch, positions), generator=generator)
            if indexed
            else torch.randn(batch, positions, height, generator=generator)
        )
        factors.append(Factors(left, scales * torch.randn(batch, positions, width, generator=generator), height))
    rows = _layer_gramians.sum_of_parts(
        [Factors(f.left if f.is_indexed else f.left.double(), f.right.double(), height) for f in factors]
    )
    expected = rows @ rows.T
    # of what is added up: rounding is small beside the terms, and not beside a sum in which they cancel
    terms = [
        Factors(f.left if f.is_indexed else f.left.abs().double(), f.right.abs().double(), height) for f in factors
    ]
    lengths = _layer_gramians.sum_of_parts(terms).norm(dim=1) + 1e-3 * scales.flatten()
    for cheaper in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_layer_gramians, "products_are_cheaper", lambda _, cheaper=cheaper: cheaper)
            patch.setattr(_layer_gramians, "BLOCK", 16)  # several blocks
            found = _layer_gramians.gramian_of_parts(factors)
        assert float(((found - expected) / lengths / lengths[:, None]).abs().max()) < (1e-3 if exponent else 1e-5)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_products_of_wide_layers(precision) -> None:  # type: ignore[no-untyped-def]
    """Segments of the columns; and float64 where the user allowed the model's products to be rounded."""
    factors = [Factors(samples((3, 1500), torch.float32), samples((3, 1100), torch.float32), 1500)]
    gradients = (factors[0].left.double().mT @ factors[0].right.double()).flatten(1)
    expected = gradients @ gradients.T
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert _layer_gramians.products_are_cheaper(factors)
        found = _layer_gramians.gramian_of_parts(factors)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.max()))


@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1.0, 1e15, 1e25])
@pytest.mark.parametrize("shape", [(4,), (6, 4)])
def test_float32_at_any_scale(scale, shape) -> None:  # type: ignore[no-untyped-def]
    layer, inputs = randomised(nn.Linear(4, 50), torch.float32), samples(shape, torch.float32)
    check_gramian(layer, lambda: scale * per_sample(layer(inputs)))


def test_the_cheaper_way_is_taken() -> None:
    def factors(batch: int, positions: int, height: int, width: int) -> list[Factors]:
        return [Factors(torch.zeros(batch, positions, height), torch.zeros(batch, positions, width), height)]

    assert _layer_gramians.products_are_cheaper(factors(64, 1, 512, 512)), "a layer on vectors"
    assert not _layer_gramians.products_are_cheaper(factors(64, 256, 16, 27)), "many pixels, a small kernel"
    tokens = [Factors(torch.zeros(8, 16, dtype=torch.long), torch.zeros(8, 16, 32), 50_000)]
    assert _layer_gramians.products_are_cheaper(tokens), "no gradient of a whole vocabulary"
