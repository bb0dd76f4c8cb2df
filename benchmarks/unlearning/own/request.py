"""What is asked of ``mtopt unlearn``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import mtopt

from ..methods import Recipe, method
from ..trainer import FORGET_LOSSES, RETAIN_LOSSES


@dataclass(frozen=True)
class Request:
    """One run of :func:`~mtopt_suites.unlearning.own.unlearn`.

    Args:
        model: A folder that ``save_pretrained`` wrote, or a hub name. ``tokenizer``: likewise; default: the model's.
        forget, retain, holdout, evaluate: Files of :func:`~mtopt_suites.unlearning.own.read_rows`; the last ones by
            name. The held-out rows, which the model never saw, are for membership inference alone.
        out: The folder for all that is written.
        columns: As in ``read_rows``, for all files.
        template: As in :func:`mtopt_suites.unlearning.encoding.encode`. Default: ``"chat"`` where the tokenizer has a
            chat template, else ``"plain"`` for questions and nothing around prompts.
        max_length: Tokens of a row. Default: the model's positions.
        method: A name of :data:`mtopt_suites.unlearning.methods.METHODS`; ``forget_loss``, ``retain_loss`` (or
            ``"none"``) and ``rule`` take the place of its own.
        epochs, learning_rate: Over the rows to forget, and to begin with. Default: the method's.
        batch_size, accumulate: Rows of each side in a batch; batches per step.
        schedule, warmup_epochs: ``"linear"`` or ``"constant"``; not for GeN, which finds the rate.
        lora, merge: The rank of adapters, 0 for all weights; whether they are written into the weights at the end.
        dtype, autocast, gradient_checkpointing: Of the weights; compute in bfloat16; less memory for more time.
        cache_reference: Keep what NPO, KL and the like ask of the model before unlearning on the disk, in place of a
            second copy of it (:func:`~mtopt_suites.unlearning.cached_reference.cached_reference`); LoRA needs neither.
        evaluate_every: Steps. Default: an epoch's.
        evaluation_rows: At most so many of each set are measured, drawn at random.
        max_new_tokens, evaluation_batch_size: As in ``measure``.
        checkpoint_every: Steps after which the run can go on when it is killed. Default: never.
        seed, device: Default: 0, and CUDA where it is.
    """

    model: str
    forget: str
    retain: str
    out: str
    tokenizer: str | None = None
    holdout: str | None = None
    evaluate: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] | None = None
    template: str | None = None
    max_length: int | None = None
    method: str = "NGDiff+GeN"
    forget_loss: str | None = None
    retain_loss: str | None = None
    rule: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    schedule: str = "linear"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01
    lora: int = 0
    merge: bool = False
    dtype: str | None = None
    autocast: bool = False
    gradient_checkpointing: bool = False
    cache_reference: bool = False
    evaluate_every: int | None = None
    evaluation_rows: int = 200
    max_new_tokens: int = 64
    evaluation_batch_size: int = 16
    checkpoint_every: int | None = None
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if taken := {"forget", "retain", "holdout"} & set(self.evaluate):
            raise ValueError(f"evaluate names {', '.join(sorted(taken))}, which have an option of their own; rename it")
        for name in ("epochs", "learning_rate", "batch_size", "accumulate", "evaluate_every", "evaluation_rows"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, found {value}")
        self.recipe()  # an unknown name is reported before anything is read

    def recipe(self) -> Recipe:
        """The method, with the losses and the rule that take the place of its own.

        Raises:
            UnknownNameError: No such method, loss or rule.
        """
        recipe = method(self.method)
        if self.forget_loss is not None:
            _check_loss("forget_loss", self.forget_loss, FORGET_LOSSES)
            recipe = replace(recipe, forget=self.forget_loss, forget_options={})
        if self.retain_loss is not None:
            if self.retain_loss != "none":
                _check_loss("retain_loss", self.retain_loss, RETAIN_LOSSES)
            kept = None if self.retain_loss == "none" else self.retain_loss
            recipe = replace(recipe, retain=kept, retain_options={})
        if self.rule is not None:
            mtopt.create_combiner(self.rule)
            recipe = replace(recipe, rule=self.rule, rule_options={})
        if recipe.automatic_rate is not None and recipe.retain is None:
            raise ValueError(f"{self.method} finds its rate on the retain loss, and retain_loss is none; give one")
        return recipe


def _check_loss(argument: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise mtopt.UnknownNameError(f"unknown {argument} {name!r}; known names: {', '.join(known)}")
