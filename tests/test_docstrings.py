"""The examples in docstrings run as they are printed, on a small model with two heads."""

import functools
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import mtopt
from tests.printed import ROOT, docstring_examples, page_examples, run

MODULES = {
    path.relative_to(ROOT).as_posix(): examples
    for path in sorted((ROOT / "mtopt").glob("**/*.py"))
    if (examples := docstring_examples(path))
}


class TwoDigits(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh())
        self.left, self.right = torch.nn.Linear(6, 3), torch.nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.trunk(images)
        return self.left(features), self.right(features)


class Trainer(mtopt.MultiLossTrainer):
    """For the examples that leave the trainer to the reader; the names of its losses are what they select on."""

    names = ("left", "right")

    def losses(self, batch: Any) -> dict[Any, torch.Tensor]:
        image, *digits = batch
        outputs = self.model(image)
        losses = [cross_entropy(output, digit) for output, digit in zip(outputs, digits, strict=True)]
        return dict(zip(self.names, losses, strict=True))


class Accurate(Trainer):
    def metrics(self, batch: Any) -> dict[str, float]:
        return {"accuracy": float((self.model(batch[0])[0].argmax(1) == batch[1]).double().mean())}


class Unlearn(Trainer):
    names = ("retain", mtopt.Objective("forget", "max"))


class OneTask(Trainer):
    """Of a batch (task, data), the loss of that task alone."""

    def losses(self, batch: Any) -> dict[Any, torch.Tensor]:
        task, data = batch
        losses = dict(zip(("news", "code"), super().losses(data).values(), strict=True))
        return {name: loss if name == task else None for name, loss in losses.items()}


def digits(examples: int = 24) -> DataLoader:
    images = torch.randn(examples, 5)
    return DataLoader(TensorDataset(images, images[:, :3].argmax(1), images[:, 2:].argmax(1)), batch_size=8)


def everyday() -> dict[str, Any]:
    """What most examples take for granted."""
    model, loader = TwoDigits(), digits()
    batch = next(iter(loader))

    def losses_of(model: torch.nn.Module, batch: Any) -> list[torch.Tensor]:
        return [cross_entropy(out, digit) for out, digit in zip(model(batch[0]), batch[1:], strict=True)]

    retain_loss, forget_loss = losses_of(model, batch)
    return {
        "mtopt": mtopt,
        "torch": torch,
        "cross_entropy": cross_entropy,
        "model": model,
        "params": list(model.parameters()),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "combiner": mtopt.create_combiner("mgda"),
        "loader": loader,
        "validation": loader,
        "batch": batch,
        "losses": functools.partial(losses_of, model),
        "retain_loss": retain_loss,
        "forget_loss": forget_loss,
        "left_loss": retain_loss,
        "right_loss": forget_loss,
        "losses_of": losses_of,
        "half": batch,
        "other_half": batch,
    }


def accumulating() -> dict[str, Any]:
    model = torch.nn.Linear(3, 1)
    batches = torch.randn(4, 2, 8, 3)
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "micro_batches": list(batches),
        "loss": lambda model, batch: (model(batch) - 1).square().mean(),
        "n": 2,
    }


def instances() -> dict[str, Any]:
    model = torch.nn.Linear(3, 2)
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": torch.nn.CrossEntropyLoss(reduction="none"),
        "x": torch.randn(4, 3),
        "y": torch.tensor([0, 1, 0, 1]),
    }


def gen() -> dict[str, Any]:
    world = everyday()
    return {**world, "retain_loss": lambda batch: world["losses"](batch)[0]}


def front() -> dict[str, Any]:
    def train(preference: torch.Tensor) -> tuple[list[float], torch.nn.Module]:
        return [0.02 + float(preference[0]), float(preference[1]) / 10], torch.nn.Linear(2, 1)

    preferences = mtopt.pareto.uniform_preferences(2, 3)
    return {"train": train, "preferences": preferences, "Network": lambda: torch.nn.Linear(2, 1)}


def figures() -> dict[str, Any]:
    points = {"linear": [[1.0, 2.0], [2.0, 1.0]]}
    plotting = mtopt.plotting
    return {
        "all_the_rules": ["linear"],
        "points": points,
        "front": [[1.0, 1.5], [1.5, 1.0]],
        "style": plotting.style,
        "plot_front": plotting.plot_front,
    }


def of_accelerate() -> dict[str, Any]:
    from accelerate import Accelerator

    from mtopt.integrations.accelerate import backward

    world = everyday()
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(world["model"], world["optimizer"])
    return {"accelerator": accelerator, "backward": backward, "model": model, "optimizer": optimizer}


def of_lightning() -> dict[str, Any]:
    from lightning import Fabric, LightningModule

    from mtopt.integrations.lightning import MultiLossMixin, backward

    world = everyday()
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(world["model"], world["optimizer"])
    return {
        "MultiLossMixin": MultiLossMixin,
        "LightningModule": LightningModule,
        "fabric": fabric,
        "backward": backward,
        "model": model,
        "optimizer": optimizer,
    }


def of_transformers() -> dict[str, Any]:
    import transformers

    from mtopt.integrations.transformers import MultiLossMixin
    from tests.integrations.support import example

    class Nested(transformers.Trainer):
        """Of samples that are dictionaries of dictionaries, as those of the example."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, data_collator=torch.utils.data.default_collate, **options)

    llama = example("transformers_unlearning").tiny_llama()
    args = transformers.TrainingArguments(
        "run", max_steps=1, remove_unused_columns=False, report_to="none", use_cpu=True, disable_tqdm=True
    )
    tokens = torch.arange(8)
    pair = {side: {"input_ids": tokens, "labels": tokens} for side in ("retain", "forget")}
    return {"MultiLossMixin": MultiLossMixin, "Trainer": Nested, "model": llama, "args": args, "pairs": [pair] * 8}


def conditioned() -> dict[str, Any]:
    return {"network": TwoDigits(), "uniform_preferences": mtopt.pareto.uniform_preferences}


def built(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return TwoDigits()


def trajectories() -> dict[str, Any]:
    """Two trainings whose objectives fall from epoch to epoch."""
    return {
        "TMOBO": mtopt.experiments.TMOBO,
        "trainings": 2,
        "train": lambda x: ([x[0] + 1 / epoch, 1 - x[0] + 1 / epoch] for epoch in range(1, 21)),
    }


WORLDS = {
    "mtopt/autograd/_accumulator.py": accumulating,
    "mtopt/autograd/_instances.py": instances,
    "mtopt/combiners/famo.py": lambda: {"famo": mtopt.create_combiner("famo")},
    "mtopt/combiners/moco_plus.py": lambda: {"rule": mtopt.create_combiner("moco_plus")},
    "mtopt/combiners/smoothed.py": lambda: {
        "steps": 10,
        "FollowsLearningRate": mtopt.combiners.smoothed.FollowsLearningRate,
    },
    "mtopt/distributed/_agreement.py": lambda: {"batches": digits()},
    "mtopt/experiments/_tmobo.py": trajectories,
    "mtopt/experiments/_contestant.py": lambda: {"Contestant": mtopt.experiments.Contestant},
    "mtopt/integrations/accelerate.py": of_accelerate,
    "mtopt/integrations/lightning.py": of_lightning,
    "mtopt/integrations/transformers.py": of_transformers,
    "mtopt/pareto/front.py": front,
    "mtopt/plotting/__init__.py": figures,
    "mtopt/plotting/theme.py": figures,
    "mtopt/testing/_conformance.py": lambda: run(page_examples("CONTRIBUTING.md")),
    "mtopt/training/_preferences.py": conditioned,
    "mtopt/training/_task_batches.py": lambda: {
        "TaskBatches": mtopt.training.TaskBatches,
        "Trainer": OneTask,
        "news_loader": digits(),
        "code_loader": digits(),
    },
    "mtopt/training/callbacks/_best.py": lambda: {"TwoDigits": Accurate},
    "mtopt/training/callbacks/_front_archive.py": lambda: {"Unlearn": Unlearn},
    "mtopt/training/gen/_gen.py": gen,
    "mtopt/training/sets/_sets.py": lambda: {"build": built},
    "mtopt/training/sets/_svgd.py": lambda: {
        "network": TwoDigits(),
        "perturbed": lambda network, seed: built(seed),
    },
}
"""What the examples of a module take for granted beside, or instead of, the everyday names."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(as_printed, module, capfd):
    run(MODULES[module], **(everyday() | WORLDS.get(module, dict)()))
    capfd.readouterr()
