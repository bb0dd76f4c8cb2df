"""The layers that parameters belong to."""

from __future__ import annotations

from collections.abc import Sequence

from mtopt.linalg import Place


def layers_of(places: Sequence[Place]) -> dict[str, list[int]]:
    """The positions in ``places`` of each layer's parameters, by its name: a module's; else one per parameter."""
    layers: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        name = f"parameter {place.position}" if place.name is None else place.name.rpartition(".")[0] or place.name
        layers.setdefault(name, []).append(index)
    return layers
