"""A diagnosis in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from mtopt._text import joined, visible
from mtopt.combiners import list_combiners
from mtopt.diagnosis._findings import PLAIN_SUM, Findings

_SCALE = 10.0  # norms that differ by more are worth a word
_CANCELLED = 0.25  # a step shorter than that, beside the gradients added up in it, is worth a word
_NAMED = 4  # so many names stand in one sentence


def tell(found: Findings) -> str:
    """What was found, how far it can be believed, and what to try."""
    parts = [_pairs(found), _chance(found), *_noise(found), *_layers(found), *_scale(found), *_rounding(found)]
    return "\n".join([*parts, *_under(found), _advice(found)])


def _pairs(found: Findings) -> str:
    lowest = found.pairs[0]
    between, value = _both(found, lowest), f"{found.cosines[lowest]:+.3f}"
    if len(found.pairs) == 1:
        stand = "conflict" if found.conflicting else "may conflict" if found.undecided else "do not conflict"
        return f"The gradients of {between} {stand}: their cosine is {value}."
    count = len(found.conflicting) + len(found.undecided)
    how = f"{count} of {len(found.pairs)} pairs of gradients conflict" if count else "No pair of gradients conflicts"
    unsure = f", {len(found.undecided)} of them no more than the noise may" if found.undecided else ""
    return f"{how}{unsure}; the most opposed are {between}, with cosine {value}."


def _chance(found: Findings) -> str:
    return (
        f"By chance alone, two directions in the {found.dimensions:,} shared dimensions have a cosine within "
        f"±{found.chance:.2g} (95 %)."
    )


def _noise(found: Findings) -> list[str]:
    if found.noise is None:
        return ["Nothing is known of the batch's noise: give a function and two or more batches."]
    lowest = found.pairs[0]
    low, high = found.noise.intervals[lowest]
    behind = found.noise.denoised[lowest]
    noisiest, share = max(
        (
            (n, s / found.norms[n] if found.norms[n] else 0.0)
            for n, s in zip(found.names, found.noise.norms, strict=True)
        ),
        key=lambda pair: pair[1],
    )
    told = f"From {found.batches} batches, that cosine is within [{low:+.3f}, {high:+.3f}] (95 %)"
    told += "" if behind != behind else f", and {behind:+.3f} with the noise taken out"
    return [f"{told}; the noise is up to {share:.0%} of a mean gradient ({_quoted([noisiest])})."]


def _layers(found: Findings) -> list[str]:
    if len(found.layers) < 2:
        return []
    layers = found.conflicting_layers()
    if not layers:
        return [f"In none of {len(found.layers)} layers do they conflict beyond chance."]
    most = ", ".join(f"{_quoted([layer.name])} ({layer.cosines.min():+.2f})" for layer in layers[:_NAMED])
    return [f"They conflict beyond chance in {len(layers)} of {len(found.layers)} layers, most in {most}."]


def _scale(found: Findings) -> list[str]:
    ordered = sorted(found.norms.items(), key=lambda pair: pair[1])
    (short, least), (long, most) = ordered[0], ordered[-1]
    if least == 0:
        return [f"The gradient of {_quoted([short])} is zero: it trains nothing that another loss trains."]
    told = f"The longest gradient, of {_quoted([long])} ({most:.3g}), is {found.ratio:.3g} times the shortest, of "
    return [f"{told}{_quoted([short])} ({least:.3g})."]


def _rounding(found: Findings) -> list[str]:
    if not found.rounding:
        return []
    whose = "gradients" if len(found.rounding) > 1 else "gradient"
    return [
        f"Beside the longest, the {whose} of {_quoted(found.rounding)} may be nothing but rounding, which a rule that "
        "normalises gradients blows up to the size of the others."
    ]


def _under(found: Findings) -> list[str]:
    under = found.under
    rising = under.rising
    does = f"raises {_quoted(rising)}" if rising else "raises none of the losses"
    told = f"A small step along {_step(under.rule)} {does} to first order"
    if under.weights is not None:
        length = sum(abs(weight) * found.norms[name] for name, weight in under.weights.items())
        left = under.norm / length if length > 0 else 1.0
        told += f"; the gradients cancel in it but for {left:.0%} of their lengths" if left < _CANCELLED else ""
    if under.weights is None or under.rule == PLAIN_SUM:
        return [f"{told}."]
    weights = ", ".join(f"{visible(n)} {w:.3g}" for n, w in list(under.weights.items())[:_NAMED])
    more = ", ..." if len(under.weights) > _NAMED else ""
    return [f"{told}; its weights are {weights}{more}."]


def _step(rule: str) -> str:
    return rule if rule == PLAIN_SUM else f"the direction of {visible(rule)}"


def _advice(found: Findings) -> str:
    if found.rounding:
        which = "they have gradients" if len(found.rounding) > 1 else "it has a gradient"
        return f"To do: look again after some steps without {_quoted(found.rounding)}, when {which} to look at."
    uneven = _SCALE < found.ratio < float("inf")
    if found.undecided and not found.conflicting:
        return "To do: larger batches, or more of them; so far the conflict may be noise."
    if not found.conflicting:
        if uneven:
            return "To do: tune the weights of a plain sum; the scales differ, and no rule has a conflict to solve."
        return "To do: add the losses up; no rule has anything to solve here."
    rules = ", ".join(list_combiners(non_conflicting=True)[:_NAMED])
    if found.under.rule == PLAIN_SUM and not found.under.rising:
        return "To do: add the losses up, with tuned weights; in spite of the conflict that lowers all of them."
    tune = "tune the weights of a plain sum first"
    return f"To do: {tune}; if a loss may not rise on the way, a rule that lets none rise ({rules}, ...)."


def _both(found: Findings, pair: tuple[int, int]) -> str:
    return f"{_quoted([found.names[pair[0]]])} and {_quoted([found.names[pair[1]]])}"


def _quoted(names: Sequence[str]) -> str:
    shown = [f"'{visible(name)}'" for name in names[:_NAMED]]
    return joined(shown) if len(names) <= _NAMED else f"{joined(shown)} and {len(names) - _NAMED} more"
