"""``mtopt.diagnose``: do these losses conflict, under any rule or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from mtopt._losses import Losses
from mtopt._replay import Generators, buffers_kept
from mtopt.autograd import trainable
from mtopt.combiners import Combiner
from mtopt.diagnosis._diagnosis import Diagnosis
from mtopt.diagnosis._examine import examine
from mtopt.diagnosis._rows import differentiate
from mtopt.linalg import Place

Params = nn.Module | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]


def diagnose(
    losses: Losses | Callable[[], Losses] | Callable[[Any], Losses],
    model: Params,
    *,
    batches: Sequence[Any] | None = None,
    combiner: Combiner | None = None,
) -> Diagnosis:
    """Measure how the losses' gradients stand to each other, in the whole model and in each layer. Nothing is trained.

    ::

        found = mtopt.diagnose({"left": left_loss, "right": right_loss}, model)
        found = mtopt.diagnose(lambda batch: losses_of(model, batch), model, batches=[half, other_half])
        print(found.verdict())
        found.plot().savefig("diagnosis.png")

    Args:
        losses: as :func:`mtopt.backward` takes them, two or more of them there; their graph is kept. Or, with
            ``batches``, a function of a batch that returns such.
        model: the module, its ``named_parameters()``, or bare parameters, each of which then counts as a layer.
        batches: two or more independent batches, of one size: the halves of one will do. The mean over them is
            diagnosed, and their differences tell the noise. Default: one batch, and nothing of noise.
        combiner: the rule to say something of, in the state it is in; it is left as it is. Default: a plain sum.

    ``.grad``, buffers, generators and the rule are as they were. Memory holds a gradient of each loss and batch. Which
    figures to believe stands in ``docs/which_rule.md``.

    Raises:
        TypeError, ValueError: a wrong argument; fewer than two losses; no parameter that two of them reach.
        NonFiniteError: a loss or a gradient is NaN or infinite.
    """
    if combiner is not None and not isinstance(combiner, Combiner):
        raise TypeError(f"combiner must be a Combiner or None, found {type(combiner).__name__}; create_combiner(name)")
    places = trainable(model)
    if batches is None:
        with _left_alone(places, model):
            made = losses() if callable(losses) else losses  # type: ignore[call-arg]
            return examine([differentiate(made, places, keep_graph=not callable(losses))], places, combiner)
    if not callable(losses):
        raise TypeError(f"with batches, losses must be a function of a batch, found {type(losses).__name__}")
    if isinstance(batches, str) or not isinstance(batches, Sequence) or len(batches) < 2:
        raise ValueError(
            "batches must be a list of two or more batches; for a single one give losses without batches, found "
            + (f"{len(batches)}" if isinstance(batches, Sequence) else type(batches).__name__)
        )
    with _left_alone(places, model):
        draws = [differentiate(losses(batch), places, keep_graph=False) for batch in batches]  # type: ignore[call-arg]
        return examine(draws, places, combiner)


@contextmanager
def _left_alone(places: Sequence[Place], model: object) -> Iterator[None]:
    """Afterwards all generators, and the buffers of all modules that were called, are as they were."""
    owners = [model] if isinstance(model, nn.Module) else []
    generators = Generators({place.parameter.device for place in places}, *owners)
    with ExitStack() as stack:
        stack.enter_context(generators.replayed())
        stack.enter_context(generators.recorded())
        stack.enter_context(buffers_kept())
        if owners:
            stack.enter_context(buffers_kept(*owners))
        yield
