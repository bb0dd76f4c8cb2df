"""The trainer of unlearning: what its steps are, with every rule and every pair of losses, and that runs resume."""

import functools

import pytest
import torch

import mtopt
from benchmarks.unlearning import losses
from benchmarks.unlearning.batches import ForgetRetainBatches, retain_batches
from benchmarks.unlearning.methods import METHODS, Recipe, create_trainer, method
from benchmarks.unlearning.models import with_lora
from benchmarks.unlearning.primal_dual import PrimalDual
from benchmarks.unlearning.trainer import FORGET_LOSSES, RETAIN_LOSSES, UnlearningTrainer
from tests.benchmarks.unlearning import tiny
from tests.benchmarks.unlearning.tiny import PAD, batch_of, rows_of

model_of = functools.partial(tiny.model_of, layers=1)

FORGET, RETAIN = rows_of(10, 6), rows_of(11, 12)
ALTERNATIVES = [rows_of(20 + place, 3, answer=2) for place in range(6)]


@pytest.fixture(scope="module", autouse=True)
def seen():
    """The slow import of transformers, once and not in a test's time."""
    model_of(0)


def batches(**options):
    return ForgetRetainBatches(
        FORGET, RETAIN, **{"batch_size": 2, "pad_id": PAD, "alternatives": ALTERNATIVES, **options}
    )


def sgd(model, rate=0.1):
    return torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=rate)


def adam(model, rate=1e-3):
    return torch.optim.AdamW([param for param in model.parameters() if param.requires_grad], lr=rate)


def flat(model):
    return torch.cat([param.detach().flatten() for param in model.parameters()]).double()


def flat_gradient(model, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).double()


def step_taken(rule, *, model=None, rate=0.01, **options):
    """The direction of one step of SGD, ``(before - after) / rate``, and the gradients of the two NLLs."""
    model = model or model_of(0, dtype=torch.float64)
    trainer = UnlearningTrainer(model, sgd(model, rate), rule, **options)
    batch = next(iter(batches()))
    g_r = flat_gradient(model, losses.nll(model, batch["retain"]))
    g_f = flat_gradient(model, losses.nll(model, batch["forget"]))
    before = flat(model)
    record = trainer.training_step(batch)
    return (before - flat(model)) / rate, g_r, g_f, record


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


# -- frozen weights, GeN, PDU ---------------------------------------------------------------------------------------


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
    trainer = create_trainer("NGDiff+GeN", model, sgd(model, 1e-3), probe_batches=probes)
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


def test_primal_dual_weighs_and_climbs():
    rule = PrimalDual(multiplier=2.0, step=0.5, threshold=1.0, gamma=3.0, warmup=1)
    found = [rule.weights(torch.tensor([loss, 7.0])).tolist() for loss in (2.0, 2.0, 0.0, -9.0, 0.0)]
    # held in the first step, then 2 + 0.5, + 0.5 (-1), and no lower than zero
    assert found == [[2.0, 3.0], [2.0, 3.0], [2.5, 3.0], [2.0, 3.0], [0.0, 3.0]]
    swapped = PrimalDual(multiplier=2.0, gamma=3.0, retain=1, forget=0)
    assert swapped.weights(torch.tensor([7.0, 2.0])).tolist() == [3.0, 2.0]
    assert eval(repr(rule)).hyperparameters == rule.hyperparameters
    other = rule.fresh()
    other.load_state_dict(rule.state_dict())
    losses_next = torch.tensor([3.0, 1.0])
    assert [other.weights(losses_next).tolist() for _ in "ab"] == [rule.weights(losses_next).tolist() for _ in "ab"]


def test_primal_dual_finds_the_constrained_minimum():
    """``min (x - 3)²`` subject to ``x² <= 1`` is at x = 1, with the multiplier 2 that makes the gradients cancel."""
    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    rule = PrimalDual(multiplier=0.0, step=0.2, threshold=1.0)
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        record = mtopt.backward({"retain": (x**2).sum(), "forget": ((x - 3) ** 2).sum()}, [x], rule)
        optimizer.step()
    assert x.item() == pytest.approx(1.0, abs=1e-6)
    assert record.weights["retain"] == pytest.approx(2.0, abs=1e-5)


def test_a_skipped_step_leaves_the_multiplier():
    x = torch.nn.Parameter(torch.ones(1))
    rule = PrimalDual()
    state = rule.state_dict()
    record = mtopt.backward({"retain": (x * torch.nan).sum(), "forget": x.sum()}, [x], rule)
    assert record.skipped
    assert rule.state_dict() == state


def test_primal_dual_names_wrong_arguments():
    for options, words in (
        ({"multiplier": -1.0}, "multiplier must not be negative"),
        ({"step": 0.0}, "step must be positive"),
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"warmup": -1}, "warmup must be a number of steps"),
        ({"retain": 1}, "retain and forget must be 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words):
            PrimalDual(**options)
    with pytest.raises(ValueError, match="two objectives"):
        PrimalDual().weights(torch.ones(3))


# -- batches --------------------------------------------------------------------------------------------------------


def rows_in(side):
    return [
        tuple(ids[mask.bool()].tolist()) for ids, mask in zip(side["input_ids"], side["attention_mask"], strict=True)
    ]


def test_an_epoch_is_the_forget_set_with_random_partners():
    data = batches(batch_size=4)
    assert len(data) == 2
    epochs = []
    for epoch in (0, 1):
        data.set_epoch(epoch)
        epochs.append(list(data))
    for epoch in epochs:
        assert [len(batch["forget"]["input_ids"]) for batch in epoch] == [4, 2]
        forgotten = [row for batch in epoch for row in rows_in(batch["forget"])]
        assert sorted(forgotten) == sorted(tuple(row["input_ids"]) for row in FORGET)
        kept = [row for batch in epoch for row in rows_in(batch["retain"])]
        assert set(kept) <= {tuple(row["input_ids"]) for row in RETAIN}
        place_of = {tuple(row["input_ids"]): place for place, row in enumerate(FORGET)}
        others = [row for batch in epoch for row in rows_in(batch["idk"])]
        for row, other in zip(forgotten, others, strict=True):
            assert other in {tuple(each["input_ids"]) for each in ALTERNATIVES[place_of[row]]}
    first, second = ([row for batch in epoch for row in rows_in(batch["retain"])] for epoch in epochs)
    assert first != second
    data.set_epoch(0)
    assert [row for batch in data for row in rows_in(batch["retain"])] == first


def test_partners_are_drawn_evenly():
    """Over many epochs every retained row is drawn, and each of the 12 about as often: chi-squared of 11 degrees."""
    data = batches(batch_size=6)
    counts = dict.fromkeys((tuple(row["input_ids"]) for row in RETAIN), 0)
    for epoch in range(100):
        data.set_epoch(epoch)
        for batch in data:
            for row in rows_in(batch["retain"]):
                counts[row] += 1
    assert sum((count - 50) ** 2 / 50 for count in counts.values()) < 31.3  # the 0.999 quantile


def test_probe_batches_are_disjoint():
    found = [
        row for batch in retain_batches(RETAIN, count=3, batch_size=4, pad_id=PAD) for row in rows_in(batch["retain"])
    ]
    assert sorted(found) == sorted(tuple(row["input_ids"]) for row in RETAIN)
    with pytest.raises(ValueError, match="need as many rows, got 12"):
        retain_batches(RETAIN, count=4, batch_size=4, pad_id=PAD)


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


# -- the methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_steps(name):
    model = model_of(0)
    before = flat(model)
    trainer = create_trainer(name, model, adam(model), steps_per_epoch=3, seed=0)
    history = trainer.fit(batches(), steps=2)
    assert not any(record.skipped for record in history)
    assert not torch.equal(flat(model), before)
    recipe = METHODS[name]
    assert list(history[0].losses) == (["forget"] if recipe.retain is None else ["retain", "forget"])


def test_a_method_under_another_rule():
    model = model_of(0)
    trainer = create_trainer("simnpo", model, adam(model), combiner="mgda", forget_options={"delta": 1.0})
    batch = next(iter(batches()))
    record = trainer.training_step(batch)
    assert type(trainer.combiner).__name__ == "MGDA"
    expected = losses.simnpo(model_of(0), batch["forget"], beta=4.5, delta=1.0)
    assert record.losses["forget"] == pytest.approx(expected.item(), rel=1e-5)


def test_pdu_holds_its_multiplier_for_whole_epochs():
    assert method("PDU").combiner(steps_per_epoch=7).warmup == 35
    with pytest.raises(ValueError, match="steps_per_epoch is needed"):
        method("PDU").combiner()


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


def test_recipes_are_plain_data():
    for name, recipe in METHODS.items():
        assert isinstance(recipe, Recipe), name
        assert recipe.forget in FORGET_LOSSES
        assert recipe.retain is None or recipe.retain in RETAIN_LOSSES
        assert recipe.rule == "primal_dual" or recipe.rule in mtopt.list_combiners()
