"""The Trainer of transformers with several losses goes the direction of ``mtopt.backward``, in all ways to train."""

from __future__ import annotations

import copy
import os
import runpy
import types

import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainerCallback, TrainingArguments

import mtopt
from mtopt.integrations.accelerate import refuse_engines
from mtopt.integrations.transformers import STATE_FILE, MultiLossMixin
from tests.integrations.support import EXAMPLES, assert_same_direction, assert_same_state, example, gradients

EXAMPLE = example("transformers_unlearning")


class Watched(EXAMPLE.Unlearning):
    """Keeps what each step started from, its batches, and its direction."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = []
        self.poisoned = ()
        self.add_callback(Watch(self))

    def compute_losses(self, model, inputs):
        if model.training:
            self.steps[-1].batches.append(inputs)
        losses = super().compute_losses(model, inputs)
        if model.training and len(self.steps) in self.poisoned:
            losses["retain"] = losses["retain"] * torch.inf
        return losses


class Watch(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        rule = copy.deepcopy(self.trainer.combiner)
        self.trainer.steps.append(types.SimpleNamespace(model=copy.deepcopy(model), rule=rule, batches=[]))

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.trainer.steps[-1].found = gradients(model)


def trainer_for(folder, kind=Watched, combiner="ngdiff", lora=False, data=None, **settings):
    settings = {"max_grad_norm": 0.0, "max_steps": 3, "logging_steps": 1, "save_strategy": "no", **settings}
    args = TrainingArguments(str(folder), report_to="none", use_cpu=True, disable_tqdm=True, **settings)
    data = list(EXAMPLE.pairs(16)) if data is None else data
    model = EXAMPLE.tiny_llama(lora)
    return kind(model, args, train_dataset=data, eval_dataset=data, combiner=combiner)


def expected_direction(step, **autocast):
    """Of the whole batch, by ``mtopt.backward``."""
    whole = {key: torch.cat([batch[key] for batch in step.batches]) for key in ("retain", "forget")}
    with torch.autocast("cpu", enabled=bool(autocast), **autocast):
        losses = EXAMPLE.Unlearning.compute_losses(None, step.model, whole)
    step.model.zero_grad()
    mtopt.backward(losses, step.model, step.rule)
    return gradients(step.model)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # asked for by peft
@pytest.mark.parametrize("lora", [False, True])
def test_the_direction_is_that_of_backward(tmp_path, lora):
    trainer = trainer_for(tmp_path, combiner="moco", lora=lora)
    trainer.train()
    assert len(trainer.steps) == 3
    for step in trainer.steps:
        assert_same_direction(step.found, expected_direction(step))
        assert all("lora" in name for name in step.found) == lora


def test_accumulation_is_the_large_batch(tmp_path):
    trainer = trainer_for(
        tmp_path, per_device_train_batch_size=3, gradient_accumulation_steps=4, max_steps=-1, num_train_epochs=1
    )
    trainer.args.dataloader_drop_last = True
    trainer.train()
    assert [len(step.batches) for step in trainer.steps] == [4, 1]  # five micro-batches, the last step has one
    for step in trainer.steps:
        assert_same_direction(step.found, expected_direction(step))


def test_accumulation_over_losses_that_are_divided_by_their_count_already(tmp_path):
    """Labels of different numbers: the mean over the step's labels is not the mean of the micro-batches' means."""

    class Counted(Watched):
        loss_is_scaled_for_ga = True

        def compute_losses(self, model, inputs):
            self.steps[-1].batches.append(inputs)
            items = self.num_items_in_batch
            first = model(input_ids=inputs["input_ids"], labels=inputs["labels"], num_items_in_batch=items).loss
            return {"first": first, "size": 0.1 * first.square() * 0 + _size(model) / 2}

    data = [{"input_ids": torch.arange(12) + k, "labels": torch.arange(12) + k} for k in range(8)]
    for k, row in enumerate(data):
        row["labels"][: k + 1] = -100
    trainer = trainer_for(
        tmp_path, Counted, data=data, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=1
    )
    trainer.train()
    (step,) = trainer.steps
    whole = {key: torch.cat([batch[key] for batch in step.batches]) for key in ("input_ids", "labels")}
    losses = {"first": step.model(**whole).loss, "size": _size(step.model)}
    mtopt.backward(losses, step.model, step.rule)
    assert_same_direction(step.found, gradients(step.model))


def _size(model):
    return sum(param.square().mean() for param in model.parameters())


def test_losses_as_functions_and_losses_that_a_micro_batch_lacks(tmp_path):
    class Separate(Watched):
        def compute_losses(self, model, inputs):
            losses = dict(super().compute_losses(model, inputs))
            if len(self.steps[-1].batches) == 2:
                losses["retain"] = None
            return {name: loss if loss is None else (lambda loss=loss: loss) for name, loss in losses.items()}

    trainer = trainer_for(tmp_path, Separate, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=1)
    trainer.train()
    (step,) = trainer.steps
    first, second = (EXAMPLE.Unlearning.compute_losses(None, step.model, batch) for batch in step.batches)
    forget = mtopt.Objective("forget", sense="max")
    losses = {"retain": first["retain"] / 2, forget: (first[forget] + second[forget]) / 2}
    record = mtopt.backward(losses, step.model, step.rule)
    assert_same_direction(step.found, gradients(step.model))
    assert trainer.record.losses == pytest.approx(record.losses)


def test_metrics_of_predictions_stay_the_trainers(tmp_path):
    data = [{"input_ids": torch.arange(12) + k, "labels": torch.arange(12) + k} for k in range(8)]

    class Plain(MultiLossMixin, Seq2SeqTrainer):
        def compute_losses(self, model, inputs):
            loss = model(**inputs).loss
            return {"first": loss, "second": 2 * loss}

    args = Seq2SeqTrainingArguments(str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True)
    metrics = {"right": lambda p: float((p.predictions.argmax(-1)[:, :-1] == p.label_ids[:, 1:]).mean())}
    trainer = Plain(
        EXAMPLE.tiny_llama(),
        args,
        eval_dataset=data,
        combiner="mgda",
        compute_metrics=lambda predictions: {name: of(predictions) for name, of in metrics.items()},
    )
    found = trainer.evaluate()
    batch = {key: torch.stack([row[key] for row in data]) for key in data[0]}
    with torch.no_grad():
        output = trainer.model(**batch)
    expected = float((output.logits.argmax(-1)[:, :-1] == batch["labels"][:, 1:]).float().mean())
    assert found["eval_right"] == pytest.approx(expected)
    assert found["eval_loss_first"] == pytest.approx(float(output.loss), rel=1e-5)
    assert found["eval_loss"] == pytest.approx(3 * float(output.loss), rel=1e-5)


def test_bfloat16(tmp_path):
    trainer = trainer_for(tmp_path, bf16=True, max_steps=1)
    trainer.train()
    assert_same_direction(trainer.steps[0].found, expected_direction(trainer.steps[0], dtype=torch.bfloat16))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_under_a_grad_scaler(tmp_path, micro_batches):
    trainer = trainer_for(
        tmp_path, combiner="moco", per_device_train_batch_size=4, gradient_accumulation_steps=micro_batches
    )
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.poisoned = (2,)
    trainer.train()
    first, second, third = trainer.steps
    assert_same_state(third.model.state_dict(), second.model.state_dict())
    assert_same_state(third.rule.state_dict(), second.rule.state_dict())
    assert_same_direction(first.found, expected_direction(first), scale=1024.0)
    assert_same_direction(third.found, expected_direction(third), scale=512.0)  # it has backed off
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["skipped"] for entry in logged] == [0, 1, 0]
    assert ["loss_retain" in entry for entry in logged] == [True, False, True]
    assert all("loss_forget" in entry for entry in logged)


def test_a_skipped_step_changes_nothing(tmp_path):
    trainer = trainer_for(tmp_path, combiner="moco")
    trainer.poisoned = (2,)
    trainer.train()
    _, second, third = trainer.steps
    assert second.found == {}
    assert_same_state(third.model.state_dict(), second.model.state_dict())
    assert_same_state(third.rule.state_dict(), second.rule.state_dict())
    strict = trainer_for(tmp_path, lambda *args, **kwargs: Watched(*args, strict=True, **kwargs))
    strict.poisoned = (1,)
    with pytest.raises(mtopt.NonFiniteError, match="retain"):
        strict.train()


def test_clipping_acts_on_the_direction(tmp_path):
    trainer = trainer_for(tmp_path, max_grad_norm=0.25, max_steps=1)
    trainer.train()
    expected = expected_direction(trainer.steps[0])
    norm = torch.stack([g.norm() for g in expected.values()]).norm()
    assert norm > 0.25
    assert_same_direction(trainer.steps[0].found, {k: g * 0.25 / (norm + 1e-6) for k, g in expected.items()})


def test_a_resumed_training_ends_where_the_whole_one_ends(tmp_path):
    settings = {"combiner": "moco", "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = trainer_for(tmp_path, **settings, gradient_accumulation_steps=2)
    whole.train()
    resumed = trainer_for(tmp_path, **settings, gradient_accumulation_steps=2)
    checkpoint = tmp_path / "checkpoint-3"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert len(resumed.steps) == 3
    assert_same_state(resumed.model.state_dict(), whole.model.state_dict())
    assert_same_state(resumed.combiner.state_dict(), whole.combiner.state_dict())
    fresh = mtopt.create_combiner("moco").state_dict()
    assert len(str(fresh)) < len(str(whole.combiner.state_dict()))  # there is a state to lose

    other = trainer_for(tmp_path, **{**settings, "combiner": "ngdiff"})
    with pytest.raises(mtopt.CheckpointError, match="belongs to rule 'MoCo', not to NGDiff"):
        other.train(resume_from_checkpoint=str(checkpoint))
    os.remove(checkpoint / STATE_FILE)
    with pytest.raises(mtopt.CheckpointError, match="save_only_model=False"):
        trainer_for(tmp_path, **settings).train(resume_from_checkpoint=str(checkpoint))


def test_a_new_model_gets_a_fresh_rule(tmp_path):
    def kind(model, *args, **kwargs):
        return Watched(None, *args, model_init=EXAMPLE.tiny_llama, **kwargs)

    trainer = trainer_for(tmp_path, kind, combiner="moco")
    trainer.train()
    first, state = copy.deepcopy(trainer.model.state_dict()), trainer.combiner.state_dict()
    trainer.train()
    assert_same_state(trainer.model.state_dict(), first)
    assert_same_state(trainer.combiner.state_dict(), state)


def test_logs_and_evaluation_have_every_loss(tmp_path):
    data = list(EXAMPLE.pairs(16))
    trainer = trainer_for(tmp_path, max_steps=4, logging_steps=2, per_device_eval_batch_size=6, data=data)
    metrics = trainer.evaluate()
    whole = {key: torch.stack([row[key] for row in data]) for key in ("retain", "forget")}
    with torch.no_grad():
        losses = {str(getattr(k, "name", k)): float(v) for k, v in trainer.compute_losses(trainer.model, whole).items()}
    assert metrics["eval_loss_retain"] == pytest.approx(losses["retain"], rel=1e-5)
    assert metrics["eval_loss_forget"] == pytest.approx(losses["forget"], rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx(losses["retain"] - losses["forget"], abs=1e-5)

    records = []

    class Records(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            records.append(trainer.record)

    trainer.add_callback(Records())
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2
    for entry, (first, second) in zip(logged, (records[:2], records[2:]), strict=True):
        for name in ("retain", "forget"):
            assert entry[f"loss_{name}"] == pytest.approx((first.losses[name] + second.losses[name]) / 2)
            assert entry[f"weight_{name}"] == pytest.approx((first.weights[name] + second.weights[name]) / 2)
        assert entry["cosine_retain_forget"] == pytest.approx((first.cosines[0, 1] + second.cosines[0, 1]) / 2)
        assert entry["conflicts"] == (first.conflicts + second.conflicts) / 2
        assert entry["loss"] == pytest.approx(entry["loss_retain"] - entry["loss_forget"], abs=1e-5)


def test_famo_is_shown_the_losses_after_the_step(tmp_path):
    class Both(Watched):
        def compute_losses(self, model, inputs):
            return dict(zip(("retain", "forget"), super().compute_losses(model, inputs).values(), strict=True))

    trainer = trainer_for(tmp_path, Both, combiner="famo", gradient_accumulation_steps=2, per_device_train_batch_size=4)
    trainer.train()
    for step, after in zip(trainer.steps, trainer.steps[1:], strict=False):
        whole = {key: torch.cat([batch[key] for batch in step.batches]) for key in ("retain", "forget")}
        rule = step.rule
        mtopt.backward(list(EXAMPLE.Unlearning.compute_losses(None, step.model, whole).values()), step.model, rule)
        with torch.no_grad():
            rule.reevaluate(torch.stack(list(EXAMPLE.Unlearning.compute_losses(None, after.model, whole).values())))
        found, expected = (each.state_dict()["state"]["_learned"]["values"] for each in (after.rule, rule))
        assert bool((expected != 0).any())
        # the losses fall by some 1e-3 of themselves, and are known to some 1e-7 of that: the fall is, to 1e-3 of itself
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_engines_with_a_backward_of_their_own_are_refused():
    with pytest.raises(RuntimeError, match="accelerator runs DEEPSPEED"):
        refuse_engines(types.SimpleNamespace(distributed_type="DEEPSPEED"))


def test_first_mistakes_are_explained(tmp_path):
    class Without(MultiLossMixin, Trainer):
        pass

    class Scalar(Watched):
        def compute_losses(self, model, inputs):
            return sum(super().compute_losses(model, inputs).values())

    class Vector(Watched):
        def compute_losses(self, model, inputs):
            return {"retain": model(input_ids=inputs["retain"]).logits}

    with pytest.raises(TypeError, match=r"Without must define compute_losses\(self, model, inputs\)"):
        trainer_for(tmp_path, Without)
    with pytest.raises(TypeError, match=r"Scalar\.compute_losses must return a mapping .* found Tensor"):
        trainer_for(tmp_path, Scalar).train()
    with pytest.raises(ValueError, match="loss 'retain' must be a scalar, found shape"):
        trainer_for(tmp_path, Vector).train()
    with pytest.raises(TypeError, match=r"create one: NGDiff\(\)"):
        trainer_for(tmp_path, combiner=type(mtopt.create_combiner("ngdiff")))
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'ngdiff'"):
        trainer_for(tmp_path, combiner="ngdif")
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0\.1 would have no effect"):
        trainer_for(tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="'lomo' updates parameters during backward"):
        trainer_for(tmp_path, optim="lomo")
    with pytest.raises(ValueError, match="compute_loss_func would not be called"):
        trainer_for(tmp_path, lambda *args, **kwargs: Watched(*args, compute_loss_func=print, **kwargs))
    with pytest.raises(ValueError, match=r"takes 3 independent mini-batches .* set the accumulation steps to 1"):
        trainer_for(tmp_path, combiner="modo", gradient_accumulation_steps=2, per_device_train_batch_size=4).train()


def test_the_example_runs(capsys):
    runpy.run_path(str(EXAMPLES / "transformers_unlearning.py"), run_name="__main__")
    found = dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if line.startswith(("ret", "for")))
    (kept, keeps), (forgot, forgets) = ([float(x) for x in found[k].split(" -> ")] for k in ("retain", "forget"))
    assert keeps < kept - 0.3
    assert forgets > forgot + 0.05
