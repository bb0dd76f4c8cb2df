"""Who reaches whom, told by the graph alone."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtopt.autograd._reach import reach_behind
from tests.autograd.helpers import MultiHead, Reference
from tests.autograd.test_direction import Branching


def reached(losses: list[torch.Tensor], params: list[torch.Tensor]) -> list[tuple[int, ...]]:
    found = reach_behind(losses)
    return [found.get(id(param), ()) for param in params]


def test_it_is_what_the_gradients_tell() -> None:
    for model in (MultiHead(3), Branching()):
        params = list(model.parameters())
        reach = Reference.of(model.losses, params).reach
        starts = torch.tensor([0, *[param.numel() for param in params]]).cumsum(0)[:-1]
        expected = [tuple(torch.nonzero(reach[:, start])[:, 0].tolist()) for start in starts]
        assert reached(model.losses(), params) == expected


def test_losses_that_are_parameters_or_one_another() -> None:
    a, b = (nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
    product = a * b
    assert reached([a, product, product, product.square()], [a, b]) == [(0, 1, 2, 3), (1, 2, 3)]


@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_any_graph(wanted: list[set[int]], seed: int) -> None:
    """Losses that use the given parameters through chains of shared intermediate results."""
    params = [nn.Parameter(torch.tensor(float(k + 1))) for k in range(5)]
    generator = torch.Generator().manual_seed(seed)
    chains = [[param] for param in params]
    for chain in chains:
        for _ in range(int(torch.randint(0, 4, (), generator=generator))):
            chain.append((chain[-1] * chain[0]).sin())
    losses = []
    for uses in wanted:
        picked = [chains[k][int(torch.randint(0, len(chains[k]), (), generator=generator))] for k in uses]
        losses.append(torch.stack(picked).sum())
    found = reached(losses, list(params))
    assert found == [tuple(j for j, uses in enumerate(wanted) if k in uses) for k in range(5)]
