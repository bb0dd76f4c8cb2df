"""LDC-MTL against autograd and torch's Adam on the loss that it states."""

from __future__ import annotations

import pytest
import torch

from mtopt.combiners import LDCMTL


def total(losses: torch.Tensor, scores: torch.Tensor, tau: torch.Tensor, lam: float, price: str) -> torch.Tensor:
    sigma, m = scores.softmax(0), losses / tau
    priced = sigma * m if price == "shares" else m
    return (sigma * m).sum() + lam * (priced[:-1] - priced[1:]).abs().sum()


@pytest.mark.parametrize("price", ["shares", "raw"])
@pytest.mark.parametrize("normalize", ["initial", None])
def test_weights_and_scores_follow_the_joint_loss(price: str, normalize: str | None) -> None:
    rule = LDCMTL(lam=0.3, price=price, normalize=normalize, lr=0.05)  # type: ignore[arg-type]
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.05)
    steps = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    tau = steps[0] / steps[0].min() if normalize else torch.ones(3, dtype=torch.float64)
    for values in steps:
        losses = values.clone().requires_grad_()
        optimizer.zero_grad()
        total(losses, scores, tau, 0.3, price).backward()
        assert losses.grad is not None
        torch.testing.assert_close(rule.weights(values), losses.grad, rtol=1e-10, atol=1e-12)
        optimizer.step()
    assert rule._learned is not None
    torch.testing.assert_close(rule._learned["values"], scores.detach(), rtol=1e-9, atol=1e-12)


def test_the_first_step_with_equal_losses_is_the_mean() -> None:
    assert LDCMTL().weights(torch.full((4,), 2.0)).tolist() == pytest.approx([0.25] * 4)


def test_the_price_brings_the_shares_together() -> None:
    apart = []
    for lam in (0.0, 5.0):
        rule = LDCMTL(lam=lam, normalize=None, lr=0.05)
        losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
        for _ in range(200):
            rule.weights(losses)
        assert rule._learned is not None
        shares = rule._learned["values"].softmax(0) * losses
        apart.append(float((shares[0] - shares[1]).abs()))
    assert apart[1] < 0.1 * apart[0]


def test_an_absent_loss_keeps_its_score_and_its_first_value() -> None:
    rule = LDCMTL(lr=0.1)
    rule.weights(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    assert rule._learned is not None
    before = rule._learned["values"]
    rule.weigh(torch.tensor([1.0, 3.0], dtype=torch.float64), [0, 2], 3)
    assert float(rule._learned["values"][1]) == float(before[1])
    assert rule._initial is not None
    assert rule._initial.tolist() == [1.0, 2.0, 4.0]


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="needs every loss > 0"):
        LDCMTL().weights(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="normalize must be 'initial' or None"):
        LDCMTL(normalize="mean")  # type: ignore[arg-type]
