"""The arguments of ``python -m mtopt_suites.unlearning.run``."""

from __future__ import annotations

import argparse

import torch

from .._command import folder
from ._sources import GENERATED, HUB
from .encoding import TEMPLATES
from .methods import METHODS

GENERATED_RATE = 1e-3
"""Learning rate of the suite's own models, which are a hundred times narrower than those that the recipes are for."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"python -m {__package__}.run",
        description="Unlearn with any method on any causal language model, and evaluate it on the way.",
    )
    names = ("none", "finetune", *METHODS)
    by_lower = {name.lower(): name for name in names}
    made.add_argument(
        "--method", required=True, type=lambda name: by_lower.get(name.lower(), name), choices=names, metavar="NAME",
        help=f"one of {', '.join(names)}",
    )  # fmt: skip
    made.add_argument("--out", required=True, type=folder, help="the folder of the run")
    made.add_argument("--seed", type=_count, default=0)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")

    data = made.add_argument_group("model and data")
    data.add_argument(
        "--model", default=GENERATED, help="a folder or a hub name; default: the suite's own, trained now"
    )
    data.add_argument(
        "--data", default=GENERATED, help=f"a folder with the files, or {HUB}tofu, {HUB}muse-news, {HUB}muse-books"
    )
    data.add_argument("--tokenizer", help="of a checkpoint that was published without; default: the model's")
    data.add_argument("--benchmark", choices=("tofu", "muse"), default="tofu")
    data.add_argument("--split", help="what to forget; default: forget10, and raw/forget of MUSE")
    data.add_argument("--retain-split", metavar="SET", help="what to retain, beside a --split of your own")
    data.add_argument("--train-on", metavar="SET", help="the one set of --method finetune: full, retain90, raw/retain1")
    data.add_argument("--template", default="plain", help=f"{', '.join(TEMPLATES)}, chat, or a text")
    data.add_argument("--max-length", type=_positive, help="tokens of a row; default: the model's positions")
    data.add_argument("--cache", help="where the suite's own models are kept; default: the user's cache folder")

    training = made.add_argument_group("training")
    training.add_argument("--epochs", type=_positive, help="over the set to forget; default: the method's")
    training.add_argument("--batch-size", type=_positive, default=16, help="rows of each side in a batch; default: 16")
    training.add_argument("--accumulate", type=_positive, default=1, help="batches per step; default: 1")
    training.add_argument(
        "--learning-rate", type=float, help=f"default: the method's; {GENERATED_RATE} for the suite's model"
    )
    training.add_argument("--weight-decay", type=float, default=0.01)
    training.add_argument(
        "--schedule", choices=("linear", "constant"), default="linear", help="not for GeN, which finds it"
    )
    training.add_argument("--warmup-epochs", type=float, default=1.0, help="of the linear schedule; default: 1")
    training.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw", help="sgd: without momentum")
    training.add_argument("--lora", type=_count, default=0, metavar="RANK", help="train adapters alone; 0: all weights")
    training.add_argument("--lora-alpha", type=int, help="default: twice the rank")
    training.add_argument("--merge", action="store_true", help="write the adapters into the weights at the end")
    training.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; default: the checkpoint's")
    training.add_argument("--autocast", action="store_true", help="compute in bfloat16")
    training.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    training.add_argument(
        "--cache-reference", action="store_true", help="of NPO, KL and the like on the disk, in place of a second model"
    )
    training.add_argument("--checkpoint-every", type=_positive, metavar="STEPS", help="to go on after a kill")

    automatic = made.add_argument_group("automatic rate, of the methods NGDiff+GeN; default: the method's")
    automatic.add_argument("--probe-every", type=_positive, metavar="STEPS", help="steps between two probes")
    automatic.add_argument("--probe-smoothing", type=float, metavar="SHARE", help="of the old rate in the new one")
    automatic.add_argument("--probe-startup", type=_count, metavar="PROBES", help="that end a line search; 0: none")
    automatic.add_argument(
        "--probe-batches", type=_count, help="other retained batches that are probed on; 0: the step's own"
    )

    evaluation = made.add_argument_group("evaluation")
    evaluation.add_argument("--evaluate-every", type=_positive, metavar="STEPS", help="default: first and last only")
    evaluation.add_argument("--evaluation-batch-size", type=_positive, default=32)
    evaluation.add_argument("--max-new-tokens", type=_positive, default=200, help="of TOFU's answers; default: 200")
    evaluation.add_argument("--shots", type=_count, help="examples before a question of MUSE; default: all ten")
    evaluation.add_argument(
        "--retain-logs", metavar="FILE", help="an evaluation of the retain model: evaluations/step_*.json"
    )
    evaluation.add_argument(
        "--auc-retrained", type=float, help="MUSE's retrained AUC instead: News 0.4772, Books 0.5393"
    )
    return made


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, found {text}")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, found {text}")
    return value
