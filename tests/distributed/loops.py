"""Other libraries' loops on this process's part of each batch, as torchrun would have started it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.data import DataLoader

import mtopt
from tests.distributed.models import place, weights_of
from tests.distributed.trainings import BATCH, Broken, Net, data_of, loader_of

HELD_OUT = 10
"""Examples: the last two are one rank's batch, and the Trainer repeats others to give the second rank one, too."""


@contextmanager
def as_torchrun_starts() -> Iterator[int]:
    """Within, the environment says what the process group says; gives the number of ranks."""
    rank, size = place()
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1, "TORCHELASTIC_RUN_ID": "here"}
    with mock.patch.dict(os.environ, {name: str(value) for name, value in names.items()} if size > 1 else {}):
        yield size


def two_losses(outputs: torch.Tensor, targets: torch.Tensor) -> dict[Any, torch.Tensor]:
    first, second = (outputs - targets).square().mean(0) + 0.1
    return {"first": first, "second": second}


def run_accelerate(rule: str, accumulate: int) -> dict[str, Any]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    from mtopt.integrations.accelerate import backward

    with as_torchrun_starts() as size:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        assert accelerator.num_processes == size
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        loader = DataLoader(data_of(), batch_size=BATCH // size)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        combiner = mtopt.create_combiner(rule)
        losses = []
        for _ in range(2):
            for inputs, targets in loader:
                with accelerator.accumulate(model):
                    record = backward(accelerator, two_losses(model(inputs), targets), model, combiner)
                    optimizer.step()
                    optimizer.zero_grad()
                    losses += [] if record is None else [record.losses]
        AcceleratorState._reset_state()
        PartialState._reset_state()
    return {"end": weights_of(model), "losses": losses}


def run_transformers(rule: str, accumulate: int, folder: Path, broken: bool = False) -> dict[str, Any]:
    from accelerate.state import AcceleratorState, PartialState
    from transformers import TrainingArguments, default_data_collator

    from mtopt.integrations.transformers import MultiLossMixin

    class Fitting(MultiLossMixin):
        def compute_losses(self, model: torch.nn.Module, inputs: Any) -> dict[Any, torch.Tensor]:
            if broken and self.state.global_step == 1 and place()[0] == 1:
                raise Broken("out of luck")
            return two_losses(model(inputs["x"]), inputs["y"])

    with as_torchrun_starts() as size:
        arguments = TrainingArguments(
            str(folder),
            per_device_train_batch_size=BATCH // size,
            per_device_eval_batch_size=2,
            gradient_accumulation_steps=accumulate,
            num_train_epochs=2,
            logging_steps=1,
            learning_rate=0.05,
            save_strategy="no",
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        train, held_out = ([{"x": x, "y": y} for x, y in data_of(count)] for count in (36, HELD_OUT))
        trainer = Fitting(
            Net(),
            arguments,
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=default_data_collator,
            combiner=rule,
        )
        try:
            trainer.train()
            values = trainer.evaluate()
        finally:
            AcceleratorState._reset_state()
            PartialState._reset_state()
    kept = ("loss", "loss_first", "loss_second", "eval_loss", "eval_loss_first", "eval_loss_second")
    logs = [{name: value for name, value in log.items() if name in kept} for log in trainer.state.log_history]
    return {"end": weights_of(trainer.model), "losses": logs, "values": {n: values[n] for n in kept if n in values}}


def run_lightning(rule: str, accumulate: int, folder: Path) -> dict[str, Any]:
    from lightning.pytorch import LightningModule, Trainer

    from mtopt.integrations.lightning import MultiLossMixin

    class Fitting(MultiLossMixin, LightningModule):
        def __init__(self) -> None:
            super().__init__(combiner=rule, accumulate_grad_batches=accumulate)
            self.net = Net()
            self.found: list[dict[str, float]] = []

        def losses(self, batch: Any) -> dict[Any, torch.Tensor]:
            return two_losses(self.net(batch[0]), batch[1])

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if outputs:
                self.found.append(outputs["record"].losses)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with as_torchrun_starts() as size:
        trainer = Trainer(
            accelerator="cpu",
            devices=size,
            strategy="ddp" if size > 1 else "auto",
            max_epochs=2,
            use_distributed_sampler=False,  # the loader has one, which Lightning tells the epoch
            enable_model_summary=False,
            **quiet,
        )
        module = Fitting()
        trainer.fit(module, loader_of(data_of()))
        trainer.save_checkpoint(folder / "last.ckpt")
    return {"end": weights_of(module), "losses": module.found, "steps": trainer.global_step}


def run_fabric(rule: str, accumulate: int) -> dict[str, Any]:
    from lightning.fabric import Fabric

    from mtopt.integrations.lightning import backward

    with as_torchrun_starts() as size:
        fabric = Fabric(accelerator="cpu", devices=size, strategy="ddp" if size > 1 else "auto")
        fabric.launch()
        network = Net()
        model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9))
        combiner = mtopt.create_combiner(rule)
        losses = []
        for number, (inputs, targets) in enumerate(loader_of(data_of()), start=1):
            more = number % accumulate != 0
            divided = {name: loss / accumulate for name, loss in two_losses(model(inputs), targets).items()}
            record = backward(fabric, divided, model, combiner, accumulate=more)
            if not more:
                assert record is not None
                losses.append(record.losses)
                optimizer.step()
                optimizer.zero_grad()
    return {"end": weights_of(network), "losses": losses}
