"""What a diagnosis found, in words and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtopt._text import html_text
from mtopt._views import html_table, number_text
from mtopt.diagnosis._findings import Findings
from mtopt.diagnosis._words import tell

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SHOWN = 8  # losses that a notebook shows


class Diagnosis(Findings):
    """How the gradients of K losses stand to each other; see :func:`mtopt.diagnose`.

    All of it is about the parameters that two or more of the losses reach. An objective to maximise is diagnosed with
    its sign flipped, as rules see it.

    Attributes:
        names: of the losses.
        losses: their values, in the user's sense.
        norms: of their gradients.
        cosines: (K, K), between these.
        dimensions: how many numbers are shared.
        private: how many numbers a single loss reaches: nothing can conflict there.
        chance: what the cosine of two random directions stays within in 95 % of draws.
        batches: how many were looked at.
        noise: the noise of the batches; None for a single one.
        layers: each by itself, in the model's order.
        rounding: losses whose gradient is no more than rounding beside the longest.
        under: what the rule makes of them; a plain sum where none was given.
    """

    def verdict(self) -> str:
        """What was found, and what to try, in sentences."""
        return tell(self)

    def plot(self) -> Figure:
        """The cosines, whole and by layer, against chance and noise; and the norms. Nobody shows the figure."""
        from mtopt.diagnosis._figure import draw  # matplotlib takes long to import

        return draw(self)

    def __repr__(self) -> str:
        worst = self.pairs[0]
        between = " and ".join(repr(self.names[k]) for k in worst)
        return (
            f"<Diagnosis of {len(self.names)} losses, {len(self.conflicting)} of {len(self.pairs)} pairs in conflict; "
            f"lowest cosine {self.cosines[worst]:+.3f} ({between}), norms differ {self.ratio:.3g} times>"
        )

    def _repr_html_(self) -> str:
        shown = range(min(len(self.names), _SHOWN))
        rows = []
        for k in shown:
            name = self.names[k]
            noise = None if self.noise is None else float(self.noise.norms[k])
            cells = [self.losses[name], self.norms[name], noise, self.under.slopes[name]]
            rows.append((name, *map(number_text, cells), *(f"{self.cosines[k, other]:+.2f}" for other in shown)))
        header = ("loss", "value", "gradient norm", "its noise", f"cos {self.under.rule}")
        table = html_table("diagnosis", (*header, *(f"cos {self.names[k]}" for k in shown)), rows)
        return table + "".join(f"<p>{html_text(line)}</p>" for line in self.verdict().splitlines())

    def __str__(self) -> str:
        return self.verdict()
