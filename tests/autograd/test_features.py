"""``features=``: the same direction with the heads differentiated once, or a fallback that says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import mtopt
from tests.autograd.helpers import FIVE, GRADIENT_RULES, MultiHead, Reference, close, every_rule, flat_gradient

Made = tuple[list[torch.Tensor], torch.Tensor | list[torch.Tensor]]


class Counter:
    """Counts how often gradients pass a tensor."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, gradient: torch.Tensor) -> None:
        self.passes += 1


FED_PARAMETERS = [n for n in every_rule() if n in mtopt.list_combiners(features=True, on_features=False)]


@pytest.mark.parametrize("name", FED_PARAMETERS)
def test_the_direction_is_the_same_as_without(name: str) -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    features = model.features()
    losses = [model.loss(k, features) for k in range(2)]
    record = mtopt.backward(losses, params, mtopt.create_combiner(name), features=features)
    close(flat_gradient(params), Reference.of(model.losses, params).direction(mtopt.create_combiner(name)))
    if mtopt.combiners.combiner_class(name).needs != "losses":
        assert record.plan.startswith("features first")


def test_the_heads_are_differentiated_once_and_the_trunk_once_a_loss() -> None:
    model = MultiHead(3)
    hidden = model.trunk[0](model.inputs)
    features = model.trunk[1:](hidden)
    errors = [head(features) for head in model.heads]
    in_trunk, in_heads = Counter(), [Counter() for _ in errors]
    hidden.register_hook(in_trunk)
    for error, counter in zip(errors, in_heads, strict=True):
        error.register_hook(counter)
    losses = [error.square().mean() for error in errors]
    mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=features)
    assert in_trunk.passes == 3
    assert [counter.passes for counter in in_heads] == [1, 1, 1]


# -- several features, and features of many kinds ------------------------------------------------------------------


class TwoFeatures(nn.Module):
    """Inputs -> two features by one of several trunks -> two losses that use both."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kind = kind
        self.first, self.second = nn.Linear(4, 6), nn.Linear(4, 6)
        self.on_top = nn.Linear(6, 6)
        self.recurrent = nn.LSTM(4, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(2))
        for param in self.parameters():
            nn.init.normal_(param, std=0.6, generator=generator)
        self.register_buffer("inputs", torch.randn(5, 3, 4, generator=generator))
        self.double()

    def features(self) -> list[torch.Tensor]:
        if self.kind == "two_trunks":
            return [self.first(self.inputs).tanh(), self.second(self.inputs).tanh()]
        if self.kind == "chunks":
            return list(torch.cat([self.first(self.inputs), self.second(self.inputs)], -1).tanh().chunk(2, -1))
        if self.kind == "recurrent":
            outputs, (hidden, _) = self.recurrent(self.inputs)
            return [outputs, hidden]
        if self.kind == "nested":
            below = self.first(self.inputs).tanh()
            return [below, self.on_top(below).tanh()]
        if self.kind == "view":
            feature = self.first(self.inputs).tanh()
            return [feature, feature.flatten(0, 1).unflatten(0, (5, 3))]
        assert self.kind == "repeated"
        feature = self.first(self.inputs).tanh()
        return [feature, feature]

    def losses_of(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        a, b = features
        return [
            self.heads[0](a).square().mean() + b.sin().mean() + 2,
            (self.heads[1](b) - 1).square().mean() + a.mean(),
        ]

    def losses(self) -> list[torch.Tensor]:
        return self.losses_of(self.features())


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("two_trunks", True),
        ("chunks", True),
        ("recurrent", True),
        ("repeated", True),
        ("nested", False),  # its gradient with respect to the lower feature holds the way through the upper one
        ("view", False),
    ],
)
def test_several_features(name: str, kind: str, first: bool) -> None:
    model = TwoFeatures(kind)
    params = list(model.parameters())
    features = model.features()
    record = mtopt.backward(model.losses_of(features), params, mtopt.create_combiner(name), features=features)
    close(flat_gradient(params), Reference.of(model.losses, params).direction(mtopt.create_combiner(name)))
    if name != "linear":
        assert record.plan.startswith("features first") == first
        assert ("one of the features is computed from another" in record.plan) != first


def _tied(model: MultiHead, features: torch.Tensor) -> list[torch.Tensor]:
    """A loss that uses a weight of the trunk once more, as tied embeddings do."""
    return [model.loss(0, features), model.loss(1, features) + model.trunk[2].weight.square().mean()]


def _skip(model: MultiHead, features: torch.Tensor) -> list[torch.Tensor]:
    """A loss that goes back to the middle of the trunk by a way of its own."""
    return [model.loss(0, features), model.loss(1, features) + model.trunk[0](model.inputs).sin().mean()]


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize("around", [_tied, _skip])
def test_a_trunk_reached_around_the_features_falls_back(
    name: str, around: Callable[[MultiHead, torch.Tensor], list[torch.Tensor]]
) -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    features = model.features()
    record = mtopt.backward(around(model, features), params, mtopt.create_combiner(name), features=features)
    reference = Reference.of(lambda: around(model, model.features()), params)
    close(flat_gradient(params), reference.direction(mtopt.create_combiner(name)))
    if name != "linear":
        assert "not features first, since" in record.plan
        assert "reached around it" in record.plan


def test_one_chunk_of_two_is_not_all_of_the_way_to_the_trunk() -> None:
    model = TwoFeatures("chunks")
    params = list(model.parameters())
    features = model.features()
    record = mtopt.backward(model.losses_of(features), params, mtopt.create_combiner("mgda"), features=features[0])
    close(flat_gradient(params), Reference.of(model.losses, params).direction(mtopt.create_combiner("mgda")))
    assert "not features first, since" in record.plan


@pytest.mark.parametrize("name", GRADIENT_RULES)
def test_what_lies_behind_the_features_is_shared_even_if_one_loss_uses_it(name: str) -> None:
    """Without features a trunk parameter that a single loss reaches would count as that loss's own."""
    model = TwoFeatures("two_trunks")
    params = [*model.first.parameters(), *model.second.parameters()]

    def losses(features: list[torch.Tensor]) -> list[torch.Tensor]:
        return [model.heads[0](features[0]).square().mean(), features[1].square().mean() + features[0].mean()]

    features = model.features()
    mtopt.backward(losses(features), params, mtopt.create_combiner(name), features=features)
    reference = Reference.of(lambda: losses(model.features()), params)
    both, one = reference.reach.all(0), ~reference.reach[0]
    expected = torch.zeros_like(reference.jacobian[0])
    expected[both] = mtopt.create_combiner(name)(reference.jacobian[:, both])
    expected[one] = mtopt.create_combiner(name)(reference.jacobian[1:, one])
    close(flat_gradient(params), expected)


@pytest.mark.parametrize("name", GRADIENT_RULES)
def test_with_a_single_loss_features_tell_the_trunk_from_the_head(name: str) -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    features = model.features()
    rule = mtopt.create_combiner(name)
    mtopt.backward([model.loss(0, features), None], params, rule, features=features)
    row = Reference.of(lambda: model.losses()[:1], params).jacobian
    expected = row[0].clone()
    expected[: model.trunk_size] = mtopt.create_combiner(name)(row[:, : model.trunk_size])
    close(flat_gradient(params), expected)
    if name == "moco":  # the same columns in every step: a rule with state goes on with both losses there
        features = model.features()
        mtopt.backward([model.loss(k, features) for k in range(2)], params, rule, features=features)


def test_frozen_trunk_parameters_and_unused_features() -> None:
    model = MultiHead(2)
    model.trunk[0].requires_grad_(False)
    params = list(model.parameters())
    features = model.features()
    unused = model.trunk[2].bias * 2
    losses = [model.loss(k, features) for k in range(2)]
    record = mtopt.backward(losses, params, mtopt.create_combiner("mgda"), features=[features, unused])
    trained = [p for p in params if p.requires_grad]
    close(flat_gradient(trained), Reference.of(model.losses, trained).direction(mtopt.create_combiner("mgda")))
    assert record.plan.startswith("features first")


def test_a_parameter_may_itself_be_the_features() -> None:
    table = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    heads = [nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in ([0.5, -1.0], [2.0, 1.0])]

    def losses() -> list[torch.Tensor]:
        return [(head * table).sum().square() for head in heads]

    params = [table, *heads]
    mtopt.backward(losses(), params, mtopt.create_combiner("mgda"), features=table)
    close(flat_gradient(params), Reference.of(losses, params).direction(mtopt.create_combiner("mgda")))


# -- wrong features ------------------------------------------------------------------------------------------------


def test_features_without_a_graph_are_refused() -> None:
    model = MultiHead(2)
    features = model.features()
    losses = [model.loss(k, features) for k in range(2)]
    for wrong, index in [(features.detach(), 0), ([features, "trunk"], 1), ([features, torch.ones(2)], 1)]:
        with pytest.raises(ValueError, match=rf"features\[{index}\] must be a tensor with a graph"):
            mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=wrong)  # type: ignore[arg-type]


def test_features_and_callables_do_not_go_together() -> None:
    model = MultiHead(2)
    calls = [lambda k=k: model.losses()[k] for k in range(2)]
    with pytest.raises(ValueError, match="features names a graph that the losses share, and callables share none"):
        mtopt.backward(calls, model, mtopt.create_combiner("mgda"), features=model.features())


def test_a_sparse_gradient_behind_the_features_is_named() -> None:
    table = nn.Embedding(10, 5, sparse=True)
    model = MultiHead(2, dtype=torch.float32)
    features = table(torch.arange(9))
    losses = {"a": model.loss(0, features), "b": model.loss(1, features)}
    with pytest.raises(TypeError, match=r"loss 'a' has a sparse gradient of shape \(10, 5\).*sparse=False"):
        mtopt.backward(
            losses, [*table.parameters(), *model.heads.parameters()], mtopt.create_combiner("mgda"), features=features
        )


# -- what is no features -------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, object]] = {
    "auto": {},
    "loop": {"plan": "loop"},
    "batched": {"plan": "batched"},
    "features": {"plan": "features"},
    "recompute": {"store": "recompute"},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("name", ["linear", "ngdiff", "mgda", "mgda_ub", "graddrop"])
@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ([], ValueError, "features is empty: give what the shared trunk gave, or None"),
        ((), ValueError, "features is empty"),
        ("trunk", TypeError, "features must be a tensor or a sequence of tensors, found str"),
        ({"trunk": torch.ones(2)}, TypeError, "features must be a tensor or a sequence of tensors, found dict"),
        (iter([]), TypeError, "features must be a tensor or a sequence of tensors, found list_iterator"),
        ([None], ValueError, r"features\[0\] must be a tensor with a graph, found NoneType"),
    ],
)
def test_what_is_no_features_is_named(
    options: dict[str, object], name: str, features: object, error: type[Exception], message: str
) -> None:
    model = MultiHead(2)
    with pytest.raises(error, match=message):
        mtopt.backward(model.losses(), model, mtopt.create_combiner(name), features=features, **options)  # type: ignore[arg-type]
    assert all(param.grad is None for param in model.parameters())
