"""``mtopt.backward``: what stands in a training loop instead of ``loss.backward()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mtopt.autograd._absent import Absent, check_absent, nothing_present, with_hint, without_nan
from mtopt.autograd._combine import combine_rows
from mtopt.autograd._draws import Draws, combine_draws
from mtopt.autograd._hints import Hints
from mtopt.autograd._keeping import STAYS_APART, kept_in_matrix, kept_short
from mtopt.autograd._matrix_free import MatrixFree, follow_weights, matrix_free
from mtopt.autograd._matrix_free_draws import follow_draws
from mtopt.autograd._objective import Losses, NoLossError
from mtopt.autograd._plans import Plan, Store, check_plan, logged, may_recompute, rows_fit
from mtopt.autograd._recompute import ALIVE, recompute
from mtopt.autograd._record import StepRecord
from mtopt.autograd._representation import weigh_representation
from mtopt.autograd._request import Features, Request, check_features, source_of
from mtopt.autograd._revisits import combine_revisited
from mtopt.autograd._rows import Params, trainable
from mtopt.autograd._step import Private, Step
from mtopt.autograd._streaming import is_streamed, stream
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
    absent: Absent = None,
    retain_graph: bool = False,
) -> StepRecord:
    """Differentiate K losses, combine their gradients by a rule, and add the direction to ``.grad``.

    It stands where ``loss.backward()`` stood; the optimizer, clipping and schedulers stay as they are::

        record = mtopt.backward({"retain": retain_loss, "forget": -forget_loss}, model.parameters(), combiner)
        optimizer.step()

    Args:
        losses: a sequence, a tensor (K,), a mapping from names (or :class:`Objective`) to losses, or a callable that
            returns one of these. A loss is a scalar tensor; a callable that returns one, which is run, differentiated
            and freed before the next; or None when it is absent from this batch. No loss is run twice, but for the
            rules and plans that say so. Of a tensor (K,) every loss counts as reaching all that is behind it. A rule on
            several draws (``combiner.draws`` > 1) takes a sequence of as many such collections, each of an independent
            mini-batch and with the same objectives.
        params: the parameters to fill: a module, its ``named_parameters()``, or bare parameters, which a rule that
            tells layers apart cannot do with. Frozen ones are left alone, and so are those that no loss reaches.
        combiner: the rule. Create it once, before the loop: it may carry state from step to step.
        features: the shared trunk's output, or several. The heads are then differentiated once each and only the
            trunk K times; the parameters behind ``features`` are the shared ones.
        scaler: a ``torch.amp.GradScaler``. The rule sees unscaled gradients, ``.grad`` is scaled as the scaler expects.
        private: what a parameter gets that only one loss reaches, such as a task's head. ``"own"``: that loss's
            gradient, unweighted (default for rules on gradients). ``"weighted"``: times the loss's weight (default
            for rules on losses). ``"combined"``: it counts as shared, with zero gradients from the other losses.
        strict: raise on a NaN or infinite loss or gradient instead of skipping the step.
        plan: how the gradients of a rule on gradients are made. All but ``"features"`` and ``"matrix_free"`` give the
            same direction. (A rule on losses takes one weighted backward, and kept weights do, whatever is said here.)

            - ``"auto"``: a backward a loss, whose rows are kept; but where they are more than 16 MiB, or with
              ``store="recompute"``, three or more losses on one graph are added up as they come for a rule that weighs
              each by its own norm (NGDiff; the record then has no ``cosines``), and where K gradients do not fit in the
              free memory of a CUDA device, it is as ``store="recompute"``.
            - ``"loop"``: a backward a loss, and all rows are kept.
            - ``"batched"``: one backward for all losses by ``torch.vmap``, in K times the memory of a backward's
              temporaries. Where vmap cannot go, rows are made in a loop, and the record says why.
            - ``"features"``: the rule is fed the gradients with respect to ``features``, and one weighted backward of
              the trunk follows, whatever K (a bound, as in MGDA-UB), for rules on norms and inner products. Where a
              loss reaches the trunk around ``features``, rows of the parameters are made, and the record says why.
            - ``"matrix_free"``, or a :class:`MatrixFree` with settings: one weighted backward and one product with the
              Gramian, whatever K, for the rules that declare ``matrix_free``. The forward is run twice: ``losses`` is a
              callable (or a collection of callables), and ``params`` the module.
        store: in what form the gradients are kept until all are there. None: as they are. ``torch.bfloat16`` or
            ``torch.float16``: in 16 bits. ``"recompute"``, for rules on norms and inner products of losses given as
            tensors: no row is kept, and about ``K (1 + (ceil(K / 2) - 1) / 4) + 1`` backwards take the memory of two
            gradients or K times the largest parameter.
        absent: ``"nan"``: a loss whose value is NaN, such as a cross-entropy whose labels are all ignored, is absent
            from this step, as None is; where none is left the step is skipped, with nothing in ``.grad`` (leave the
            scaler's step out, too). Default: it has the step skipped.
        retain_graph: keep the graph, as in ``loss.backward``. Default: it is freed.

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
    check_absent(absent)
    free = matrix_free(plan, features, store)
    if free is None:
        check_plan(plan, store, combiner)
    refuse_ranks()
    _check_graph_kept(retain_graph, combiner, free)
    if absent is not None and combiner.draws == 1:
        losses = without_nan(losses)
    try:
        if free is None:
            places = trainable(params)
            record = _step(
                losses,  # type: ignore[arg-type]
                places,
                combiner,
                features,
                scaler,
                private,
                strict,
                plan,  # type: ignore[arg-type]
                store,
                absent,
                retain_graph,
            )
            return logged(with_hint(record))
        how: dict[str, Any] = {"scaler": scaler, "private": private or "own", "strict": strict}
        if combiner.draws == 1:
            return logged(with_hint(follow_weights(losses, params, combiner, free, **how)))
        if absent is not None:
            raise ValueError(
                f"plan='matrix_free' takes the same losses from all of {combiner!r}'s mini-batches; leave "
                f"absent={absent!r} out, or the plan"
            )
        return logged(follow_draws(losses, params, combiner, free, **how))
    except NoLossError:
        if absent is None:
            raise
        return logged(nothing_present())


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
    absent: Absent,
    retain_graph: bool,
) -> StepRecord:
    if combiner.draws > 1:
        if features is not None:
            raise ValueError(
                f"features belong to one mini-batch, and {combiner!r} takes {combiner.draws}; leave it out"
            )
        return combine_draws(
            losses,
            places,
            combiner,
            scaler=scaler,
            private=private or "own",
            strict=strict,
            absent=absent,
            retain_graph=retain_graph,
        )
    if combiner.revisits:
        if features is not None or plan not in ("auto", "loop") or store is not None:
            raise ValueError(
                f"{combiner!r} takes a backward a loss at each of two points; leave features, plan and store out"
            )
        return combine_revisited(losses, places, combiner, scaler=scaler, private=private or "own", strict=strict)  # type: ignore[arg-type]
    request = Request(losses, places, scaler, retain_graph=retain_graph)  # type: ignore[arg-type]  # several draws are refused there by name
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
    if is_streamed(request, combiner, store) and (plan == "auto" or store == "recompute"):
        return stream(request, combiner, features, private, strict)
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
        factors = [request.scale] * len(rows)
    elif request.all_tensors and plan != "batched":  # of losses in turn each graph is gone before the next: no holes
        rows, laid = kept_in_matrix(source.rows, request.params, count, below=STAYS_APART)
    else:
        rows = list(source.rows)
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


def _check_graph_kept(retain_graph: object, combiner: Combiner, free: MatrixFree | None) -> None:
    """Raise where there is no one graph to keep."""
    if retain_graph and (free is not None or combiner.revisits):
        what = "plan='matrix_free'" if free is not None else repr(combiner)
        raise ValueError(
            f"{what} runs the losses anew, at other parameters too, and keeps no graph of the caller's; "
            "leave retain_graph out"
        )


def refuse_ranks() -> None:
    """Several ranks would each combine their own gradients and drift apart without a word: refuse."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"mtopt.backward does not average gradients over ranks yet, and {distributed.get_world_size()} run; "
            "average the rows yourself and call combiner(jacobian), or train in one process"
        )
