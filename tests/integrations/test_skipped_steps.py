"""What schedulers count and what logs hold, where steps are skipped and where a step has several micro-batches."""

from __future__ import annotations

import math

import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from transformers import TrainingArguments

from tests.integrations import test_lightning as lightning
from tests.integrations import test_transformers as transformers

pytestmark = lightning.pytestmark


class Rates(Callback):
    def __init__(self):
        self.at_epochs = []

    def on_train_epoch_end(self, trainer, module):
        self.at_epochs.append(trainer.optimizers[0].param_groups[0]["lr"])


class Entries(Logger):
    """Keeps what it is given to log."""

    name = version = "kept"

    def __init__(self):
        super().__init__()
        self.entries = []

    def log_metrics(self, metrics, step=None):
        self.entries.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_counts_whatever_its_last_step_was(accumulate):
    module = lightning.Watched(schedule={"interval": "epoch"}, accumulate_grad_batches=accumulate)
    module.poisoned = (4 // accumulate,)
    rates = Rates()
    lightning.fit(module, max_epochs=4, callbacks=[rates])
    assert rates.at_epochs == [0.05, 0.025, 0.0125, 0.00625]


@pytest.mark.parametrize(
    ("poisoned", "frequency", "count"),
    [((3,), 3, 2), ((2,), 3, 2), ((2, 3), 3, 2), ((1, 2, 3), 3, 1), ((8,), 4, 1), ((4,), 1, 7)],
)
def test_skipped_steps_do_not_count(poisoned, frequency, count):
    module = lightning.Watched(schedule={"interval": "step", "frequency": frequency})
    module.poisoned = poisoned
    lightning.fit(module, max_epochs=2)
    assert len(module.steps) == 8
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**count)


def test_the_steps_that_count_are_in_checkpoints(tmp_path):
    class Last(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    whole, resumed = (lightning.Watched(schedule={"interval": "step", "frequency": 5}) for _ in range(2))
    whole.poisoned = (2,)  # 7 of 8 steps count: the fifth is the second of the second epoch
    lightning.fit(whole, max_epochs=2, callbacks=[Last()])
    assert whole.optimizers().param_groups[0]["lr"] == 0.05
    lightning.fit(resumed, max_epochs=2, ckpt_path=tmp_path / "0.ckpt")
    lightning.assert_same_state(resumed.state_dict(), whole.state_dict())
    assert resumed.optimizers().param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3])])
def test_each_step_is_logged_once(every, steps):
    module, logger, seen = lightning.Watched(accumulate_grad_batches=2), Entries(), []

    class Records(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if outputs:
                seen.append(outputs["record"].losses["sign"])
                assert float(trainer.callback_metrics["loss_sign"]) == pytest.approx(seen[-1])

    lightning.fit(module, max_epochs=2, logger=logger, log_every_n_steps=every, callbacks=[Records()])
    found = [entry["loss_sign"] for entry in logger.entries if "loss_sign" in entry]
    assert len(seen) == 4
    assert found == pytest.approx([seen[step - 1] for step in steps])


def poisoned_trainer(folder, poisoned, **settings):
    """A Trainer whose losses are infinite in micro-batches, counted from 1; the values of the others are kept."""

    class Poisoned(transformers.Watched):
        def compute_losses(self, model, inputs):
            losses = super().compute_losses(model, inputs)
            count = sum(len(step.batches) for step in self.steps)
            if count in poisoned:
                return {name: loss * math.nan for name, loss in losses.items()}
            retain, forget = (float(loss.detach()) for loss in losses.values())
            self.totals[count] = retain - forget
            return losses

    trainer = transformers.trainer_for(folder, Poisoned, per_device_train_batch_size=4, **settings)
    trainer.totals = {}
    return trainer


@pytest.mark.parametrize(
    ("poisoned", "settings", "counted"),
    [
        ((2,), {}, [[1], [], [3]]),
        ((2,), {"logging_steps": 3}, [[1, 3]]),
        ((1,), {"logging_steps": 3}, [[2, 3]]),
        ((1, 4), {"gradient_accumulation_steps": 2}, [[2], [3], [5, 6]]),
        ((3, 4), {"gradient_accumulation_steps": 2, "logging_steps": 3}, [[1, 2, 5, 6]]),
        ((), {"gradient_accumulation_steps": 2, "logging_steps": 3}, [[1, 2, 3, 4, 5, 6]]),
    ],
)
def test_a_micro_batch_that_is_skipped_is_left_out_of_the_loss(poisoned, settings, counted, tmp_path):
    trainer = poisoned_trainer(tmp_path, poisoned, **settings)
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    means = [sum(trainer.totals[k] for k in one) / len(one) if one else math.nan for one in counted]
    assert found == pytest.approx(means, abs=1e-5, nan_ok=True)


def test_columns_that_are_kept_are_told_of(tmp_path, caplog):
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    trainer = transformers.Watched(transformers.EXAMPLE.tiny_llama(), args, combiner="mgda")
    assert args.remove_unused_columns  # another Trainer may have the same arguments
    assert not trainer.args.remove_unused_columns
    assert [record.message[:44] for record in caplog.records] == ["remove_unused_columns=True is taken as False"]
    caplog.clear()
    args.remove_unused_columns = False
    transformers.Watched(transformers.EXAMPLE.tiny_llama(), args, combiner="mgda")
    assert not caplog.records
