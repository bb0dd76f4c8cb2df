"""The trainer of unlearning: what its steps are, with every rule and every pair of losses, and that runs resume."""

import pytest
import torch

import mtopt
from benchmarks.unlearning import losses
from benchmarks.unlearning.batches import ForgetRetainBatches, retain_batches
from benchmarks.unlearning.methods import create_trainer, method
from benchmarks.unlearning.models import with_lora
from benchmarks.unlearning.primal_dual import PrimalDual
from benchmarks.unlearning.trainer import FORGET_LOSSES, RETAIN_LOSSES, UnlearningTrainer
from tests.benchmarks.unlearning.steps import (
    ALTERNATIVES,
    RETAIN,
    adam,
    batches,
    flat,
    flat_gradient,
    model_of,
    sgd,
    step_taken,
)
from tests.benchmarks.unlearning.tiny import PAD, batch_of

# -- the step -------------------------------------------------------------------------------------------------------


def test_ngdiff_is_the_normalised_difference():
    direction, g_r, g_f, record = step_taken("ngdiff")
    torch.testing.assert_close(direction, g_r / g_r.norm() - g_f / g_f.norm(), rtol=1e-6, atol=1e-9)
    assert record.losses["forget"] > 0  # in the user's sense


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_gdiff_is_linear(c):
    direction, g_r, g_f, _ = step_taken(method(f"GDiff({c})").combiner())
    torch.testing.assert_close(direction, c * g_r - (1 - c) * g_f, rtol=1e-6, atol=1e-9)


def test_loss_ngdiff_divides_by_the_losses():
    model = model_of(0, dtype=torch.float64)
    batch = next(iter(batches()))
    with torch.no_grad():
        l_r, l_f = losses.nll(model, batch["retain"]), losses.nll(model, batch["forget"])
    direction, g_r, g_f, _ = step_taken("loss_ngdiff", model=model)
    torch.testing.assert_close(direction, g_r / l_r - g_f / l_f, rtol=1e-6, atol=1e-9)


def test_the_sums_of_the_recipes():
    direction, g_r, g_f, _ = step_taken(method("GDiff").combiner())
    torch.testing.assert_close(direction, g_r - g_f, rtol=1e-6, atol=1e-9)
    direction, _, g_f, _ = step_taken("linear", retain=None)
    torch.testing.assert_close(direction, -g_f, rtol=1e-6, atol=1e-9)
    weights = method("SimNPO").combiner().weights(torch.ones(2))
    assert (weights[1] / weights[0]).item() == pytest.approx(0.125)


def test_roles_are_where_the_rules_expect_them():
    """BLUR moves by ``gamma ||g_F||²`` along the forget gradient; GRU does not raise the retain loss; HAMU keeps its
    cosine: all with ``-g_F``, since the forget loss is minimised there."""
    direction, _, g_f, _ = step_taken("blur")
    assert (direction @ -g_f).item() == pytest.approx((g_f @ g_f).item(), rel=1e-6)
    direction, g_r, g_f, _ = step_taken("gru")
    assert (direction @ g_r).item() >= -1e-9
    expected = -g_f + max((g_f @ g_r).item(), 0.0) / (g_r @ g_r).item() * g_r
    torch.testing.assert_close(direction, expected, rtol=1e-6, atol=1e-9)
    direction, g_r, g_f, _ = step_taken(method("HAMU").combiner())
    bound = 0.5 * (g_r.norm() * g_f.norm()).item()
    assert (direction @ -g_f).item() >= bound * (1 - 1e-6)
    direction, g_r, g_f, _ = step_taken("munba")
    cosine = torch.cosine_similarity(g_r, -g_f, dim=0)
    expected = (g_r / g_r.norm() - g_f / g_f.norm()) / (1 + cosine).sqrt()
    torch.testing.assert_close(direction, expected, rtol=1e-5, atol=1e-8)


def test_the_retain_loss_falls_and_the_forget_loss_rises_under_ngdiff():
    model = model_of(0)
    trainer = UnlearningTrainer(model, sgd(model, 0.003), "ngdiff", seed=0)
    data = batches(batch_size=6)
    batch = next(iter(data))
    before = trainer.loss_values(batch)
    trainer.training_step(batch)
    after = trainer.loss_values(batch)
    assert {objective.name: after[objective] < before[objective] for objective in before} == {
        "retain": True,
        "forget": False,
    }


# -- every rule, every pair -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", mtopt.list_combiners())
def test_any_rule_takes_a_positive_pair(rule):
    model = model_of(0)
    trainer = UnlearningTrainer(model, adam(model), rule, forget="npo", seed=0)
    before = flat(model)
    history = trainer.fit(batches(), steps=2)
    assert len(history) == 2
    assert not any(record.skipped for record in history)
    assert not torch.equal(flat(model), before)
    assert bool(flat(model).isfinite().all())


@pytest.mark.parametrize(
    ("forget", "retain"),
    [*((forget, "nll") for forget in FORGET_LOSSES), *(("npo", retain) for retain in RETAIN_LOSSES)],
)
def test_any_pair_takes_ngdiff(forget, retain):
    model = model_of(0)
    trainer = UnlearningTrainer(
        model, adam(model), "ngdiff", forget=forget, retain=retain, reference=model_of(1), seed=0
    )
    record = trainer.training_step(next(iter(batches())))
    assert list(record.losses) == ["retain", "forget"]
    assert not record.skipped
    assert min(record.norms.values()) > 0


def test_a_rule_for_positive_losses_refuses_a_maximised_one():
    model = model_of(0)
    trainer = UnlearningTrainer(model, adam(model), "gls", forget="nll")
    with pytest.raises(ValueError, match="needs every loss > 0"):
        trainer.training_step(next(iter(batches())))


def test_options_and_functions_of_ones_own():
    """A function is a loss like those with a name, and gets the context that it asks for."""
    seen = []

    def own(model, batch, *, reference, idk, factor):
        seen.append((reference, idk))
        return factor * losses.npo(model, batch, reference=reference)

    model = model_of(0, dtype=torch.float64)
    trainer = UnlearningTrainer(model, sgd(model), "linear", forget=own, forget_options={"factor": 3.0})
    named = UnlearningTrainer(model, sgd(model), "linear", forget="npo", forget_options={"beta": 0.1})
    batch = next(iter(batches()))
    ours, theirs = (
        {objective.name: value for objective, value in each.loss_values(batch).items()} for each in (trainer, named)
    )
    assert ours["forget"] == pytest.approx(3 * theirs["forget"])
    assert ours["retain"] == pytest.approx(theirs["retain"])
    reference, idk = seen[0]
    assert reference is trainer.reference
    torch.testing.assert_close(idk["input_ids"], batch["idk"]["input_ids"])


def test_the_reference_stays_as_the_model_was():
    model = model_of(0)
    trainer = UnlearningTrainer(model, adam(model, 1e-2), "linear", forget="npo", seed=0)
    start = flat(model)
    trainer.fit(batches(), epochs=1)
    assert torch.equal(flat(trainer.reference), start)
    assert not torch.equal(flat(model), start)
    assert UnlearningTrainer(model, adam(model), "linear", forget="nll").reference is None


def test_evaluation_averages_both_losses():
    model = model_of(0)
    trainer = UnlearningTrainer(model, adam(model), "ngdiff")
    data = list(batches(batch_size=4))
    found = trainer.evaluate(data)
    with torch.no_grad():
        expected = sum(losses.nll(model, batch["forget"]) * len(batch["forget"]["labels"]) for batch in data) / 6
    assert found["forget"] == pytest.approx(expected.item(), rel=1e-5)
    assert set(found) == {"retain", "forget"}


# -- frozen weights, GeN, resuming -------------------------------------------------------------------------------------


def test_lora_trains_the_adapters_alone():
    model = with_lora(model_of(0), rank=2)
    frozen = {name: param.clone() for name, param in model.named_parameters() if not param.requires_grad}
    trainer = UnlearningTrainer(model, adam(model, 1e-2), "ngdiff", forget="npo", seed=0)
    history = trainer.fit(batches(), epochs=1)
    assert not any(record.skipped for record in history)
    assert all(torch.equal(param, frozen[name]) for name, param in model.named_parameters() if name in frozen)
    assert any(param.abs().max() > 0 for name, param in model.named_parameters() if "lora_B" in name)


def test_gen_takes_the_best_rate_for_the_retained_rows():
    """The rate is the lowest point of the parabola of the retain loss along NGDiff's own step, on the probe's rows."""
    model = model_of(0, dtype=torch.float64)
    probes = retain_batches(RETAIN, count=2, batch_size=6, pad_id=PAD)
    trainer = create_trainer("NGDiff+GeN(fresh, smoothed, searched)", model, sgd(model, 1e-3), probe_batches=probes)
    batch = next(iter(batches()))
    g_r = flat_gradient(model, losses.nll(model, batch["retain"]))
    g_f = flat_gradient(model, losses.nll(model, batch["forget"]))
    before = flat(model)
    direction = g_r / g_r.norm() - g_f / g_f.norm()
    trainer.training_step(batch)
    probe = trainer.probe
    assert probe.searching
    assert (before - flat(model)).norm().item() == pytest.approx(probe.rate * direction.norm().item(), rel=1e-6)
    twin = model_of(0, dtype=torch.float64)

    def retained(rate):
        torch.nn.utils.vector_to_parameters(before - rate * direction, twin.parameters())
        with torch.no_grad():
            return losses.nll(twin, probes[0]["retain"]).item()

    # the probe's own three losses, made again by hand at the rate that it probed last, and their parabola
    low, middle, high = probe.losses
    assert middle == pytest.approx(retained(0.0), rel=1e-9)
    eta = probe.optimum / (0.5 * (low - high) / (high - 2 * middle + low))
    assert low == pytest.approx(retained(-eta), rel=1e-7)
    assert high == pytest.approx(retained(eta), rel=1e-7)
    assert retained(probe.rate) < middle


@pytest.mark.parametrize("name", ["NGDiff+GeN", "PDU", "GRU"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(name, tmp_path):
    def fit(steps, folder):
        model = model_of(0)
        trainer = create_trainer(
            name, model, adam(model), steps_per_epoch=3, seed=0, combiner=PrimalDual() if name == "PDU" else None
        )
        trainer.fit(batches(), steps=steps, checkpoint_dir=folder)
        return flat(model)

    whole = fit(6, tmp_path / "whole")
    fit(2, tmp_path / "parts")
    assert torch.equal(fit(6, tmp_path / "parts"), whole)


# -- errors ---------------------------------------------------------------------------------------------------------


def test_wrong_names_and_options_are_named():
    model = model_of(0)
    for call, error, words in (
        (lambda: method("NPO+"), mtopt.UnknownNameError, "unknown method 'NPO\\+'; known names: GA"),
        (lambda: UnlearningTrainer(model, sgd(model), "mgda", forget="ga"), mtopt.UnknownNameError, "forget loss 'ga'"),
        (lambda: UnlearningTrainer(model, sgd(model), "mgda", retain="x"), mtopt.UnknownNameError, "retain loss 'x'"),
        (
            lambda: UnlearningTrainer(model, sgd(model), "mgda", forget="npo", forget_options={"gamma": 1}),
            TypeError,
            r"forget_options has \['gamma'\].*its own: \['beta'\]",
        ),
        (
            lambda: UnlearningTrainer(model, sgd(model), "mgda", forget="npo", reference=model),
            ValueError,
            "reference is the model that is trained",
        ),
        (lambda: create_trainer("NPO", model, sgd(model), probe_batches=[]), ValueError, "probe_batches is for"),
        (lambda: batches(batch_size=0), ValueError, "batch_size must be"),
        (lambda: batches(alternatives=ALTERNATIVES[:2]), ValueError, "each of the 6 forget rows, got them for 2"),
        (lambda: ForgetRetainBatches([], RETAIN, batch_size=2, pad_id=PAD), ValueError, "forget is empty"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_batch_without_a_side_is_named():
    model = model_of(0)
    trainer = UnlearningTrainer(model, sgd(model), "linear", forget="idk_nll")
    with pytest.raises(ValueError, match=r"no side 'idk'.*found \['forget', 'retain'\]"):
        trainer.training_step({"forget": batch_of(0), "retain": batch_of(1)})
