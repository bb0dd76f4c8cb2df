"""Wrong use gets one clear exception: the argument, what was found, what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt import Objective
from tests.autograd.helpers import FIVE, MultiHead

RULE = mtopt.create_combiner("mgda")


def graph() -> torch.Tensor:
    return torch.ones(2, requires_grad=True).sum()


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        ([], ValueError, "losses holds no loss: it is empty; skip this batch"),
        ({}, ValueError, "losses holds no loss: it is empty"),
        ([None, None], ValueError, r"losses holds no loss: \['loss_0', 'loss_1'\]"),
        (
            torch.ones((), requires_grad=True),
            TypeError,
            r"found Tensor of shape \(\); give one of shape \(K,\), or \[loss\]",
        ),
        (torch.ones(2, 2, requires_grad=True), TypeError, r"found Tensor of shape \(2, 2\); give one of shape \(K,\)"),
        (lambda: [None, None], ValueError, r"losses holds no loss: \['loss_0', 'loss_1'\]"),
        ({1.0, 2.0}, TypeError, "losses must be a sequence or a mapping of scalar tensors, found set"),
        (3.0, TypeError, "losses must be a sequence or a mapping of scalar tensors, found float"),
        ([1.0], TypeError, "loss 'loss_0' must be a scalar tensor, a callable that returns one, or None, found float"),
        ({"a": "b"}, TypeError, "loss 'a' must be a scalar tensor, .* found str"),
        ({0: None}, TypeError, "the name of an objective must be a string, found 0"),
        ({"a": None, Objective("a", "max"): None}, ValueError, r"distinct names, found \['a', 'a'\]"),
    ],
)
def test_wrong_losses(losses: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mtopt.backward(losses, [nn.Parameter(torch.ones(2))], RULE)


@pytest.mark.parametrize("name", FIVE)
def test_a_loss_that_is_no_scalar_or_has_no_graph(name: str) -> None:
    model, rule = MultiHead(2), mtopt.create_combiner(name)
    with pytest.raises(ValueError, match=r"loss 'b' must be a scalar, found shape \(9, 5\); reduce it"):
        mtopt.backward({"a": model.losses()[0], "b": model.features()}, model, rule)
    with pytest.raises(ValueError, match=r"loss 'b' has no graph: .*torch\.no_grad, or detached"):
        mtopt.backward({"a": model.losses()[0], "b": model.losses()[1].detach()}, model, rule)
    with pytest.raises(ValueError, match=r"loss 'b' has no graph: .* give None where it is absent from this batch"):
        mtopt.backward({"a": model.losses()[0], "b": torch.zeros(())}, model, rule)
    with torch.no_grad(), pytest.raises(ValueError, match="loss 'loss_0' has no graph"):
        mtopt.backward(model.losses(), model, rule)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", FIVE)
def test_parameters_that_no_loss_reaches(name: str) -> None:
    model, rule = MultiHead(2), mtopt.create_combiner(name)
    elsewhere = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"reaches none of params|none of the losses .* reaches params"):
        mtopt.backward(model.losses(), [elsewhere], rule)


def test_a_loss_that_reaches_nothing_is_named_under_a_gradient_rule() -> None:
    model = MultiHead(2)
    elsewhere = torch.ones(2, requires_grad=True).sum()
    for features in (None, model.features()):
        shared = model.features() if features is None else features
        with pytest.raises(ValueError, match=r"loss 'b' reaches none of params: give the parameters .* or None"):
            mtopt.backward({"a": model.loss(0, shared), "b": elsewhere}, model, RULE, features=features)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "params holds no parameter that requires gradients"),
        ([torch.ones(2)], ValueError, "params holds no parameter that requires gradients; unfreeze some"),
        (torch.ones(2, requires_grad=True), TypeError, r"found one tensor; give \[tensor\]"),
        (torch.optim.SGD([torch.ones(2)]), TypeError, "found SGD; give the model"),
        ([{"params": [], "lr": 0.1}], TypeError, r"params\[0\] must be a tensor, found dict"),
        ([("name", 1.0)], TypeError, r"params\[0\] must be a tensor, found tuple"),
        ([2 * torch.ones(2, requires_grad=True)], ValueError, r"params\[0\] of shape \(2,\) is no leaf"),
    ],
)
def test_wrong_params(params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mtopt.backward([graph()], params, RULE)


def test_wrong_combiners() -> None:
    params = [nn.Parameter(torch.ones(2))]
    with pytest.raises(TypeError, match=r"found str; create it once, before the loop: mtopt.create_combiner\('mgda'\)"):
        mtopt.backward([graph()], params, "mgda")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"found a class; create it: MGDA\(\)"):
        mtopt.backward([graph()], params, mtopt.MGDA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="combiner must be a Combiner, found function"):
        mtopt.backward([graph()], params, lambda gramian: gramian)  # type: ignore[arg-type]

    class ThreeBatches(mtopt.GramianCombiner):
        draws = 3

        def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
            return torch.ones(len(gramian))

    with pytest.raises(
        ValueError, match=r"ThreeBatches\(\) takes 3 independent mini-batches per step: losses must be a seq"
    ):
        mtopt.backward([graph()], params, ThreeBatches())


def test_an_unknown_private() -> None:
    model = MultiHead(2)
    with pytest.raises(ValueError, match="private must be 'own', 'weighted' or 'combined', found 'mine'"):
        mtopt.backward(model.losses(), model, RULE, private="mine")  # type: ignore[arg-type]


def test_a_sparse_gradient() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    rows = table(torch.tensor([1, 2]))
    losses = {"a": rows.sum(), "b": rows.square().sum()}
    with pytest.raises(TypeError, match=r"loss 'a' has a sparse gradient of shape \(5, 3\).*sparse=False"):
        mtopt.backward(losses, table, RULE)
    assert table.weight.grad is None


def test_a_preference_for_another_number_of_losses() -> None:
    model = MultiHead(2)
    for name in ("linear", "ngdiff"):
        with pytest.raises(ValueError, match="preference has 3 entries for 2 objectives"):
            mtopt.backward(model.losses(), model, mtopt.create_combiner(name, preference=[0.2, 0.3, 0.5]))


def test_an_unknown_sense() -> None:
    with pytest.raises(ValueError, match="sense of objective 'a' must be 'min' or 'max', found 'maximise'"):
        Objective("a", "maximise")  # type: ignore[arg-type]


def test_a_rule_that_raises_leaves_grad_as_it_was() -> None:
    """Also where the first of two groups of parameters went well."""

    class OnlyThree(mtopt.GramianCombiner):
        def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
            if len(gramian) < 3:
                raise ArithmeticError("two are too few")
            return torch.ones(len(gramian))

    by_three, by_two = (nn.Parameter(torch.ones(2)) for _ in range(2))
    losses = [by_three.sum() + by_two.sum(), by_three.prod() + by_two.prod(), by_three.square().sum()]
    with pytest.raises(ArithmeticError):
        mtopt.backward(losses, [by_three, by_two], OnlyThree())
    assert by_three.grad is None
    assert by_two.grad is None


def test_a_rule_on_losses_trains_complex_parameters() -> None:
    param = nn.Parameter(torch.tensor([1.0 + 2.0j, 3.0 - 1.0j]))
    losses = [param.abs().square().sum(), 3.0 * param.abs().square().sum()]
    mtopt.backward(losses, [param], mtopt.create_combiner("mean"))
    assert param.grad is not None
    torch.testing.assert_close(param.grad, 4.0 * param.detach())  # torch's convention: 2 z for |z|²
