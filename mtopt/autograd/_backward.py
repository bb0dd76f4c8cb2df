"""``mtopt.backward``: what stands in a training loop instead of ``loss.backward()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mtopt.autograd._combine import combine_rows
from mtopt.autograd._draws import Draws, combine_draws
from mtopt.autograd._hints import Hints
from mtopt.autograd._keeping import STAYS_APART, kept_in_matrix, kept_short
from mtopt.autograd._matrix_free import MatrixFree, follow_weights, matrix_free
from mtopt.autograd._matrix_free_draws import follow_draws
from mtopt.autograd._objective import Losses
from mtopt.autograd._plans import Plan, Store, check_plan, logged, may_recompute, rows_fit
from mtopt.autograd._recompute import ALIVE, recompute
from mtopt.autograd._record import StepRecord
from mtopt.autograd._representation import weigh_representation
from mtopt.autograd._request import Features, Request, check_features, source_of
from mtopt.autograd._revisits import combine_revisited
from mtopt.autograd._rows import Params, trainable
from mtopt.autograd._step import Private, Step
from mtopt.autograd._streaming import is_streamed, remember, stream
from mtopt.autograd._weighted import keep_weights, weigh_losses
from mtopt.combiners import Combiner
from mtopt.linalg import Place


@Hints()
def backward(
    losses: Losses | Draws | Callable[[], Losses],
    params: Params,
    combiner: Combiner,
    *,
    features: Features = None,
    scaler: Any = None,
    private: Private | None = None,
    strict: bool = False,
    plan: Plan | MatrixFree = "auto",
    store: Store = None,
) -> StepRecord:
    """Differentiate K losses, combine their gradients by a rule, and add the direction to ``.grad``.

    It stands where ``loss.backward()`` stood; the optimizer, clipping and schedulers stay as they are::

        record = mtopt.backward({"retain": retain_loss, "forget": -forget_loss}, model.parameters(), combiner)
        optimizer.step()

    Args:
        losses: a sequence, or a mapping from names (or :class:`Objective`) to losses. A loss is a scalar tensor (all
            on one graph, say); or a callable that returns one, which is run, differentiated and freed before the
            next, so that losses on separate batches never hold their activations together; or None when it is absent
            from this batch. A rule on several draws (``combiner.draws`` > 1) takes a sequence of as many such
            collections, each of an independent mini-batch and with the same objectives, or of callables that return
            them: K backwards on each but the last, one weighted backward on that.
        params: the parameters to fill: a module, its ``named_parameters()``, or bare parameters, which a rule that
            tells layers apart cannot do with. Frozen ones are left alone, and so are those that no loss reaches.
        combiner: the rule. Create it once, before the loop: it may carry state from step to step.
        features: the shared trunk's output, or several. The heads are then differentiated once each and only the
            trunk K times; the parameters behind ``features`` are the shared ones. The direction is the same as
            without.
        scaler: a ``torch.amp.GradScaler``. Losses are scaled, the rule sees unscaled gradients, ``.grad`` is scaled
            as the scaler expects. Clip after ``scaler.unscale_(optimizer)``, as always.
        private: what a parameter gets that only one loss reaches, such as a task's head. ``"own"``: that loss's
            gradient, unweighted (default for rules on gradients). ``"weighted"``: times the loss's weight (default
            for rules on losses). ``"combined"``: it counts as shared, with zero gradients from the other losses.
        strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
        plan: how the gradients of a rule on gradients are made. All but ``"features"`` and ``"matrix_free"`` give the
            same direction. (A rule on losses takes one weighted backward, and kept weights do, whatever is said here.)

            - ``"auto"``: a backward a loss, on every device. A batched one takes 0.95 to 1.5 times as long on a CPU; an
              accelerator may do a small model faster in a batch, which nothing that is known before a step tells: try
              it. Rows are kept (many small tensors in one matrix), but for two cases: three or more losses of a rule
              that weighs each gradient by its own norm (NGDiff) are added up as they come where K gradients are more
              than 16 MiB, or with ``store="recompute"``: two gradients of memory whatever K, and the record then has no
              ``cosines``; and where K gradients do not fit in the free memory of a CUDA device, as
              ``store="recompute"``.
            - ``"loop"``: a backward a loss, and all rows are kept.
            - ``"batched"``: one backward for all losses by ``torch.vmap``. It takes K times the memory of a backward's
              temporaries and leaves the graph to be freed with the losses. Where vmap cannot go (compiled modules,
              custom functions without a batching rule, RNNs on GPUs) the rows are made in a loop, and the record says
              why.
            - ``"features"``: the rule is fed the gradients with respect to ``features`` in place of those of the
              parameters behind them, and one weighted backward of the trunk follows, whatever K. That is another
              direction, a bound as in MGDA-UB (which takes this plan by itself), for rules on norms and inner products.
              Where a loss reaches the trunk around ``features``, rows of the parameters are made, and the record says
              why.
            - ``"matrix_free"``, or a :class:`MatrixFree` with settings: one weighted backward and one product with the
              Gramian, whatever K, for the rules that declare ``matrix_free``. They follow their weights from step to
              step, and the record's ``certificate`` holds their error. The forward is run twice: ``losses`` is a
              callable that returns the losses of the batch (or a collection of callables), and ``params`` the module.
        store: in what form the gradients are kept until all are there. None: as they are. ``torch.bfloat16`` or
            ``torch.float16``: in 16 bits (8 or 11 digits of 2; float16 rows scaled to fit), with inner products in
            float32 and sums in float64 as ever. ``"recompute"``, for rules on norms and inner products of losses given
            as tensors: no row is kept. The inner products are made of some parameters at a time, in memory of two
            gradients or K times the largest parameter, and one backward of the weighted losses follows: about
            ``K (1 + (ceil(K / 2) - 1) / 4) + 1`` backwards in all, 6 at K = 4 and 15 at K = 8. One or two losses are
            kept, being no more.

    A parameter that some but not all of the losses reach gets the rule applied to those rows, with a state of its own.
    A parameter counts as private by the losses of this step alone.

    Returns:
        The step's record. On a NaN or infinite loss or gradient, or where finite ones add up to a direction that is
        not, it says ``skipped``: ``.grad`` (but for what a GradScaler must see) and the rule's state are as they were.
        What ``.grad`` holds after a step is finite, what was there before included.

    Raises:
        TypeError, ValueError: a wrong argument, named, with what was found and what to do.
        NonFiniteError: in strict mode, naming the objectives.
    """
    check_rule(combiner, private)
    check_features(features)
    free = matrix_free(plan, features, store)
    if free is not None:
        refuse_ranks()
        follow = follow_weights if combiner.draws == 1 else follow_draws
        return logged(follow(losses, params, combiner, free, scaler=scaler, private=private or "own", strict=strict))
    check_plan(plan, store, combiner)
    refuse_ranks()
    places = trainable(params)
    return logged(_step(losses, places, combiner, features, scaler, private, strict, plan, store))  # type: ignore[arg-type]


def _step(
    losses: Losses | Draws,
    places: Sequence[Place],
    combiner: Combiner,
    features: Features,
    scaler: Any,
    private: Private | None,
    strict: bool,
    plan: Plan,
    store: Store,
) -> StepRecord:
    if combiner.draws > 1:
        if features is not None:
            raise ValueError(
                f"features belong to one mini-batch, and {combiner!r} takes {combiner.draws}; leave it out"
            )
        return combine_draws(losses, places, combiner, scaler=scaler, private=private or "own", strict=strict)
    if combiner.revisits:
        if features is not None or plan not in ("auto", "loop") or store is not None:
            raise ValueError(
                f"{combiner!r} takes a backward a loss at each of two points; leave features, plan and store out"
            )
        return combine_revisited(losses, places, combiner, scaler=scaler, private=private or "own", strict=strict)  # type: ignore[arg-type]
    request = Request(losses, places, scaler)  # type: ignore[arg-type]  # several draws are refused there by name
    if combiner.needs == "losses" and private in (None, "weighted"):
        if request.all_tensors:
            return weigh_losses(request, combiner, strict)
        private = "combined"  # a weighted sum of whole rows is what the weighted backward gives
    private = private or "own"
    kept = keep_weights(request, combiner, features, private, strict)
    if kept is not None:
        return kept
    if plan == "features" and (features is None or not request.all_tensors):
        raise ValueError(
            "plan='features' weighs by the gradients of a representation: give features, the trunk's output, and "
            "losses that were computed from it, as tensors"
        )
    if combiner.on_features or plan == "features":
        bound = weigh_representation(request, combiner, features, private, strict)
        if bound is not None:
            return bound
    return _on_rows(request, combiner, features, private, strict, plan, store)


def _on_rows(
    request: Request,
    combiner: Combiner,
    features: Features,
    private: Private,
    strict: bool,
    plan: Plan,
    store: Store,
) -> StepRecord:
    """The step of a rule on gradients: K rows, kept in the form that ``store`` names, added up or not kept at all."""
    count = len(request.present)
    streams = is_streamed(request, combiner, store)
    if streams and (plan == "auto" or store == "recompute"):
        streamed = stream(request, combiner, features, private, strict)
        if streamed is not None:
            return streamed
    why = ": store='recompute'"
    at_choice = store is None and plan == "auto" and request.all_tensors and may_recompute(combiner)
    if at_choice and not rows_fit(request.params, count):
        store, why = "recompute", f": {count} gradients do not fit in the free memory"
    if store == "recompute" and count > ALIVE:
        return recompute(request, combiner, features, private, strict, why)
    source = source_of(request, features, batched=plan == "batched")
    factors, laid = None, None
    if isinstance(store, torch.dtype):
        rows, factors = kept_short(source.rows, store)
        source.plan += f"; kept in {str(store).removeprefix('torch.')}"
    elif combiner.needs == "jacobian" and plan != "batched":
        rows, laid = kept_in_matrix(source.rows, request.params, count, scale=request.scale)
        factors = [request.scale] * count
    elif request.all_tensors and plan != "batched":  # of losses in turn each graph is gone before the next: no holes
        rows, laid = kept_in_matrix(source.rows, request.params, count, below=STAYS_APART)
    else:
        rows = list(source.rows)
    if streams:
        remember(request, rows, laid)
    step = Step.of(request, private=private, trunk=source.trunk, strict=strict, plan=source.plan)
    step.factors, step.laid = factors, laid
    del laid  # the step lets go of the matrix when the direction is there
    return combine_rows(rows, combiner, step)


def check_rule(combiner: object, private: object) -> None:
    """Raise for what is no rule, and for a word that ``private`` does not know."""
    if not isinstance(combiner, Combiner):
        hint = (
            f"; create it once, before the loop: mtopt.create_combiner({combiner!r})"
            if isinstance(combiner, str)
            else ""
        )
        raise TypeError(f"combiner must be a Combiner, found {type(combiner).__name__}{hint}")
    if private not in (None, "own", "weighted", "combined"):
        raise ValueError(f"private must be 'own', 'weighted' or 'combined', found {private!r}")


def refuse_ranks() -> None:
    """Several ranks would each combine their own gradients and drift apart without a word: refuse."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"mtopt.backward does not average gradients over ranks yet, and {distributed.get_world_size()} run; "
            "average the rows yourself and call combiner(jacobian), or train in one process"
        )
