"""The options of ``mtopt unlearn``, and the way to the suite that does it, whose packages may be missing."""

from __future__ import annotations

import argparse
from typing import Any

ENTRY_POINT_GROUP = "mtopt.commands"
PACKAGES = ("transformers", "tokenizers", "safetensors", "peft", "rouge_score", "sklearn")
"""What the extra ``unlearning`` brings."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options; one that is not given is left to the default of ``mtopt_suites.unlearning.own.Request``."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="what save_pretrained wrote, or a hub name")
    add("--forget", required=True, metavar="FILE", help="rows to forget, JSON Lines: question and answer, prompt and "
        "completion, messages, or text")  # fmt: skip
    add("--retain", required=True, metavar="FILE", help="rows to retain")
    add("--out", required=True, metavar="DIR", help="folder of the report, the figures and the model")
    add("--holdout", metavar="FILE", help="rows that the model never saw, for membership inference")
    add("--evaluate", nargs="+", type=_named_file, metavar="NAME=FILE", help="further sets to measure")
    add("--columns", nargs="+", metavar="NAME", help="of question and answer, or of the text (default: by their names)")
    add("--tokenizer", metavar="DIR", help="of a model that was saved without")
    add("--template", help="chat, plain, llama-2, or a text with {question} and {answer} (default: the tokenizer's)")
    add("--max-length", type=int, metavar="TOKENS", help="of a row (default: the model's positions)")
    add("--method", metavar="METHOD", help="a published one (default: NGDiff+GeN)")
    add("--forget-loss", metavar="LOSS", help="in place of the method's")
    add("--retain-loss", metavar="LOSS", help="in place of the method's; none for none")
    add("--rule", metavar="RULE", help="of 'mtopt list combiners', in place of the method's")
    add("--learning-rate", type=float, metavar="RATE", help="to begin with (default: the method's, for 1B weights)")
    add("--epochs", type=int, metavar="N", help="over the rows to forget (default: the method's)")
    add("--batch-size", type=int, metavar="ROWS", help="of each side (default: 8)")
    add("--accumulate", type=int, metavar="N", help="batches per step (default: 1)")
    add("--schedule", choices=("linear", "constant"), help="of the rate (default: linear); not for GeN")
    add("--lora", type=int, metavar="RANK", help="train adapters alone (default: all weights)")
    add("--merge", action="store_true", help="write the adapters into the weights at the end")
    add("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: the model's; float32 for float16)")
    add("--autocast", action="store_true", help="compute in bfloat16")
    add("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    add("--cache-reference", action="store_true", help="of NPO, KL and the like on the disk, not a second model")
    add("--evaluate-every", type=int, metavar="STEPS", help="default: once an epoch")
    add("--evaluation-rows", type=int, metavar="N", help="of each set, at most (default: 200)")
    add("--max-new-tokens", type=int, metavar="N", help="of an answer (default: 64)")
    add("--evaluation-batch-size", type=int, metavar="ROWS", help="default: 16")
    add("--checkpoint-every", type=int, metavar="STEPS", help="to go on after a kill")
    add("--seed", type=int, metavar="N", help="default: 0")
    add("--device", metavar="NAME", help="default: cuda where it is")


def run(options: argparse.Namespace) -> int:
    """Unlearn, and say where the report is; the exit status."""
    own = _load()
    given = {name: value for name, value in vars(options).items() if name != "run"}
    given["evaluate"] = dict(given.get("evaluate", ()))
    page = own.unlearn(own.Request(**given))
    print(f"\nreport: {page}\nmodel:  {page.parent / 'model'}")
    return 0


def _load() -> Any:
    """The package that does it, once all that it imports is there.

    Raises:
        ValueError: something is missing; with what to install.
    """
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ValueError(f"unlearn needs {', '.join(missing)}: pip install 'mtopt[unlearning]'")
    found = list(entry_points(group=ENTRY_POINT_GROUP, name="unlearn"))
    if not found:
        raise ValueError("unlearn is not installed with this mtopt: pip install --force-reinstall mtopt")
    return found[0].load()


def _named_file(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, found {text}")
    return name, path
