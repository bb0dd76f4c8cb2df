"""Other libraries' loops on this process's part of each batch, as torchrun would have started it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
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


@contextmanager
def accelerate_shards_on_the_cpu() -> Iterator[None]:
    """Within, Accelerate takes its FSDP plugin on the CPU as it does on a GPU, and not for DDP, in silence."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    start = AcceleratorState.__init__

    def started(self: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        start(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    before = os.environ.pop("ACCELERATE_USE_FSDP", None)
    with mock.patch.object(AcceleratorState, "__init__", started):
        try:
            yield
        finally:
            AcceleratorState._reset_state()
            PartialState._reset_state()
            os.environ.pop("ACCELERATE_USE_FSDP", None)
            if before is not None:
                os.environ["ACCELERATE_USE_FSDP"] = before


def shard_net(net: Net, mesh: DeviceMesh) -> Net:
    """The model sharded as Lightning has its user do it."""
    for part in (*net.parts(), net):
        fully_shard(part, mesh=mesh["data_parallel"])
    return net


def two_losses(outputs: torch.Tensor, targets: torch.Tensor) -> dict[Any, torch.Tensor]:
    first, second = (outputs - targets).square().mean(0) + 0.1
    return {"first": first, "second": second}


def run_accelerate(rule: str, accumulate: int, wrap: str = "ddp") -> dict[str, Any]:
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin

    from mtopt.integrations.accelerate import backward

    with as_torchrun_starts() as size, accelerate_shards_on_the_cpu():
        plugin = None
        if wrap == "fsdp" and size > 1:
            by_size = {"auto_wrap_policy": "size_based_wrap", "min_num_params": 20}
            plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **by_size)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, fsdp_plugin=plugin)
        assert accelerator.num_processes == size
        assert accelerator.is_fsdp2 == (plugin is not None)
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
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
                    losses += [] if record is None else [record.losses]
    return {"end": weights_of(model), "losses": losses}


def run_transformers(
    rule: str, accumulate: int, folder: Path, wrap: str = "ddp", broken: bool = False
) -> dict[str, Any]:
    from transformers import TrainingArguments, default_data_collator

    from mtopt.integrations.transformers import MultiLossMixin

    class Fitting(MultiLossMixin):
        def compute_losses(self, model: torch.nn.Module, inputs: Any) -> dict[Any, torch.Tensor]:
            if broken and self.state.global_step == 1 and place()[0] == 1:
                raise Broken("out of luck")
            return two_losses(model(inputs["x"]), inputs["y"])

    with as_torchrun_starts() as size, accelerate_shards_on_the_cpu():
        sharded = wrap == "fsdp" and size > 1
        arguments = TrainingArguments(
            str(folder),
            fsdp=sharded or None,
            fsdp_config={"auto_wrap_policy": "SIZE_BASED_WRAP", "min_num_params": 20} if sharded else None,
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
        trainer.train()
        assert trainer.accelerator.is_fsdp2 == sharded
        values = trainer.evaluate()
    kept = ("loss", "loss_first", "loss_second", "eval_loss", "eval_loss_first", "eval_loss_second")
    logs = [{name: value for name, value in log.items() if name in kept} for log in trainer.state.log_history]
    return {"end": weights_of(trainer.model), "losses": logs, "values": {n: values[n] for n in kept if n in values}}


def run_loaded(combiner: str, folder: Path) -> dict[str, Any]:
    """A Llama that transformers itself shards when it loads it, trained by the Trainer."""
    from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments, default_data_collator
    from transformers.distributed import DistributedConfig

    from mtopt.integrations.transformers import MultiLossMixin

    class Fitting(MultiLossMixin):
        def compute_losses(self, model: torch.nn.Module, inputs: Any) -> dict[Any, torch.Tensor]:
            kept, forgotten = (model(input_ids=tokens, labels=tokens).loss for tokens in inputs["tokens"].unbind(1))
            return {"retain": kept, mtopt.Objective("forget", sense="max"): forgotten}

    with as_torchrun_starts() as size, accelerate_shards_on_the_cpu():
        torch.manual_seed(0)
        layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=16, max_position_embeddings=8, **layers)).double()
        if size > 1:
            model.save_pretrained(folder / "model")  # which writes on the first rank alone
            torch.distributed.barrier()
            shards = DistributedConfig(fsdp_size=size)
            model = LlamaForCausalLM.from_pretrained(folder / "model", distributed_config=shards, dtype=torch.float64)
        arguments = TrainingArguments(
            str(folder),
            per_device_train_batch_size=4 // size,
            gradient_accumulation_steps=2,
            max_steps=3,
            logging_steps=1,
            learning_rate=1e-2,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        data = [{"tokens": tokens} for tokens in torch.randint(16, (24, 2, 8))]
        held_out = data[:4]
        trainer = Fitting(
            model,
            arguments,
            train_dataset=data,
            eval_dataset=held_out,
            data_collator=default_data_collator,
            combiner=combiner,
        )
        trainer.evaluate()  # before there is an optimizer, which must be given the parameters all the same
        trainer.train()
    names = ("loss", "loss_retain", "loss_forget")
    logs = [{name: log[name] for name in names} for log in trainer.state.log_history if "loss" in log]
    return {"end": weights_of(trainer.model), "losses": logs}


def run_lightning(rule: str, accumulate: int, folder: Path, wrap: str = "ddp") -> dict[str, Any]:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import ModelParallelStrategy

    from mtopt.integrations.lightning import MultiLossMixin

    class Fitting(MultiLossMixin, LightningModule):
        def __init__(self) -> None:
            super().__init__(combiner=rule, accumulate_grad_batches=accumulate, gradient_clip_val=0.5)
            self.net = Net()
            self.found: list[dict[str, float]] = []

        def configure_model(self) -> None:
            if self.device_mesh is not None:  # there is one under ModelParallelStrategy
                shard_net(self.net, self.device_mesh)

        def losses(self, batch: Any) -> dict[Any, torch.Tensor]:
            return two_losses(self.net(batch[0]), batch[1])

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if outputs:
                self.found.append(outputs["record"].losses)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with as_torchrun_starts() as size:
        sharded = ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1)
        trainer = Trainer(
            accelerator="cpu",
            devices=size,
            strategy="auto" if size == 1 else sharded if wrap == "fsdp" else "ddp",
            max_epochs=2,
            use_distributed_sampler=False,  # the loader has one, which Lightning tells the epoch
            enable_model_summary=False,
            **quiet,
        )
        module = Fitting()
        trainer.fit(module, loader_of(data_of()))
        trainer.save_checkpoint(folder / "last.ckpt")
    return {"end": weights_of(module), "losses": module.found, "steps": trainer.global_step}


def run_fabric(rule: str, accumulate: int, wrap: str = "ddp") -> dict[str, Any]:
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy

    from mtopt.integrations.lightning import backward

    with as_torchrun_starts() as size:
        sharded = wrap == "fsdp" and size > 1
        shards = ModelParallelStrategy(shard_net, data_parallel_size=size, tensor_parallel_size=1)
        strategy = shards if sharded else "ddp" if size > 1 else "auto"
        fabric = Fabric(accelerator="cpu", devices=size, strategy=strategy)
        fabric.launch()
        network = Net()
        model = fabric.setup_module(network)
        optimizer = fabric.setup_optimizers(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
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
