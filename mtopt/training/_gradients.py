"""From the batches of one step to ``.grad``, and the losses of these batches once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mtopt._losses import Losses, NoLossError, Objective, read_losses, run_loss, run_losses, without_nan
from mtopt._replay import Generators, buffers_kept, second_look
from mtopt.autograd import JacobianAccumulator, MatrixFree, StepRecord, as_matrix_free, backward, nothing_present
from mtopt.distributed import reshard, unwrapped
from mtopt.training._protocol import LossSource, Stepping


def step_gradients(trainer: Stepping, batch: Any) -> StepRecord:
    """The rule's direction in ``.grad``, from one batch or from the several that the step takes."""
    rule = trainer.combiner
    scaler = trainer.precision.scaler
    options: dict[str, Any] = {"private": trainer.private, "strict": trainer.strict}
    params = _named_params(trainer)
    trainer.features = None
    try:
        if trainer.accumulate > 1:
            return _accumulated(trainer, batch, params, scaler).combine(rule, **options)
        options["scaler"] = scaler
        free = as_matrix_free(trainer.plan, None, trainer.store)
        plan = trainer.plan if free is None or not trainer.needs_graph else replace(free, needs_graph=True)
        options |= {"plan": plan, "store": trainer.store}
        if rule.draws > 1:  # each is run, differentiated and freed in turn
            draws = [_repeatable(trainer, one, free) if free else partial(_losses_alone, trainer, one) for one in batch]
            return backward(draws, params if free is None else trainer.model, rule, **options)
        if free is not None or rule.revisits:  # the losses are run again, with other parameters in the model
            again = _repeatable(trainer, batch, free)
            return backward(again, params if free is None else trainer.model, rule, **options)
        losses = losses_of(trainer, batch)
        return backward(losses, params, rule, features=trainer.features, **options)
    except NoLossError:
        if trainer.absent is None:
            raise
        return nothing_present()
    finally:
        trainer.features = None  # it would keep activations alive


def batches_of(trainer: Stepping, batch: Any) -> Sequence[Any]:
    """The batches of one step, whose ``batch`` is a list only where it takes several."""
    return batch if trainer.batches_per_step > 1 else [batch]


def losses_of(trainer: LossSource, batch: Any) -> Losses:
    """The trainer's losses of one batch, computed in its precision, with the parameters as they are now."""
    reshard(trainer.model)
    with trainer.precision.autocast():
        losses = trainer.losses(batch)
    losses = trainer.precision.wrapped(losses)
    return losses if trainer.absent is None else without_nan(losses)


def generators_of(trainer: LossSource) -> Generators:
    """The generators that the losses may draw from, as they are now."""
    return Generators.of(trainer.model, trainer)


def mean_losses(trainer: LossSource, batches: Sequence[Any]) -> dict[Objective, float]:
    """The losses as they are now: means over ``batches``, in the user's sense. It leaves no trace."""
    objectives, means = _means(trainer, batches, generators_of(trainer))
    return {objectives[k]: mean for k, mean in means.items()}


def reevaluate(trainer: LossSource, batches: Sequence[Any], generators: Generators) -> None:
    """Show the rule the losses of the step's batches after the step, with the random numbers of before."""
    objectives, means = _means(trainer, batches, generators)
    values = [mean * objectives[k].sign for k, mean in means.items()]
    trainer.combiner.reevaluate(torch.tensor(values, dtype=torch.float64), list(means))


def _means(
    trainer: LossSource, batches: Sequence[Any], generators: Generators
) -> tuple[Sequence[Objective], dict[int, float]]:
    """The objectives, and the mean of each loss that is there, by its position: over the ranks that have it, too.

    A loss that is absent from a batch adds nothing there, as in :class:`mtopt.JacobianAccumulator`.
    """
    objectives: Sequence[Objective] = []
    totals: dict[int, float] = {}
    with second_look(trainer, generators=generators, needs_graph=trainer.needs_graph):
        for batch in batches:
            losses = losses_of(trainer, batch)
            objectives, _ = read_losses(losses, some=False)
            for k, _, value in run_losses(losses):
                totals[k] = totals.get(k, 0.0) + float(value.detach())
    trainer.features = None
    means = {k: totals[k] / len(batches) for k in sorted(totals)}
    return objectives, trainer.processes.means(means, len(objectives))


def _losses_alone(trainer: LossSource, batch: Any) -> Losses:
    losses = losses_of(trainer, batch)
    trainer.features = None  # they belong to one batch, and the rule takes several
    return losses


def _repeatable(trainer: LossSource, batch: Any, free: MatrixFree | None) -> Callable[[], Losses]:
    """The losses of a batch as a callable that draws the same numbers from the trainer's own generators each time.

    A matrix-free step, which keeps the model's buffers, has those of the trainer's other modules kept here.
    """
    modules = [value for value in vars(trainer).values() if isinstance(value, torch.nn.Module)]
    outside = [module for module in modules if free is not None and module is not trainer.model]
    generators: Generators | None = None

    def losses() -> Losses:
        nonlocal generators
        if generators is None:
            generators = generators_of(trainer)
            return _losses_alone(trainer, batch)
        with generators.replayed(), buffers_kept(*outside) if outside else nullcontext():
            return _losses_alone(trainer, batch)

    return losses


def _accumulated(trainer: Stepping, batches: Sequence[Any], params: Any, scaler: Any) -> JacobianAccumulator:
    """The gradients of the mean over ``batches``; the graph of each is freed before the next is made."""
    accumulator: JacobianAccumulator | None = None
    some = trainer.absent is None and not trainer.processes.several  # another rank may have what this one lacks
    for batch in batches:
        objectives, losses = read_losses(_losses_alone(trainer, batch), some=some)
        if accumulator is None:
            accumulator = JacobianAccumulator(params, objectives, scaler=scaler)
        elif accumulator.objectives != objectives:
            raise ValueError(
                f"the batches of one step must have the same objectives, found {_names(accumulator.objectives)} and "
                f"{_names(objectives)}; give None for a loss that is absent from a batch"
            )
        shared = [k for k, loss in enumerate(losses) if isinstance(loss, torch.Tensor)]
        for k, loss in enumerate(losses):
            value = run_loss(loss)
            if value is not None:
                accumulator.add(k, value / len(batches), retain_graph=k in shared[:-1])
    assert accumulator is not None
    return accumulator


def _named_params(trainer: Stepping) -> list[tuple[str, torch.nn.Parameter]]:
    reshard(trainer.model)  # which has names for what the optimizer holds
    names = {id(param): name for name, param in unwrapped(trainer.model).named_parameters()}
    trained = [param for group in trainer.optimizer.param_groups for param in group["params"]]
    return [(names.get(id(param), f"extra_{index}"), param) for index, param in enumerate(trained)]


def _names(objectives: Sequence[Objective]) -> list[str]:
    return [objective.name for objective in objectives]
