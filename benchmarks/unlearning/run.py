"""Unlearning from the command line: any method, on any causal language model, with the evaluation beside it.

    python -m mtopt_suites.unlearning.run --method NGDiff+GeN --out DIR
    python -m mtopt_suites.unlearning.run --method NPO+NLL --model NAME --data FOLDER --split forget10 --out DIR
    python -m mtopt_suites.unlearning.run --method none --model NAME --data FOLDER --out DIR
    python -m mtopt_suites.unlearning.run --method finetune --train-on retain90 --model NAME --data FOLDER --out DIR

Without ``--model`` and ``--data``, on the suite's own model and generated authors. ``none`` evaluates the model as it
is (its ``--out`` is what ``--retain-logs`` takes), ``finetune`` trains on one set by gradient descent on the NLL; every
other method is one of :data:`mtopt_suites.unlearning.methods.METHODS`. Into the folder ``--out`` go

- ``settings.json``: the arguments, the number of weights trained, versions.
- ``evaluations/step_000000.json``, ...: each evaluation with its items, before the first step, every
  ``--evaluate-every`` steps and after the last; ``summary.jsonl``: their figures, a line each.
- ``steps.csv``: losses, norms, cosines, rates of every step.
- ``model``: the final model (with ``--lora`` its adapters, unless ``--merge``) and the tokenizer.
- ``checkpoints``, with ``--checkpoint-every``: the same command goes on from the last one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import mtopt
from mtopt.files import folder_written_whole

from .._command import run_command
from ._arguments import GENERATED_RATE, parser
from ._recording import EvaluateEvery, record_evaluation, save_settings
from ._schedule import linear_schedule
from ._skips import StopAfterSkips
from ._sources import GENERATED, Sources, Start, encoded, generated, opened
from .batches import ForgetRetainBatches, refusals
from .cached_reference import cached_reference
from .methods import Recipe, create_trainer, method
from .metrics import Evaluation, evaluate, evaluate_muse
from .models import ReferenceConfig, checkpoint_blocks, with_lora

FINETUNE = Recipe("nll", None, "linear", epochs=5, note="the sense of its one loss is turned round")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one method; the exit status."""
    options = parser().parse_args(arguments)
    sources, trained = _named(options)
    recipe = None if options.method == "none" else _recipe(options)
    torch.manual_seed(options.seed)
    _quiet()
    start = _start(options, sources, trained)
    out = Path(options.out)
    measure = _measurement(options, sources, start, out)
    if recipe is None:
        save_settings(vars(options), out, start.model)
        record_evaluation(out, 0, 0.0, measure(start.model))
        return 0
    _train(options, recipe, start, sources, trained, out, measure)
    return 0


def _quiet() -> None:
    """No bars for reading and writing weights among the lines of the run."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _train(
    options: argparse.Namespace,
    recipe: Recipe,
    start: Start,
    sources: Sources,
    trained: list[str],
    out: Path,
    measure: Callable[[Any], Evaluation],
) -> None:
    model, tokenizer = start.model, start.tokenizer
    if options.gradient_checkpointing:
        checkpoint_blocks(model)
    if options.lora:
        model = with_lora(model, rank=options.lora, alpha=options.lora_alpha or 2 * options.lora, seed=options.seed)
    save_settings(vars(options), out, model)

    limit = options.max_length or getattr(model.config, "max_position_embeddings", None)
    rows = {
        name: encoded(tokenizer, start.corpus[name], template=options.template, max_length=limit) for name in trained
    }
    forget, retain = rows[trained[0]], rows[trained[1]] if len(trained) > 1 and recipe.retain else None
    alternatives = None
    if recipe.forget in ("idk_nll", "idk_dpo"):
        if sources.benchmark == "muse":
            raise SystemExit(f"--method {options.method} refuses questions, and MUSE's texts ask none; choose another")
        alternatives = refusals(tokenizer, start.corpus[trained[0]], template=options.template)
    sizes: dict[str, Any] = {"batch_size": options.batch_size, "pad_id": tokenizer.pad_token_id}
    batches = ForgetRetainBatches(forget, retain, alternatives=alternatives, seed=options.seed, **sizes)

    rate = options.learning_rate or (GENERATED_RATE if options.model == GENERATED else recipe.learning_rate)
    params = [param for param in model.parameters() if param.requires_grad]
    kind = torch.optim.SGD if options.optimizer == "sgd" else torch.optim.AdamW
    optimizer = kind(params, lr=rate, weight_decay=options.weight_decay)
    steps_per_epoch = -(-len(batches) // options.accumulate)
    epochs = options.epochs or recipe.epochs
    probes = None
    if recipe.automatic_rate is not None and retain is not None:
        probes = recipe.automatic_rate.probe_batches(retain, count=options.probe_batches, seed=options.seed, **sizes)
    evaluations = EvaluateEvery(out, measure, options.evaluate_every)
    autocast = torch.bfloat16 if options.autocast else None
    cache = partial(
        cached_reference, model, recipe, batches, epochs=epochs, folder=out, also=probes or (), autocast=autocast
    )
    with cache() if options.cache_reference else nullcontext() as reference:
        trainer = create_trainer(
            recipe,
            model,
            optimizer,
            steps_per_epoch=steps_per_epoch,
            probe_batches=probes,
            callbacks=[mtopt.training.CSVLogger(out / "steps.csv"), StopAfterSkips(), evaluations],
            scheduler=None
            if recipe.automatic_rate is not None
            else _schedule(optimizer, options, steps_per_epoch, epochs),
            accumulate=options.accumulate,
            autocast=autocast,
            reference=reference,
            seed=options.seed,
            **({"forget_sense": "min"} if recipe is FINETUNE else {}),
        )
        checkpoints = {"checkpoint_dir": out / "checkpoints", "checkpoint_every": options.checkpoint_every}
        trainer.fit(batches, epochs=epochs, **(checkpoints if options.checkpoint_every else {}))
        evaluations.finish(trainer)
    final = model.merge_and_unload() if options.lora and options.merge else model
    with folder_written_whole(out / "model") as folder:
        final.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _recipe(options: argparse.Namespace) -> Recipe:
    """The method's recipe, with those parts of the automatic rate that were given."""
    recipe = FINETUNE if options.method == "finetune" else method(options.method)
    given = {
        "every": options.probe_every,
        "smoothing": options.probe_smoothing,
        "startup": options.probe_startup,
        "fresh": None if options.probe_batches is None else options.probe_batches > 0,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return recipe
    if recipe.automatic_rate is None:
        raise SystemExit(
            f"--probe-... is for a method with an automatic rate, which {options.method} is not; leave it out"
        )
    return replace(recipe, automatic_rate=replace(recipe.automatic_rate, **changes))


def _schedule(
    optimizer: torch.optim.Optimizer, options: argparse.Namespace, steps_per_epoch: int, epochs: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """TOFU's, a linear warm-up over an epoch and a linear decay to zero; or MUSE's, none."""
    if options.schedule == "constant":
        return None
    total = steps_per_epoch * epochs
    return linear_schedule(optimizer, total, rising=round(options.warmup_epochs * steps_per_epoch))


def _named(options: argparse.Namespace) -> tuple[Sources, list[str]]:
    """The sets of the run: its benchmark and split, and the names of those that are trained on, the split first."""
    split = options.split or ("raw/forget" if options.benchmark == "muse" else "forget10")
    sources = Sources(options.benchmark, split, options.retain_split)
    if options.method == "finetune":
        if not options.train_on:
            raise SystemExit("--method finetune needs --train-on, the set to train on: full, retain90, ...")
        return sources, [options.train_on]
    if options.train_on:
        raise SystemExit("--train-on is for --method finetune; others train on --split and its complement")
    try:
        if options.model == GENERATED and options.benchmark == "tofu":
            ReferenceConfig(forget=split)
        return sources, [] if options.method == "none" else [sources.split, sources.retained]
    except ValueError as error:
        raise SystemExit(f"--split {split}: {error}") from error


def _start(options: argparse.Namespace, sources: Sources, trained: list[str]) -> Start:
    """Model, tokenizer and sets, the model on the chosen device."""
    if (options.model == GENERATED) != (options.data == GENERATED):
        raise SystemExit(
            "--model and --data go together: give both, or neither for the generated authors and their own model; "
            f"found --model {options.model} and --data {options.data}"
        )
    if options.model == GENERATED:
        start = generated(sources, options.cache)
    else:
        dtype = None if options.dtype is None else getattr(torch, options.dtype)
        start = opened(sources, options.data, options.model, trained, tokenizer=options.tokenizer, dtype=dtype)
    start.model.to(options.device)
    return start


def _measurement(options: argparse.Namespace, sources: Sources, start: Start, out: Path) -> Callable[[Any], Evaluation]:
    """The evaluation of a model, with the retain model's logs where there are any; the suite makes its own one's."""
    common: dict[str, Any] = {"batch_size": options.evaluation_batch_size}
    if sources.benchmark == "muse":
        run: Callable[..., Evaluation] = evaluate_muse
        # the suite's own model does not follow examples
        common["shots"] = 0 if options.shots is None and options.model == GENERATED else options.shots
        if options.auc_retrained is not None:
            common["auc_retrained"] = options.auc_retrained
    else:
        run = evaluate
        common.update(forget=sources.split, template=options.template, max_new_tokens=options.max_new_tokens)
    logs = options.retain_logs
    if logs is None and start.retain is not None and options.auc_retrained is None:
        logs = run(start.retain.to(options.device), start.tokenizer, start.corpus, **common).save(out / "retain.json")

    def measure(model: Any) -> Evaluation:
        return run(model, start.tokenizer, start.corpus, retain_logs=logs, **common)

    return measure


if __name__ == "__main__":
    run_command(main)
