"""Which colour, marker and line a rule, or any other series, is drawn with."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from zlib import crc32

from mtopt._errors import UnknownNameError

LineStyle = str | tuple[float, tuple[float, ...]]

# Okabe and Ito's palette without black, which the true front and the reference have, and without its yellow, hard
# to see as a thin line on white. The violet and the brown in their places were searched for: under no simulated
# colour blindness are they closer to another colour, or to black, than those of the palette are to one another.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6605C7", "#664019")
NEUTRAL = "#585858"
"""The grey of static scalarization: as far from the colours and from black, under each sight, as those from another."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "*", "h", "d")
LINESTYLES: tuple[LineStyle, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)),
    (0, (4, 1.2, 1.2, 1.2, 1.2, 1.2)),
    (0, (2.5, 1)),
)

_RULES = (
    *("linear", "mgda", "pcgrad", "cagrad", "nash_mtl", "imtl_g", "upgrad", "ngdiff", "stch"),
    *("famo", "fairgrad", "config", "aligned_mtl", "gradvac", "dualproj", "db_mtl", "moco"),
    *("uw", "dwa", "rlw", "si", "gradnorm", "graddrop", "imtl_l", "gls", "tchebycheff", "moco_plus", "modo", "sdmgrad"),
    *("mgda_ub", "excess_mtl", "loss_ngdiff", "gem", "epo", "pareto_mtl", "pmgda", "ferero", "asf", "pbi", "cosmos"),
    *("blur", "gru", "hamu", "munba", "pcd", "krum", "trimmed_mean", "conicgrad", "go4align", "gradops", "ldc_mtl"),
    *("mmpareto", "mstgd_style", "raco", "sago"),
)
"""A rule's place here is its look: the commonest first, each with a colour of its own. A new rule goes to the end."""

_OTHERS = range(96, 728)
"""Places of names that are no rule of mtopt: no look of ``_RULES`` is among them, nor one look twice."""


@dataclass(frozen=True)
class Style:
    """How one rule is drawn: a colour, a marker and a line style, each as matplotlib takes it."""

    color: str
    marker: str
    linestyle: LineStyle


def rule_styles(names: Iterable[str]) -> dict[str, Style]:
    """Gives every rule the look that it has in all figures, whichever rules are beside it.

    The rules of mtopt have fixed looks: no two share colour and marker, colour and line, or marker and line; the eight
    commonest beside ``linear`` differ in colour. ``linear`` is grey. An alias looks as its rule does. The look of any
    other name (a contestant, a rule of your own) follows from the name; where it shares its colour with another of
    ``names``, marker and line are changed to tell them apart.

    Args:
        names: the rules, by their registered names or any others.

    Returns:
        ``{name: Style}`` in the order of ``names``.

    Raises:
        ValueError: a name occurs twice, or ``names`` is a single string.
    """
    ordered = _checked(names)
    registered = {name: _registered(name) for name in ordered}
    known = {name: _rule_look(rule) for name, rule in registered.items() if rule in _RULES}
    others: dict[str, Style] = {}
    for rule in sorted(set(registered.values()) - set(_RULES)):  # whatever order they are given in
        others[rule] = _free_look(rule, [*known.values(), *others.values()])
    return {name: known[name] if name in known else others[rule] for name, rule in registered.items()}


def series_styles(names: Iterable[str]) -> dict[str, Style]:
    """Gives losses, points, libraries or whatever is no rule their looks, by position in ``names``.

    The cycles of 8 colours, 13 markers and 7 line styles have no common factor, so colour with marker differs for 104
    names, colour with line for 56, and marker with line, where there is no colour, for 91.

    Args:
        names: the names, in the order that fixes their looks.

    Returns:
        ``{name: Style}`` in the order of ``names``.

    Raises:
        ValueError: a name occurs twice, or ``names`` is a single string.
    """
    return {name: _look(place) for place, name in enumerate(_checked(names))}


def colors_apart(looks: Mapping[str, Style]) -> dict[str, Style]:
    """The same looks, but where two share a colour the second has the first one that none of them has."""
    taken = {look.color for look in looks.values()}
    found: dict[str, Style] = {}
    for name, look in looks.items():
        if look.color in {other.color for other in found.values()}:
            look = replace(look, color=next((color for color in COLORS if color not in taken), look.color))
        taken.add(look.color)
        found[name] = look
    return found


def styles_for(
    names: Iterable[str],
    styles: Mapping[str, Style] | None,
    default: Callable[[Iterable[str]], dict[str, Style]] = rule_styles,
) -> Mapping[str, Style]:
    """The styles of a figure: those given, which must cover ``names``, or else those of ``default``."""
    names = list(names)
    if styles is None:
        return default(names)
    missing = [name for name in names if name not in styles]
    if missing:
        raise ValueError(
            f"styles must have an entry for everything drawn; found none for {missing}: "
            f"build it with {default.__name__}(names) over all the names"
        )
    return styles


def _checked(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"names must be a sequence of names; found the string {names!r}: pass [{names!r}]")
    ordered = list(names)
    repeated = sorted({name for name in ordered if ordered.count(name) > 1})
    if repeated:
        raise ValueError(f"names must not repeat; found {repeated} more than once: remove the repeats")
    return ordered


def _registered(name: str) -> str:
    """The name under which a rule is registered; that of anything else as it is."""
    from mtopt.combiners import combiner_class

    try:
        return combiner_class(name).name
    except UnknownNameError:
        return name


def _look(place: int) -> Style:
    return Style(COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)], LINESTYLES[place % len(LINESTYLES)])


def _rule_look(rule: str) -> Style:
    look = _look(_RULES.index(rule))
    return replace(look, color=NEUTRAL) if rule == "linear" else look


def _free_look(name: str, taken: Iterable[Style]) -> Style:
    """The first look of the colour that follows from ``name`` which has least in common with those ``taken``."""
    beside = list(taken)

    def shared(look: Style) -> int:
        rivals = [other for other in beside if other.color == look.color]
        return sum((other.marker == look.marker) + (other.linestyle == look.linestyle) for other in rivals)

    start, step = crc32(name.encode("utf-8", "surrogatepass")), len(COLORS)
    looks = [_look(_OTHERS[(start + more) % len(_OTHERS)]) for more in range(0, len(_OTHERS), step)]
    return min(looks, key=shared)
