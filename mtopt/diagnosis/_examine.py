"""From the gradients of one or several batches to a diagnosis."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from mtopt._losses import Objective
from mtopt.combiners import Combiner, Gradients, Outcome
from mtopt.diagnosis._diagnosis import Diagnosis
from mtopt.diagnosis._findings import PLAIN_SUM, Layer, Under
from mtopt.diagnosis._layers import layers_of
from mtopt.diagnosis._rounding import is_rounding, unit_of
from mtopt.diagnosis._rows import BatchRows, Row
from mtopt.diagnosis._statistics import Array, chance_level, cosines_of, mean_gramian, read_noise
from mtopt.linalg import Place

_Rows = Sequence[Sequence[Sequence[torch.Tensor]]]
"""A tensor a parameter for each loss and batch."""


class NothingToCompareError(ValueError):
    """There are no two losses that reach one parameter."""


def examine(draws: Sequence[BatchRows], places: Sequence[Place], combiner: Combiner | None) -> Diagnosis:
    """The diagnosis of the mean over ``draws``; a loss that is absent from one of them adds nothing to it there.

    Raises:
        ValueError: other losses in one batch than in another.
        NothingToCompareError: fewer than two losses, or nothing that two of them reach.
    """
    objectives, present = _present(draws)
    reach = [sum(any(_reaches(draw, k, p) for draw in draws) for k in present) for p in range(len(places))]
    shared = [p for p, count in enumerate(reach) if count > 1]
    if not shared:
        raise NothingToCompareError(
            "no parameter is reached by two of the losses, so that nothing can conflict; give the model that they share"
        )
    names = [objectives[k].name for k in present]
    rows = [[_filled(draw.rows.get(k), places) for k in present] for draw in draws]
    layers, products = _by_layer(rows, places, set(shared))
    gramian, size = mean_gramian(products), _size(places, shared)
    norms = np.sqrt(np.maximum(gramian.diagonal(), 0.0))
    whole = all(k in draw.rows for draw in draws for k in present)
    unit = max(unit_of(places[p].parameter.dtype) for p in shared)
    values = [float(np.mean([draw.values[k] for draw in draws if k in draw.values])) for k in present]
    if combiner is None:
        under = _of_weights(PLAIN_SUM, names, np.ones(len(names)), gramian)
    else:
        about = {"objectives": present, "total": len(objectives), "places": [places[p] for p in shared]}
        kept = [[[row[p] for p in shared] for row in batch] for batch in rows]
        batches = [Gradients(batch, **about) for batch in kept]  # type: ignore[arg-type]
        mean = batches[0] if len(batches) == 1 else Gradients(_mean(kept), **about)  # type: ignore[arg-type]
        signed = [value * objectives[k].sign for k, value in zip(present, values, strict=True)]
        under = _under(combiner, names, mean, batches, signed)
    return Diagnosis(
        names=tuple(names),
        losses=dict(zip(names, values, strict=True)),
        norms=dict(zip(names, norms.tolist(), strict=True)),
        cosines=cosines_of(gramian),
        dimensions=size,
        private=_size(places, [p for p, count in enumerate(reach) if count == 1]),
        chance=chance_level(size),
        batches=len(draws),
        noise=read_noise(products) if len(draws) > 1 and whole else None,
        layers=tuple(layers),
        rounding=tuple(
            name
            for name, norm, value in zip(names, norms, values, strict=True)
            if is_rounding(norm, norms.max(), value, unit)
        ),
        under=under,
    )


def _present(draws: Sequence[BatchRows]) -> tuple[list[Objective], list[int]]:
    """The objectives, and which of them some batch has."""
    objectives = draws[0].objectives
    if any(draw.objectives != objectives for draw in draws):
        several = [[objective.name for objective in draw.objectives] for draw in draws]
        raise ValueError(f"all batches must have the same losses, found {several}; give None for one that is absent")
    present = [k for k in range(len(objectives)) if any(k in draw.rows for draw in draws)]
    if len(present) < 2:
        found = [objectives[k].name for k in present]
        raise NothingToCompareError(f"losses must be two or more to conflict, found {found}")
    return objectives, present


def _by_layer(rows: _Rows, places: Sequence[Place], shared: set[int]) -> tuple[list[Layer], Array]:
    """Each layer by itself, and the products (B, K, B, K) over all of them."""
    shape = (len(rows), len(rows[0]))
    layers, total = [], np.zeros((*shape, *shape))
    for name, indices in layers_of(places).items():
        if within := [p for p in indices if p in shared]:
            every = [[row[p] for p in within] for batch in rows for row in batch]
            products = np.asarray(Gradients(every).gramian.numpy(), dtype=np.float64).reshape(total.shape)
            gramian, size = mean_gramian(products), _size(places, within)
            norms = np.sqrt(np.maximum(gramian.diagonal(), 0.0))
            layers.append(Layer(name, size, tuple(norms.tolist()), cosines_of(gramian), chance_level(size)))
            total += products
    return layers, total


def _reaches(draw: BatchRows, k: int, parameter: int) -> bool:
    return k in draw.rows and draw.rows[k][parameter] is not None


def _filled(row: Row | None, places: Sequence[Place]) -> list[torch.Tensor]:
    """Zeros, which take no memory, where a loss does not reach."""
    found = []
    for p, place in enumerate(places):
        tensor = None if row is None else row[p]
        if tensor is None:
            like = torch.view_as_real(place.parameter) if place.parameter.is_complex() else place.parameter
            tensor = like.detach().new_zeros(()).expand(like.shape)
        found.append(tensor)
    return found


def _size(places: Sequence[Place], indices: Sequence[int]) -> int:
    return sum(places[p].parameter.numel() * (2 if places[p].parameter.is_complex() else 1) for p in indices)


def _of_weights(rule: str, names: Sequence[str], weights: Array, gramian: Array) -> Under:
    """What the combination with these weights does to each loss, from the inner products alone."""
    ahead = gramian @ weights
    norm = max(float(weights @ ahead), 0.0) ** 0.5
    return Under(rule, dict(zip(names, weights.tolist(), strict=True)), norm, _slopes(names, gramian, ahead, norm))


def _slopes(names: Sequence[str], gramian: Array, ahead: Array, norm: float) -> dict[str, float]:
    """The cosine of each gradient with the direction."""
    lengths = np.sqrt(np.maximum(gramian.diagonal(), 0.0)) * norm
    slopes = np.where(lengths > 0, ahead / np.where(lengths > 0, lengths, 1.0), 0.0)
    return dict(zip(names, np.clip(slopes, -1.0, 1.0).tolist(), strict=True))


def _under(
    combiner: Combiner, names: Sequence[str], mean: Gradients, batches: Sequence[Gradients], losses: Sequence[float]
) -> Under:
    """What a copy of the rule makes of the mean gradients."""
    rule = copy.deepcopy(combiner)
    outcome = _asked(rule, mean, batches, torch.tensor(losses, dtype=torch.float64))
    told, gramian = rule.name or repr(rule), np.asarray(mean.gramian.numpy(), dtype=np.float64)
    weights = None if outcome.weights is None else outcome.weights.tolist()
    if outcome.direction is None:
        assert weights is not None
        return _of_weights(told, names, np.array(weights), gramian)
    direction = outcome.direction.double()
    flat = [torch.cat([tensor.reshape(-1) for tensor in row]) for row in mean.rows]
    ahead = np.array([float(row.double() @ direction.to(row.device)) for row in flat])
    norm = float(direction.norm())
    named = None if weights is None else dict(zip(names, weights, strict=True))
    return Under(told, named, norm, _slopes(names, gramian, ahead, norm))


def _asked(rule: Combiner, mean: Gradients, batches: Sequence[Gradients], losses: torch.Tensor) -> Outcome:
    if rule.revisits:
        raise ValueError(f"{rule!r} looks at gradients at two points, and a diagnosis is of one; leave combiner out")
    if rule.draws == 1:
        return rule.combine(mean, losses)
    if len(batches) < rule.draws:
        raise ValueError(f"{rule!r} takes {rule.draws} independent batches, found {len(batches)}; give as many batches")
    return rule.combine_draws(batches[: rule.draws], losses)


def _mean(rows: _Rows) -> list[list[torch.Tensor]]:
    count = len(rows[0])
    return [
        [torch.stack(tensors).mean(dim=0) for tensors in zip(*(b[k] for b in rows), strict=True)] for k in range(count)
    ]
