"""A page for each rule of the registry, made from its class: what it needs, costs and promises, and its direction."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import mtopt
from mtopt.combiners import combiner_class

from pages import FOLDER, write
from rule_figure import EXAMPLE_LOSSES, draw, example

PASSES = {
    "losses": "one backward pass of the weighted sum",
    "norms": "one backward pass per loss",
    "gramian": "one backward pass per loss",
    "jacobian": "one backward pass per loss",
}

NEEDED = {
    "losses": "the loss values",
    "norms": "the norms of the gradients",
    "gramian": "the inner products of the gradients",
    "jacobian": "the coordinates of the gradients",
}

TRAITS = {
    "non_conflicting": "no loss rises to first order, whatever the gradients",
    "scale_invariant": "multiplying a loss by a positive number changes at most the length of the direction",
    "matrix_free": 'can follow its weights below K backward passes (`plan="matrix_free"`)',
    "stateful": "carries a state from step to step, saved by `state_dict`",
    "stochastic": "draws random numbers, from a generator of its own",
    "reevaluates": "asks for the losses after the step",
    "revisits": "takes each batch's gradients at the parameters of the step before, too",
    "positive_losses": "refuses negative losses, such as that of an objective to maximise",
}


def promises(docs: Path) -> dict[str, list[str]]:
    """The rows of the table of promises in rules.md, by the rule's name."""
    rows = {}
    for line in (docs / "rules.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and (name := re.match(r"`(\w+)`", cells[0])):
            rows[name[1]] = cells[1:]
    return rows


def facts(rule: type[mtopt.Combiner]) -> list[str]:
    """What the class declares, as rows of a table."""
    cost = PASSES[rule.needs]
    if rule.draws > 1:
        cost = f"one backward pass per loss on each of {rule.draws - 1} mini-batches, and one weighted pass on the last"
    if rule.revisits:
        cost = "two backward passes per loss, at two points"
    rows = [("name", f"`{rule.name}`"), ("needs", NEEDED[rule.needs]), ("a step costs", cost)]
    if rule.exact_objectives is not None:
        rows.append(("objectives", f"exactly {rule.exact_objectives}"))
    rows += [("", text[0].upper() + text[1:]) for trait, text in TRAITS.items() if getattr(rule, trait)]
    for name, space in rule.search_space.items():
        kind, *values = space
        between = " to ".join(map(repr, values)) if kind != "choice" else ", ".join(map(repr, values))
        scale = " (logarithmic)" if kind == "log" else ""
        rows.append((f"a comparison tunes `{name}`", f"{between}{scale}"))
    named = [f"| {label} | {text} |" for label, text in rows]
    return ["| | |", "|---|---|", *named]


def standings(docs: Path) -> dict[str, dict[str, str]]:
    """The rows of the leaderboard, by the rule's name."""
    with (docs / "leaderboard" / "verdict.csv").open(encoding="utf-8", newline="") as file:
        return {row["rule"]: row for row in csv.DictReader(file)}


def standing(row: dict[str, str]) -> str:
    """A rule's row of the leaderboard in words."""
    found = [f"Place {row['place']} of {row['of']} by mean rank ({float(row['mean_rank']):.1f})."]
    if row["difference"]:
        share, ahead, tasks, p = (float(row[name]) for name in ("difference", "ahead", "tasks", "p_holm"))
        found.append(
            f"Beside tuned static scalarization: {100 * share:+.1f} % of hypervolume in the middle, ahead on "
            f"{ahead:.0f} of {tasks:.0f} tasks, p = {p:.2g} with Holm's correction."
        )
    if row["cost"] and row["rule"] != "linear":
        found.append(f"Its training took {float(row['cost']):.1f} times the CPU time.")
    return " ".join([*found, "See [the leaderboard](../../leaderboard.md)."])


def guarantee(row: list[str]) -> str:
    """The promise of a rule in words, with what was measured."""
    promise, unit, promised, *found = row
    return (
        f"Promised: {promise}, to {promised} of {unit} in float64 and float32. "
        f"The largest violation found: {found[0]} in float64, {found[1]} in float32, {found[2]} in bfloat16 "
        "([how it was measured](../../rules.md#what-is-promised-at-which-precision))."
    )


def slopes(rule: type[mtopt.Combiner]) -> list[str]:
    """The example in numbers: how fast a small step along minus the direction lowers each loss."""
    gradients, direction, names = example(rule)
    lines = ["| loss | value | norm of its gradient | product with d |", "|---|--:|--:|--:|"]
    for name, value, gradient in zip(names, EXAMPLE_LOSSES, gradients, strict=False):
        lines.append(
            f"| {name} | {value:g} | {float(gradient.norm()):.3g} | {float(gradient @ direction) + 0.0:+.2f} |"
        )
    return lines


INDEX = """\
# Rule by rule

What to know before choosing one is on [the page about rules](../../rules.md).

| rule | name | needs | what it does |
|---|---|---|---|
{rows}

{tree}
"""

PAGE = """\
# {name}

{facts}

```{{eval-rst}}
.. autoclass:: mtopt.{name}
```
{promise}{standing}
## Its direction

On {gradients}, in a first step, drawn as long as the longest gradient; its own length is {length:.3g}.
To first order a small step along minus d lowers each loss in proportion to the product of its gradient with d,
and raises it where this is negative.

![The gradients, and the direction of {name}]({rule}.svg)

{slopes}
"""


def page(rule: type[mtopt.Combiner], promised: dict[str, list[str]], placed: dict[str, dict[str, str]]) -> str:
    """The page in Markdown."""
    gradients, direction, _ = example(rule)
    three = len(gradients) == 3
    return PAGE.format(
        name=rule.__name__,
        rule=rule.name,
        facts="\n".join(facts(rule)),
        promise=f"\n## What it promises\n\n{guarantee(promised[rule.name])}\n" if rule.name in promised else "",
        standing=f"\n## On the leaderboard\n\n{standing(placed[rule.name])}\n" if rule.name in placed else "",
        gradients="the same three gradients as every rule" if three else "the first two gradients of other pages",
        length=float(direction.norm()),
        slopes="\n".join(slopes(rule)),
    )


def write_pages(app: Any) -> None:
    """Write every rule's page and figure, and the page that lists them."""
    promised, placed = promises(Path(app.srcdir)), standings(Path(app.srcdir))
    rules = [
        combiner_class(name) for name in mtopt.list_combiners() if combiner_class(name).__module__.startswith("mtopt.")
    ]
    for rule in rules:
        figure = Path(app.srcdir) / FOLDER / "rules" / f"{rule.name}.svg"
        if write(app, f"rules/{rule.name}.md", page(rule, promised, placed)) or not figure.exists():
            draw(rule, figure)
    rows = [f"| [{rule.__name__}]({rule.name}.md) | `{rule.name}` | {rule.needs} | {summary(rule)} |" for rule in rules]
    tree = "\n".join(["```{toctree}", ":hidden:", "", *(rule.name for rule in rules), "```"])
    write(app, "rules/index.md", INDEX.format(rows="\n".join(rows), tree=tree))


def summary(rule: type[mtopt.Combiner]) -> str:
    """The first line of a rule's docstring without its name, fit for a cell of a table."""
    head = " ".join((rule.__doc__ or "").strip().partition("\n\n")[0].split())
    text = head.split(": ", 1)[-1].replace("``", "`").replace("|", "\\|")
    return text[0].upper() + text[1:]


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
