"""Whose the coordinates are that a rule keeps something of from step to step: a checkpoint of shards asks."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mtopt.combiners import Combiner


def kept_by_coordinate(rule: Combiner, names: Mapping[int, str]) -> list[dict[str, object]]:
    """What the state of a rule holds by coordinate, and of which parameters.

    Args:
        rule: a rule that has made steps in this process; of others nothing is known.
        names: of the parameters, by their id.

    Returns:
        Dictionaries of ``at``, the keys to an entry of ``rule.state_dict()``; ``parameters``, the names of those whose
        coordinates it has; and whether these are ``rows``, one parameter after the other, or in the shape of a single
        one.
    """
    found = []
    for keys, each in [((), rule), *((("groups", key), each) for key, each in rule.rules_of_groups.items())]:
        if not each.shardable:  # its rows are whole wherever it is asked
            continue
        if of := _named(each.owners.coordinates, names):
            entries = each.entries_by_coordinate()
            found += [{"at": [*keys, *entry], "parameters": of, "rows": True} for entry in entries]
        if (of := _named(each.owners.visited, names)) and each.visited is not None:
            visited = (*keys, "state", "visited")
            found += [{"at": [*visited, n], "parameters": [name], "rows": False} for n, name in enumerate(of)]
    return found


def note_kept(rule: Combiner, kept: Sequence[Mapping[str, Any]], params: Mapping[str, torch.Tensor]) -> None:
    """What :func:`kept_by_coordinate` has told of the rule whose state this one has loaded."""
    visited: dict[Combiner, list[torch.Tensor]] = {}
    for entry in kept:
        of = [params[name] for name in entry["parameters"]]
        owner = rule.rules_of_groups[entry["at"][1]] if entry["at"][0] == "groups" else rule
        if entry["rows"]:
            owner.owners.note_coordinates(of)
        else:
            visited.setdefault(owner, []).extend(of)
    for owner, of in visited.items():
        owner.owners.note_visited(of)


def _named(noted: Sequence[weakref.ref[torch.Tensor]], names: Mapping[int, str]) -> list[str] | None:
    """None where nothing is noted, or one of the parameters is not among the names."""
    found = [names.get(id(reference())) for reference in noted]
    return None if not found or None in found else [name for name in found if name is not None]
