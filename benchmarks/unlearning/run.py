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
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mtopt
from mtopt.files import folder_written_whole, read_json_lines, write_text

from .._command import run_command
from ._arguments import GENERATED_RATE, parser
from ._sources import GENERATED, Sources, Start, encoded, generated, opened
from .batches import ForgetRetainBatches, refusals
from .methods import Recipe, create_trainer, method
from .metrics import Evaluation, evaluate, evaluate_muse
from .models import ReferenceConfig, checkpoint_blocks, with_lora

_SUMMARY_HINT = "take that line out of the file, or give another --out"
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
        _save_settings(options, out, start.model)
        _record(out, 0, 0.0, measure(start.model))
        return 0
    _train(options, recipe, start, sources, trained, out, measure)
    return 0


def _quiet() -> None:
    """No bars for reading and writing weights among the lines of the run."""
    from transformers.utils import logging

    logging.disable_progress_bar()


class EvaluateEvery(mtopt.Callback):
    """Evaluates before the first step, every so many steps and after the last, each into a file of its own."""

    def __init__(self, out: Path, measure: Callable[[Any], Evaluation], every: int | None) -> None:
        self.out, self.measure, self.every = out, measure, every
        self._seconds, self._last, self._began = 0.0, -1, time.perf_counter()

    def on_fit_start(self, trainer: mtopt.MultiLossTrainer) -> None:
        self._began = time.perf_counter()
        if trainer.step == 0:
            self._evaluate(trainer)

    def on_step_end(self, trainer: mtopt.MultiLossTrainer, record: mtopt.StepRecord) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            self._evaluate(trainer)

    def finish(self, trainer: mtopt.MultiLossTrainer) -> None:
        """The last evaluation, after ``fit``; not in ``on_fit_end``, which comes after a failure, too."""
        if trainer.step != self._last:
            self._evaluate(trainer)

    def _evaluate(self, trainer: mtopt.MultiLossTrainer) -> None:
        self._seconds += time.perf_counter() - self._began
        _record(self.out, trainer.step, self._seconds, self.measure(trainer.model))
        self._last, self._began = trainer.step, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds + time.perf_counter() - self._began, "last": self._last}

    def load_state_dict(self, state_dict: Any) -> None:
        self._seconds, self._last = state_dict["seconds"], state_dict["last"]


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
    _save_settings(options, out, model)

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
    trainer = create_trainer(
        recipe,
        model,
        optimizer,
        steps_per_epoch=steps_per_epoch,
        probe_batches=probes,
        callbacks=[mtopt.training.CSVLogger(out / "steps.csv"), evaluations],
        scheduler=None if recipe.automatic_rate is not None else _schedule(optimizer, options, steps_per_epoch, epochs),
        accumulate=options.accumulate,
        autocast=torch.bfloat16 if options.autocast else None,
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
    rising = min(round(options.warmup_epochs * steps_per_epoch), total - 1)

    def share(step: int) -> float:
        return float((step + 1) / (rising + 1) if step < rising else max(0.0, (total - step) / (total - rising)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _named(options: argparse.Namespace) -> tuple[Sources, list[str]]:
    """The sets of the run: its benchmark and split, and the names of those that are trained on, the split first."""
    split = options.split or ("raw/forget" if options.benchmark == "muse" else "forget10")
    sources = Sources(options.benchmark, split)
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


def _record(out: Path, step: int, seconds: float, evaluation: Evaluation) -> None:
    """Writes an evaluation and its line, and says the line."""
    evaluation.save(out / "evaluations" / f"step_{step:06d}.json")
    line = {"step": step, "training_seconds": round(seconds, 2), **evaluation.summary}
    path = out / "summary.jsonl"
    # a run that was killed, or started over, comes to the same step again
    lines = [kept for kept in _summary(path) if kept["step"] < step]
    write_text(path, "".join(json.dumps(kept) + "\n" for kept in [*lines, line]))
    tofu = ("model_utility", "forget_quality", "forget_probability", "retain_exact_match", "privleak")
    shown = (*tofu, "verbmem_forget", "knowmem_forget", "knowmem_retain")
    figures = {name: value for name, value in evaluation.summary.items() if name in shown and value is not None}
    print(f"step {step}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()), flush=True)


def _summary(path: Path) -> list[dict[str, Any]]:
    """The lines of an earlier run in the same folder."""
    lines: list[dict[str, Any]] = []
    for number, line in read_json_lines(path, kind=dict, hint=_SUMMARY_HINT) if path.is_file() else ():
        if not isinstance(line.get("step"), int):
            raise ValueError(f"{path}, line {number}: no step; {_SUMMARY_HINT}")
        lines.append(line)
    return lines


def _save_settings(options: argparse.Namespace, out: Path, model: Any) -> None:
    weights = {
        "all": sum(param.numel() for param in model.parameters()),
        "trained": sum(param.numel() for param in model.parameters() if param.requires_grad),
    }
    versions = {name: version(name) for name in ("mtopt", "torch", "transformers")}
    content = {"arguments": vars(options), "weights": weights, "versions": versions}
    write_text(out / "settings.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
