"""Steps that take several batches: accumulated gradients, and rules on several draws."""

import copy

import pytest
import torch

import mtopt
from tests.training.support import TwoHeads, TwoLosses, data_set, fingerprint, interrupted, loader, sgd, two_losses


class Plain(TwoHeads):
    """Without batch norm and dropout: the loss of a batch is the mean over its examples."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh()).double()
        self.left, self.right = self.left.double(), self.right.double()


def batches(size: int, count: int) -> list[list[torch.Tensor]]:
    inputs, targets = (tensor.double() for tensor in data_set().tensors)
    return [[inputs[i * size : (i + 1) * size], targets[i * size : (i + 1) * size]] for i in range(count)]


def plain(combiner: str, model: Plain, **options) -> TwoLosses:
    own = copy.deepcopy(model)
    return TwoLosses(own, sgd(own.parameters()), combiner, seed=1, **options)


@pytest.mark.parametrize("rule", ["linear", "ngdiff", "mgda", "pcgrad", "graddrop", "famo", "uw", "moco"])
def test_accumulated_batches_are_one_large_batch(rule):
    """Whatever the rule: it sees the mean of the raw gradients, and FAMO the mean of the losses after the step."""
    torch.manual_seed(0)
    model = Plain()
    large = plain(rule, model)
    large.fit(batches(8, 4), steps=6)
    small = plain(rule, model, accumulate=4)
    small.fit(batches(2, 16), steps=6)
    assert small.epoch == large.epoch == 1
    for name, value in large.model.state_dict().items():
        torch.testing.assert_close(small.model.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    for name in ("left", "right"):
        assert small.history.losses[name] == pytest.approx(large.history.losses[name], rel=1e-9)


def test_the_last_step_of_an_epoch_averages_what_is_left():
    torch.manual_seed(0)
    model = Plain()
    large = plain("mgda", model)
    large.fit([batches(8, 1)[0], batches(4, 3)[2]], epochs=1)
    small = plain("mgda", model, accumulate=4)
    small.fit(batches(2, 6), epochs=1)
    assert small.total_steps == small.step == 2
    for name, value in large.model.state_dict().items():
        torch.testing.assert_close(small.model.state_dict()[name], value, rtol=1e-9, atol=1e-12)


def test_accumulated_losses_may_be_absent_or_callables():
    class Sometimes(TwoLosses):
        def losses(self, batch):
            losses = super().losses(batch)
            losses["left"] = None if batch[0].shape[0] == 3 else losses["left"]
            return {**losses, "third": lambda: (self.model.left.weight**2).sum()}

    torch.manual_seed(0)
    trainer = plain("mgda", Plain())
    trainer = Sometimes(trainer.model, trainer.optimizer, "mgda", accumulate=2)
    inputs = batches(4, 1) + batches(3, 1)
    left = trainer.losses(inputs[0])["left"].item()
    record = trainer.fit(inputs, steps=1)[0]
    assert record.losses["left"] == pytest.approx(left / 2)
    assert list(record.losses) == ["left", "right", "third"]


def test_accumulated_batches_must_have_the_same_objectives():
    class Renames(TwoLosses):
        def losses(self, batch):
            left, right = super().losses(batch).values()
            return {"left": left, f"right of {len(batch[0])}": right}

    base = plain("mgda", Plain())
    with pytest.raises(ValueError, match=r"same objectives, found .*'right of 4'.* and .*'right of 3'.*give None"):
        Renames(base.model, base.optimizer, "mgda", accumulate=2).fit(batches(4, 1) + batches(3, 1), steps=1)


@pytest.mark.parametrize("rule", ["modo", "sdmgrad"])
def test_draws_in_the_trainer_are_draws_in_a_loop_of_ones_own(rule):
    torch.manual_seed(0)
    model = Plain()
    data = batches(4, 6)
    trainer = plain(rule, model)
    trainer.fit(data, epochs=2)
    assert (trainer.step, trainer.epoch, trainer.total_steps) == (4, 2, 4)

    other = plain(rule, model)
    combiner = other.combiner
    for start in (0, 3, 0, 3):
        other.optimizer.zero_grad()
        mtopt.backward([other.losses(batch) for batch in data[start : start + 3]], other.model, combiner)
        other.optimizer.step()
    assert fingerprint(trainer) == fingerprint(other)


def test_draws_that_are_left_over_are_passed_over_and_an_epoch_still_ends():
    torch.manual_seed(0)
    model = Plain()
    trainer = plain("modo", model)
    trainer.fit(batches(4, 8), epochs=2)
    assert (trainer.step, trainer.epoch, trainer.total_steps) == (4, 2, 4)
    without = plain("modo", model)
    without.fit(batches(4, 6), epochs=2)
    assert fingerprint(trainer) == fingerprint(without)


def test_an_epoch_that_is_too_short_for_a_step():
    with pytest.raises(ValueError, match=r"gave 2 batches in epoch 1, and a step of MoDo\(.*\) takes 3"):
        two_losses("modo").fit(list(loader())[:2], steps=3)


@pytest.mark.parametrize(("rule", "options"), [("modo", {}), ("mgda", {"accumulate": 4}), ("famo", {"accumulate": 3})])
@pytest.mark.parametrize("cut", [0, 2])
def test_an_interrupted_run_takes_the_same_batches(rule, options, cut, tmp_path):
    """Six or eight batches an epoch; with eight, some are left over."""

    class Longer:
        def __iter__(self):
            yield from loader()
            yield from list(loader())[:cut]

        def __len__(self):
            return 6 + cut

    def build():
        return two_losses(rule, **options)

    whole = build()
    whole.fit(Longer(), steps=7)
    resumed = interrupted(build, Longer, tmp_path, [1, 2, 5], steps=7)
    assert fingerprint(resumed) == fingerprint(whole)
    assert resumed.history["epoch"].tolist() == whole.history["epoch"].tolist()


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("mgda", {"accumulate": 0}, "accumulate must be a positive int or None, found 0"),
        ("mgda", {"accumulate": None}, "accumulate must be a positive int, found None"),
        ("modo", {"accumulate": 2}, r"accumulate=2 averages batches, and MoDo\(\) takes 3 independent ones"),
        ("moco_plus", {"accumulate": 2}, r"MoCoPlus\(\) visits each one twice per step"),
        ("mgda", {"accumulate": 2, "store": torch.bfloat16}, "accumulate=2 adds up the gradients .* leave plan='auto'"),
        ("mgda", {"plan": "fast"}, "plan must be one of .* found 'fast'"),
    ],
)
def test_wrong_combinations(rule, options, message):
    with pytest.raises(ValueError, match=message):
        two_losses(rule, **options)


# -- losses that are run twice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"autocast": torch.bfloat16}])
def test_a_rule_that_revisits_gets_the_losses_as_a_callable(options):
    torch.manual_seed(0)
    model = Plain().float()
    data = [[tensor.float() for tensor in batch] for batch in batches(8, 4)]
    trainer = plain("moco_plus", model, **options)
    trainer.fit(data, steps=4)
    other = plain("moco_plus", model, **options)
    for batch in data:
        other.optimizer.zero_grad()

        def losses(batch=batch):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(options)):
                return other.losses(batch)

        mtopt.backward(losses, other.model.named_parameters(), other.combiner)
        other.optimizer.step()
    assert fingerprint(trainer) == fingerprint(other)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_matrix_free_steps_in_the_trainer_are_those_of_a_loop(tmp_path):
    torch.manual_seed(0)
    model = Plain()
    data = batches(8, 4)
    trainer = plain("mgda", model, plan="matrix_free")
    trainer.fit(data, steps=4)
    assert "matrix-free" in trainer.history[-1].plan
    other = plain("mgda", model)
    for batch in data:
        other.optimizer.zero_grad()
        mtopt.backward(lambda batch=batch: other.losses(batch), other.model, other.combiner, plan="matrix_free")
        other.optimizer.step()
    assert fingerprint(trainer) == fingerprint(other)

    def build():
        return two_losses("mgda", plan="matrix_free")

    whole = build()
    whole.fit(loader(), steps=12)
    resumed = interrupted(build, loader, tmp_path, [3, 8], steps=12)
    assert fingerprint(resumed) == fingerprint(whole)


def test_the_gradients_of_the_representation_in_the_trainer():
    for plan, backwards in (("features", 1), ("auto", 2)):
        trainer = plain("upgrad", Plain(), plan=plan)
        trainer.fit(batches(8, 2), steps=2)
        assert [record.backwards for record in trainer.history] == [backwards] * 2
    with pytest.raises(ValueError, match="needs those of the parameters"):
        plain("graddrop", Plain(), plan="features")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_modo_without_jacobians_in_the_trainer():
    torch.manual_seed(0)
    model = Plain()
    trainers = [plain("modo", model), plain("modo", model, plan="matrix_free")]
    for trainer in trainers:
        trainer.fit(batches(7, 6), steps=2)
    rows, free = ([record.backwards for record in trainer.history] for trainer in trainers)
    assert (min(rows), free) == (5, [2, 2])
    for one, other in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_matrix_free_wants_the_whole_model():
    model = Plain()
    with pytest.raises(ValueError, match=r"the optimizer lacks \['trunk.0.weight', .*freeze them"):
        TwoLosses(model, sgd(model.left.parameters()), "mgda", plan="matrix_free")
