"""Other libraries' loops that end early, write a checkpoint, and go on from it with all things built anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader

import mtopt
from mtopt.distributed import processes_of
from mtopt.training import load_rule_state, read_checkpoint, whole_rule_state, write_checkpoint
from tests.distributed.loops import accelerate_shards_on_the_cpu, as_torchrun_starts, shard_net, two_losses
from tests.distributed.models import place, weights_of
from tests.distributed.trainings import BATCH, Net, data_of, loader_of

EPOCHS, HALF, EXAMPLES = 2, 1, 12


def end_of(model: torch.nn.Module, optimizer: Any, combiner: mtopt.Combiner) -> dict[str, Any]:
    """The whole parameters, and the bits of the optimizer's state and the rule's that this rank has."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    moments = [
        value.to_local() if hasattr(value, "to_local") else value
        for group in optimizer.param_groups
        for param in group["params"]
        for _, value in sorted(optimizer.state[param].items())
        if isinstance(value, torch.Tensor)
    ]
    return {"end": weights_of(model), "moments": [m.clone() for m in moments], "rule": combiner.state_dict()}


def resume_transformers(rule: str, folder: Path, wrap: str) -> list[dict[str, Any]]:
    from transformers import TrainingArguments, default_data_collator

    from mtopt.integrations.transformers import MultiLossMixin

    class Fitting(MultiLossMixin):
        def compute_losses(self, model: torch.nn.Module, inputs: Any) -> dict[Any, torch.Tensor]:
            return two_losses(model(inputs["x"]), inputs["y"])

    def trained(name: str, until: int | None, resume: Path | None) -> dict[str, Any]:
        with as_torchrun_starts() as size, accelerate_shards_on_the_cpu():
            sharded = wrap == "fsdp" and size > 1
            arguments = TrainingArguments(
                str(folder / name),
                fsdp=sharded or None,
                fsdp_config={"auto_wrap_policy": "SIZE_BASED_WRAP", "min_num_params": 20} if sharded else None,
                per_device_train_batch_size=BATCH // size,
                num_train_epochs=EPOCHS,
                logging_strategy="no",
                learning_rate=0.05,
                save_strategy="steps" if until else "no",
                save_steps=until or 1,
                remove_unused_columns=False,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            )
            trainer = Fitting(
                Net(),
                arguments,
                train_dataset=[{"x": x, "y": y} for x, y in data_of(EXAMPLES)],
                data_collator=default_data_collator,
                combiner=rule,
            )
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
            return end_of(trainer.model, trainer.optimizer, trainer.combiner)

    half = HALF * EXAMPLES // BATCH
    at_once = trained("at_once", None, None)
    trained("first", half, None)
    return [at_once, trained("second", None, folder / "first" / f"checkpoint-{half}")]


def resume_lightning(rule: str, folder: Path, wrap: str, whole: bool = False) -> list[dict[str, Any]]:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import ModelParallelStrategy

    from mtopt.integrations.lightning import MultiLossMixin

    class Fitting(MultiLossMixin, LightningModule):
        def __init__(self) -> None:
            super().__init__(combiner=rule)
            self.net = Net()

        def configure_model(self) -> None:
            if self.device_mesh is not None:
                shard_net(self.net, self.device_mesh)

        def losses(self, batch: Any) -> dict[Any, torch.Tensor]:
            return two_losses(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.05)

    def trained(epochs: int, resume: Path | None) -> dict[str, Any]:
        with as_torchrun_starts() as size:
            sharded = ModelParallelStrategy(
                data_parallel_size=size, tensor_parallel_size=1, save_distributed_checkpoint=not whole
            )
            trainer = Trainer(
                accelerator="cpu",
                devices=size,
                strategy="auto" if size == 1 else sharded if wrap == "fsdp" else "ddp",
                max_epochs=epochs,
                use_distributed_sampler=False,
                enable_model_summary=False,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
            )
            module = Fitting()
            trainer.fit(module, loader_of(data_of(EXAMPLES)), ckpt_path=resume)
            if epochs == HALF:
                trainer.save_checkpoint(folder / "half.ckpt")
            return end_of(module, trainer.optimizers[0], module.combiner)

    at_once = trained(EPOCHS, None)
    trained(HALF, None)
    return [at_once, trained(EPOCHS, folder / "half.ckpt")]


def resume_fabric(rule: str, folder: Path, wrap: str, by_hand: bool = True) -> list[dict[str, Any]]:
    """With the rule's state made whole and loaded by hand, or the rule given to Fabric as it is."""
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy

    from mtopt.integrations.lightning import backward

    def trained(first: int, last: int) -> dict[str, Any]:
        with as_torchrun_starts() as size:
            sharded = wrap == "fsdp" and size > 1
            shards = ModelParallelStrategy(shard_net, data_parallel_size=size, tensor_parallel_size=1)
            strategy = shards if sharded else "ddp" if size > 1 else "auto"
            fabric = Fabric(accelerator="cpu", devices=size, strategy=strategy)
            fabric.launch()
            model = fabric.setup_module(Net())
            optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=0.05))
            combiner = mtopt.create_combiner(rule)
            state: dict[str, Any] = {"model": model, "optimizer": optimizer, "combiner": None if by_hand else combiner}
            if first:
                fabric.load(folder / "half.ckpt", state)
                if by_hand:
                    load_rule_state(combiner, state["combiner"], model.module)
            loader = loader_of(data_of(EXAMPLES))
            for epoch in range(first, last):
                loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
                for inputs, targets in loader:
                    backward(fabric, two_losses(model(inputs), targets), model, combiner)
                    optimizer.step()
                    optimizer.zero_grad()
            if last == HALF:
                if by_hand:
                    with processes_of() as processes:
                        state["combiner"] = whole_rule_state(combiner, model.module, processes)
                fabric.save(folder / "half.ckpt", state)
            return {**end_of(model.module, optimizer, combiner), "entry": type(state["combiner"]).__name__}

    at_once = trained(0, EPOCHS)
    trained(0, HALF)
    return [at_once, trained(HALF, EPOCHS)]


def resume_accelerate(rule: str, folder: Path, wrap: str, by_hand: bool = False) -> list[dict[str, Any]]:
    """With the rule registered for checkpoints, or, where it keeps something of the shards, saved by hand."""
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin

    from mtopt.integrations.accelerate import backward

    def trained(first: int, last: int) -> dict[str, Any]:
        with as_torchrun_starts() as size, accelerate_shards_on_the_cpu():
            plugin = None
            if wrap == "fsdp" and size > 1:
                by_size = {"auto_wrap_policy": "size_based_wrap", "min_num_params": 20}
                plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **by_size)
            accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
            model = Net()
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
            model, optimizer = accelerator.prepare(model, optimizer)
            combiner = mtopt.create_combiner(rule)
            if not by_hand:
                accelerator.register_for_checkpointing(combiner)
            if first:
                accelerator.load_state(str(folder / "half"))
                if by_hand:
                    load_rule_state(combiner, read_checkpoint(folder / "rule.pt"), model)
            rank, size = place()
            for _ in range(first, last):
                for inputs, targets in DataLoader(data_of(EXAMPLES), batch_size=BATCH):
                    losses = two_losses(model(inputs[rank::size]), targets[rank::size])
                    backward(accelerator, losses, model, combiner)
                    optimizer.step()
                    optimizer.zero_grad()
            if last == HALF:
                accelerator.save_state(str(folder / "half"))
                if by_hand:
                    with processes_of() as processes:
                        state = whole_rule_state(combiner, model, processes)
                    if rank == 0:
                        write_checkpoint(folder / "rule.pt", state)
                    if size > 1:
                        distributed.barrier()
            return end_of(model, optimizer, combiner)

    at_once = trained(0, EPOCHS)
    trained(0, HALF)
    return [at_once, trained(HALF, EPOCHS)]
