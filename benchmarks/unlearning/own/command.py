"""From files and a model to the unlearned model, its figures and a page about it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtopt
from mtopt.files import folder_written_whole

from .._recording import EvaluateEvery, read_summary, save_settings
from .._schedule import linear_schedule
from .._skips import StopAfterSkips
from .._sources import encoded
from ..batches import ForgetRetainBatches, refusals
from ..cached_reference import cached_reference
from ..corpus import Row
from ..methods import Recipe, create_trainer
from ..models import checkpoint_blocks, load, with_lora
from .measure import is_text, measure
from .report import tell, write_report
from .request import Request
from .rows import has_prompts, overlap, read_rows

AS_IT_IS = "{question}{answer}"
"""The template of prompts that are continued with nothing between."""

SHOWN = ("forget_probability", "forget_rouge_l_recall", "retain_probability", "retain_rouge_l_recall", "auc_min_k")


def unlearn(request: Request) -> Path:
    """Trains, measures before, on the way and after, and writes it all to ``request.out``.

    There are ``report.html`` and ``figures``, ``model`` (with ``lora`` its adapters, unless ``merge``) and the
    tokenizer, ``summary.jsonl`` and ``evaluations`` with every item, ``steps.csv`` and ``settings.json``.

    Returns:
        The report's page.

    Raises:
        ValueError: A fault of a file or of the request, named.
        UnknownNameError: No such method, loss or rule.
        NonFiniteError: Twenty steps in a row had a loss or a gradient that is not finite.
    """
    recipe, out = request.recipe(), Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    sets = _read(request)
    torch.manual_seed(request.seed)
    model, tokenizer = _open_model(request)
    template = request.template or _usual_template(request, tokenizer)
    limit = request.max_length or getattr(model.config, "max_position_embeddings", None)
    rows = {
        name: encoded(tokenizer, sets[name], template=template, max_length=limit)
        for name in ("forget", "retain")[: 2 if recipe.retain else 1]
    }
    alternatives = None
    if recipe.forget in ("idk_nll", "idk_dpo"):
        if is_text(sets["forget"]):
            raise ValueError(f"{recipe.forget} refuses to answer questions, and the texts of forget ask none")
        alternatives = refusals(tokenizer, sets["forget"], template=template)
    sizes: dict[str, Any] = {
        "batch_size": request.batch_size,
        "pad_id": tokenizer.pad_token_id,
        "seed": request.seed,
    }
    batches = ForgetRetainBatches(rows["forget"], rows.get("retain"), alternatives=alternatives, **sizes)
    probes = None if recipe.automatic_rate is None else recipe.automatic_rate.probe_batches(rows["retain"], **sizes)
    if request.gradient_checkpointing:
        checkpoint_blocks(model)
    if request.lora:
        model = with_lora(model, rank=request.lora, alpha=2 * request.lora, seed=request.seed)
    save_settings({**asdict(request), "template": template}, out, model)
    _tell(recipe, sets, template)

    steps_per_epoch = -(-len(batches) // request.accumulate)
    measured = partial(
        measure,
        tokenizer=tokenizer,
        sets=_drawn(sets, request.evaluation_rows, request.seed),
        template=template,
        max_length=limit,
        max_new_tokens=request.max_new_tokens,
        batch_size=request.evaluation_batch_size,
    )
    evaluations = EvaluateEvery(out, measured, request.evaluate_every or steps_per_epoch, SHOWN)
    _train(request, recipe, model, batches, probes, steps_per_epoch, evaluations)
    final = model.merge_and_unload() if request.lora and request.merge else model
    with folder_written_whole(out / "model") as folder:
        final.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    page = write_report(out)
    print(f"\n{tell(read_summary(out / 'summary.jsonl'))}", flush=True)
    return page


def _train(
    request: Request,
    recipe: Recipe,
    model: Any,
    batches: ForgetRetainBatches,
    probes: list[Any] | None,
    steps_per_epoch: int,
    evaluations: EvaluateEvery,
) -> None:
    out = Path(request.out)
    params = [param for param in model.parameters() if param.requires_grad]
    rate = request.learning_rate or recipe.learning_rate
    optimizer = torch.optim.AdamW(params, lr=rate, weight_decay=request.weight_decay)
    epochs = request.epochs or recipe.epochs
    scheduler = None
    if request.schedule == "linear" and recipe.automatic_rate is None:
        rising = round(request.warmup_epochs * steps_per_epoch)
        scheduler = linear_schedule(optimizer, steps_per_epoch * epochs, rising=rising)
    autocast = torch.bfloat16 if request.autocast else None
    checkpoints: dict[str, Any] = {}
    if request.checkpoint_every:
        checkpoints = {"checkpoint_dir": out / "checkpoints", "checkpoint_every": request.checkpoint_every}
    cache = partial(
        cached_reference, model, recipe, batches, epochs=epochs, folder=out, also=probes or (), autocast=autocast
    )
    with cache() if request.cache_reference else nullcontext() as reference:
        trainer = create_trainer(
            recipe,
            model,
            optimizer,
            steps_per_epoch=steps_per_epoch,
            probe_batches=probes,
            callbacks=[mtopt.training.CSVLogger(out / "steps.csv"), StopAfterSkips(), evaluations],
            scheduler=scheduler,
            accumulate=request.accumulate,
            autocast=autocast,
            reference=reference,
            seed=request.seed,
        )
        trainer.fit(batches, epochs=epochs, **checkpoints)
        evaluations.finish(trainer)


def _read(request: Request) -> dict[str, list[Row]]:
    """All files, before the model, so that a fault is reported at once."""
    files = {"forget": request.forget, "retain": request.retain}
    if request.holdout is not None:
        files["holdout"] = request.holdout
    sets = {name: read_rows(path, request.columns) for name, path in {**files, **request.evaluate}.items()}
    if shared := overlap(sets["forget"], sets["retain"]):
        raise ValueError(
            f"{shared} of the {len(sets['forget'])} rows of {request.forget} are in {request.retain}, too, and cannot "
            "be forgotten and retained; take them out of one"
        )
    for name in ("forget", "retain") if request.holdout is not None else ():
        if shared := overlap(sets["holdout"], sets[name]):
            raise ValueError(
                f"{shared} of the {len(sets['holdout'])} rows of {request.holdout} are in {files[name]}, too, and the "
                "model must never have seen what is held out; take them out of it"
            )
    if request.holdout is not None and is_text(sets["forget"]) != is_text(sets["holdout"]):
        raise ValueError(
            f"{request.holdout} must hold rows of the kind of {request.forget}: membership is "
            "judged between rows of one kind"
        )
    return sets


def _open_model(request: Request) -> tuple[Any, Any]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    is_path = request.model.startswith((".", "/", "~")) or request.model.count("/") > 1
    if is_path and not Path(request.model).is_dir():
        # as a hub name it would be asked for in vain, for a minute where there is no network
        raise FileNotFoundError(f"no folder {request.model}; give what save_pretrained wrote, or a hub name")
    dtype = None if request.dtype is None else getattr(torch, request.dtype)
    model, tokenizer = load(request.model, tokenizer=request.tokenizer, dtype=dtype)
    return model.to(request.device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer


def _usual_template(request: Request, tokenizer: Any) -> str:
    if tokenizer.chat_template is not None:
        return "chat"
    return AS_IT_IS if has_prompts(request.forget, request.columns) else "plain"


def _drawn(sets: dict[str, list[Row]], most: int, seed: int) -> dict[str, list[Row]]:
    """At most so many rows of each set, in their order, the same ones at each evaluation."""
    random = np.random.default_rng(seed)
    drawn = {}
    for name, rows in sets.items():
        places = sorted(random.permutation(len(rows))[:most].tolist())
        drawn[name] = [rows[place] for place in places]
    return drawn


def _tell(recipe: Recipe, sets: dict[str, list[Row]], template: str) -> None:
    counts = ", ".join(f"{name} {len(rows)} {'texts' if is_text(rows) else 'rows'}" for name, rows in sets.items())
    shown = {"chat": "the tokenizer's chat template"}.get(template, repr(template))
    print(f"{counts}; template: {shown}", flush=True)
    print(f"losses: {recipe.forget} on forget, {recipe.retain or 'none'} on retain; rule: {recipe.rule}", flush=True)
