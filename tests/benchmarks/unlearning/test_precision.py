"""Checkpoints in half precision, and trainings that would train nothing."""

import pytest
import torch

import mtopt
from benchmarks.unlearning._skips import StopAfterSkips
from benchmarks.unlearning.methods import create_trainer
from benchmarks.unlearning.models import load, with_lora
from benchmarks.unlearning.trainer import UnlearningTrainer
from tests.benchmarks.unlearning.chat_tokenizers import chat_tokenizer
from tests.benchmarks.unlearning.steps import adam, batches, flat, model_of


@pytest.mark.parametrize(
    ("saved", "asked", "loaded"),
    [
        (torch.float16, None, torch.float32),
        (torch.float16, torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16, torch.float16),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float32, None, torch.float32),
    ],
)
def test_float16_checkpoints_are_loaded_in_float32(saved, asked, loaded, tmp_path):
    model = model_of(0).to(saved)
    model.save_pretrained(tmp_path)
    chat_tokenizer("gemma").save_pretrained(tmp_path)
    found, _ = load(tmp_path, dtype=asked)
    assert {param.dtype for param in found.parameters()} == {loaded}
    assert all(
        torch.equal(mine, other.to(loaded)) for mine, other in zip(found.parameters(), model.parameters(), strict=True)
    )


def test_float16_weights_are_refused_before_training():
    model = model_of(0, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"embed_tokens\.weight is to be trained in float16.*float32 or torch\.bf"):
        UnlearningTrainer(model, adam(model), "ngdiff")
    adapted = with_lora(model, rank=2)  # adapters are float32 whatever the model is
    UnlearningTrainer(adapted, adam(adapted), "ngdiff")


def test_twenty_skips_in_a_row_end_the_training():
    model = model_of(0)
    start = flat(model)
    broken = lambda model, batch: model(input_ids=batch["input_ids"]).logits.mean() * torch.nan  # noqa: E731
    trainer = create_trainer("NGDiff", model, adam(model), retain=broken, callbacks=[StopAfterSkips()], seed=0)
    with (
        pytest.warns(UserWarning, match="the last 20 steps were all skipped"),
        pytest.raises(mtopt.NonFiniteError, match=r"20 steps in a row were skipped, .*step 20\) because .*retain.*nan"),
    ):
        trainer.fit(batches(), epochs=100)
    assert trainer.step == 20
    assert torch.equal(flat(model), start)


def test_skips_with_a_step_between_them_are_let_pass():
    model, seen = model_of(0), []

    def at_times_broken(model, batch):
        seen.append(1)
        loss = model(input_ids=batch["input_ids"]).logits.mean()
        return loss if len(seen) % 3 == 0 else loss * torch.nan

    callback = StopAfterSkips(3)
    trainer = create_trainer("NGDiff", model, adam(model), retain=at_times_broken, callbacks=[callback], seed=0)
    trainer.fit(batches(), epochs=4)
    assert trainer.step == 12
    assert trainer.history["skipped"].sum() == 8
