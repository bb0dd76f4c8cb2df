"""Steps by layers: the direction of rows, whichever way each matrix is gone about."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mtopt
from mtopt.autograd import _matrix_gradients, _tied_gradients
from mtopt.autograd._agreement import _length_of
from mtopt.autograd._matrix_gradients import MatrixCosts, MatrixGradients, Way
from mtopt.autograd.plans import _layers
from tests.autograd.helpers import MultiHead, Reference, close, flat_gradient
from tests.autograd.models import MODELS, Model, build
from tests.autograd.test_models import Checkpointed, expected_direction, with_lora

RULES = ("ngdiff", "mgda", "nash_mtl", "pcgrad")

WAYS: tuple[Way, ...] = ("products", "dropped")


@pytest.fixture(params=[("products", False), ("products", True), ("dropped", False)], ids=["products", "batch", "drop"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """All matrices are gone about in this way: the models here are so small that rows are cheapest."""
    way, batched = request.param

    def cheapest(costs: MatrixCosts, **_: bool) -> Way:
        return "products" if math.isinf(costs.dropped) else way

    monkeypatch.setattr(MatrixCosts, "cheapest", cheapest)
    if not batched:
        monkeypatch.setattr(_layers, "FEW", 0)
    return way  # type: ignore[no-any-return]


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are made in several strips, and outputs' products over several segments."""
    monkeypatch.setattr(_matrix_gradients, "FEWEST", 2)
    monkeypatch.setattr(_matrix_gradients, "SEGMENT", 3)
    monkeypatch.setattr(_matrix_gradients, "BLOCK", 16)


def matrices(record: mtopt.StepRecord) -> int:
    """How many went without rows."""
    found = [
        part.split(": ")[-1].split()[0] for part in record.plan.split(", ") if "by inputs" in part or "drop" in part
    ]
    return sum(map(int, found))


def rows_of(losses: Callable[[], Any], model: nn.Module, rule: str | mtopt.Combiner, **options: Any) -> torch.Tensor:
    """The direction by kept rows, which other tests hold against a loop."""
    rule = mtopt.create_combiner(rule) if isinstance(rule, str) else rule
    mtopt.backward(losses(), model, rule, plan="loop", **options)
    found = flat_gradient(list(model.parameters()))
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("strips")
def test_the_direction_is_the_hand_written_one(name: str, way: Way) -> None:
    for rule in RULES:
        model = build(name)
        expected = expected_direction(model, mtopt.create_combiner(rule))
        record = mtopt.backward(model.losses, model, mtopt.create_combiner(rule), plan="layers")
        assert not record.skipped
        assert matrices(record) >= 2, record.plan
        assert record.backwards == len(record.losses)
        close(flat_gradient(list(model.parameters())), expected, 1e-10)


class FixedWeights(mtopt.GramianCombiner):
    """Weights that no rounding of the Gramian changes."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.linspace(0.2, 0.7, len(gramian)).to(gramian)


@pytest.mark.parametrize("name", MODELS)
def test_in_float32_the_direction_is_that_of_rows(name: str, way: Way) -> None:
    """To the rounding of sums for the same weights; a rule may amplify that of the Gramian."""
    model = build(name).float()
    for rule, error in ((FixedWeights(), 1e-6), (mtopt.create_combiner("ngdiff"), 1e-5)):
        expected = rows_of(model.losses, model, rule)
        mtopt.backward(model.losses(), model, rule, plan="layers")
        close(flat_gradient(list(model.parameters())), expected, error)
        model.zero_grad()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_lora_and_checkpoints(way: Way) -> None:
    model = build("gpt2")
    with_lora(model)
    trained = [param for param in model.parameters() if param.requires_grad]
    jacobian = Reference.of(lambda: list(model.losses().values()), trained).jacobian
    record = mtopt.backward(model.losses, model, mtopt.create_combiner("ngdiff"), plan="layers")
    assert matrices(record) == len(trained)
    close(flat_gradient(trained), mtopt.create_combiner("ngdiff")(jacobian), 1e-10)

    packed = Checkpointed(reentrant=False)
    record = mtopt.backward(packed.losses, packed, mtopt.create_combiner("mgda"), plan="layers")
    assert "not by layers, since the graph does not keep the layers' inputs" in record.plan
    expected = expected_direction(build("transformer"), mtopt.create_combiner("mgda"))
    close(flat_gradient(list(packed.parameters())), expected, 1e-10)


def test_autocast(way: Way) -> None:
    """The rounding of 16 bits, with a step inside the context or not."""
    model = build("transformer").float().eval()
    expected = rows_of(model.losses, model, "ngdiff")
    for inside in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.losses()
            record = mtopt.backward(losses, model, mtopt.create_combiner("ngdiff"), plan="layers") if inside else None
        record = record or mtopt.backward(losses, model, mtopt.create_combiner("ngdiff"), plan="layers")
        assert matrices(record) >= 9
        close(flat_gradient(list(model.parameters())), expected, 0.05)


class Odd(Model):
    """A matrix used from both sides, twice by one layer, by a function of its own, a strided and a grouped convolution,
    a padded embedding, a hooked weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6, padding_idx=2)
        self.twice, self.both = nn.Linear(6, 6), nn.Parameter(torch.randn(6, 6))
        self.hooked = nn.Linear(6, 6)
        self.hooked.weight.register_hook(lambda gradient: 2 * gradient)
        self.along = nn.Conv1d(6, 4, 3, stride=2, padding=2, dilation=2)
        self.grouped = nn.Conv1d(4, 4, 2, groups=2)
        self.volume = nn.Conv3d(1, 4, (2, 1, 2), padding=(1, 0, 0))

    def compute(self) -> dict[str, torch.Tensor]:
        states = self.twice(torch.tanh(self.twice(self.table(torch.arange(20).reshape(4, 5) % 7))))
        states = self.hooked(states @ self.both + states @ self.both.T)
        seen = self.grouped(self.along(states.mT).sin())
        volume = self.volume(states.reshape(4, 1, 5, 3, 2)).mean((2, 3))
        return {"first": seen.square().mean(), "second": volume.exp().mean(), "third": states.cos().mean()}


class Tied(Model):
    """A padded table of embeddings, looked up twice, that is the output layer, too; one loss sees the table alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6, padding_idx=2)
        self.body = nn.Linear(6, 6)

    def compute(self) -> dict[str, torch.Tensor]:
        tokens = torch.arange(20).reshape(4, 5) ** 2 % 9
        states = torch.tanh(self.body(self.table(tokens) + self.table(tokens.flip(1))))
        logits = F.linear(states, self.table.weight).flatten(0, 1)
        targets = (tokens.flatten() + 1) % 9
        return {
            "next": F.cross_entropy(logits, targets),
            "spread": torch.logsumexp(logits, 1).square().mean(),
            "states": states.exp().mean(),
        }


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.usefixtures("strips")
def test_tied_weights_have_the_products_of_both_uses(way: Way, autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tied_gradients, "BLOCK", 64)  # several blocks of places
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tied() if autocast else Tied().double()

    def losses() -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return dict(model.losses())

    for rule in RULES:
        expected = rows_of(losses, model, rule)
        record = mtopt.backward(losses, model, mtopt.create_combiner(rule), plan="layers")
        assert matrices(record) == 2
        assert "1 by rows" in record.plan  # the bias
        close(flat_gradient(list(model.parameters())), expected, 0.03 if autocast else 1e-10)
        model.zero_grad()


@pytest.mark.usefixtures("strips")
def test_odd_uses_are_exact_or_go_by_rows(way: Way) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Odd().double()
    expected = rows_of(model.losses, model, "mgda")
    record = mtopt.backward(model.losses, model, mtopt.create_combiner("mgda"), plan="layers")
    assert matrices(record) == 2  # the embedding, and what is used twice; convolutions have one loss each
    close(flat_gradient(list(model.parameters())), expected, 1e-10)
    model.zero_grad()
    expected = rows_of(model.losses, model, "mgda", private="combined")
    mtopt.backward(model.losses, model, mtopt.create_combiner("mgda"), plan="layers", private="combined")
    close(flat_gradient(list(model.parameters())), expected, 1e-10)


def test_a_hook_on_a_layers_output_is_heard(way: Way) -> None:
    model = MultiHead(3)

    def losses() -> list[torch.Tensor]:
        middle = model.trunk[0](model.inputs)  # type: ignore[arg-type]
        middle.register_hook(lambda gradient: gradient * torch.arange(6.0))
        features = model.trunk[1:](middle)
        return [model.loss(k, features) for k in range(3)]

    reference = Reference.of(losses, list(model.parameters()))
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"), plan="layers")
    assert matrices(record) == 2
    close(flat_gradient(list(model.parameters())), reference.direction(mtopt.create_combiner("mgda")), 1e-10)


def test_a_convolution_that_one_loss_does_not_reach(way: Way) -> None:
    """Its bias has the rows of the others alone, in a batched pass, too."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"trunk": nn.Linear(3, 32), "conv": nn.Conv2d(2, 3, 3)}).double()
    given = torch.randn(2, 3, dtype=torch.float64)

    def losses() -> dict[str, torch.Tensor]:
        hidden = model["trunk"](given).view(2, 2, 4, 4).tanh()
        seen = model["conv"](hidden).flatten(1).mean(1)
        return {"a": seen[0], "b": 0.5 * seen[1], "c": hidden.square().mean()}

    expected = rows_of(losses, model, "upgrad")
    record = mtopt.backward(losses(), model, mtopt.create_combiner("upgrad"), plan="layers")
    assert matrices(record) == 2
    close(flat_gradient(list(model.parameters())), expected, 1e-10)


class Stop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return given.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> None:  # type: ignore[override]
        return None


def odd_losses(name: str) -> tuple[nn.Module, Callable[[], list[torch.Tensor]]]:
    """Losses of a model with uses of its parameters that look like a layer's, or nearly."""
    torch.manual_seed(0)
    given = torch.randn(5, 4, dtype=torch.float64)
    first, second = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()
    kernel = nn.ParameterList([torch.randn(4, 4, 3, 3, dtype=torch.float64)])

    def sparse() -> list[torch.Tensor]:
        out = second(torch.mm(given.relu().to_sparse(), first.weight.T).tanh())
        return [out.sin().sum(), out.square().mean()]

    def with_itself() -> list[torch.Tensor]:
        seen = F.conv2d(kernel[0], kernel[0])
        return [seen[:, :2].square().sum(), seen.sin().sum()]

    def stopped() -> list[torch.Tensor]:
        hidden = first(given).tanh()
        return [second(hidden).square().sum(), second(hidden).sin().sum(), second(Stop.apply(hidden)).cos().sum()]

    made = {"sparse": sparse, "with itself": with_itself, "stopped": stopped}
    return (kernel if name == "with itself" else nn.Sequential(first, second)), made[name]


@pytest.mark.parametrize("name", ["sparse", "with itself", "stopped"])
def test_what_only_looks_like_a_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MatrixCosts, "cheapest", lambda costs, keep: "products")
    monkeypatch.setattr(_layers, "FEW", 0)
    model, losses = odd_losses(name)
    expected = rows_of(losses, model, "upgrad")
    mtopt.backward(losses(), model, mtopt.create_combiner("upgrad"), plan="layers")
    close(flat_gradient(list(model.parameters())), expected, 1e-10)


def test_a_layer_that_nothing_came_to(way: Way) -> None:
    """Such as an expert without tokens."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 6), nn.Linear(4, 6)]).double()
    given = torch.randn(5, 4, dtype=torch.float64)

    def losses() -> list[torch.Tensor]:
        out = torch.cat([model[0](given), model[1](given[:0])])
        return [out.sin().sum(), out.square().mean()]

    expected = rows_of(losses, model, "upgrad")
    mtopt.backward(losses(), model, mtopt.create_combiner("upgrad"), plan="layers")
    close(flat_gradient(list(model.parameters())), expected, 1e-10)


@pytest.mark.parametrize("factor", [1e-7, 1e-8, 1e-9, 0.0])
def test_what_vanishes_in_sixteen_bits_is_no_defect(factor: float, way: Way) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 16).half()
    out = layer(torch.randn(8, 16).half()).float()
    losses = [factor * out.square().sum(), factor * out.sin().sum()]
    assert not mtopt.backward(losses, layer, mtopt.create_combiner("mgda"), plan="layers").skipped


def test_convolutions_of_all_dimensions(way: Way) -> None:
    torch.manual_seed(0)
    for dimensions, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), start=1):
        layer = kind(2, 3, 3, stride=2, padding=1, dilation=2).double()
        images = torch.randn(2, 2, *(9,) * dimensions, dtype=torch.float64)
        losses = lambda: list(layer(images).flatten(2).mean((0, 2)).square())  # noqa: B023, E731
        expected = mtopt.create_combiner("mgda")(Reference.of(losses, list(layer.parameters())).jacobian)
        record = mtopt.backward(losses, layer, mtopt.create_combiner("mgda"), plan="layers")
        assert matrices(record) == 1
        close(flat_gradient(list(layer.parameters())), expected, 1e-10)


def test_what_run_step_decides_holds_here(way: Way) -> None:
    def step(model: MultiHead, losses: Any, **options: Any) -> mtopt.StepRecord:
        return mtopt.backward(losses, model, mtopt.create_combiner("mgda"), plan="layers", **options)

    model, twin = MultiHead(3), MultiHead(3)
    with_none = [*model.losses()[:2], None]
    step(model, with_none)
    mtopt.backward([*twin.losses()[:2], None], twin, mtopt.create_combiner("mgda"), plan="loop")
    close(flat_gradient(list(model.parameters())), flat_gradient(list(twin.parameters())))
    assert model.heads[2].weight.grad is None

    before = flat_gradient(list(model.parameters()))
    first, second, third = model.losses()
    record = step(model, [first, second * torch.inf, third])
    assert record.skipped
    assert record.reason == "non-finite loss: loss_1"
    first, second, third = model.losses()
    second = second + (second - second.detach()).sqrt()  # 0, of an infinite slope
    record = step(model, [first, second, third])
    assert record.skipped
    assert record.reason == "non-finite gradient: loss_1"
    assert torch.equal(flat_gradient(list(model.parameters())), before)

    scaled = MultiHead(3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    record = step(scaled, scaled.losses(), scaler=scaler)
    plain = MultiHead(3)
    expected = step(plain, plain.losses(), retain_graph=True)
    close(flat_gradient(list(scaled.parameters())), 1024.0 * flat_gradient(list(plain.parameters())))
    assert record.norms == pytest.approx(expected.norms)


def test_gradients_far_from_one_are_as_exact(way: Way) -> None:
    for factor in (1e-25, 1e15):
        model = MultiHead(3, dtype=torch.float32)
        losses = [factor ** (k % 2) * loss for k, loss in enumerate(model.losses())]
        record = mtopt.backward(losses, model, mtopt.create_combiner("ngdiff"), plan="layers", private="combined")
        exact = MultiHead(3)
        exact.load_state_dict(model.state_dict())
        jacobian = Reference.of(exact.losses, list(exact.parameters())).jacobian
        expected = torch.nn.functional.normalize(jacobian, dim=1)
        cosines = (expected @ expected.T).numpy()
        assert record.cosines == pytest.approx(cosines, abs=1e-5)


def test_the_certificate_is_checked(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MultiHead(3)
    honest = MatrixGradients.gramian
    monkeypatch.setattr(MatrixGradients, "gramian", lambda self, **options: 1.01 * honest(self, **options))
    with pytest.raises(RuntimeError, match="inner products of the losses' gradients do not belong to the direction"):
        mtopt.backward(model.losses, model, mtopt.create_combiner("mgda"), plan="layers")
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize("factor", [1.0, 1e-30, 1e25])
def test_the_length_of_a_direction(factor: float) -> None:
    pieces = [factor * torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (3, 1024, 5000)]
    exact = float(torch.cat(pieces).double().norm())
    assert _length_of([piece.view(1, -1) for piece in pieces]) == pytest.approx(exact, rel=1e-6)


def test_where_it_cannot_go_rows_are_kept_and_the_record_says_why() -> None:
    model = MultiHead(2)
    losses = [lambda k=k: model.losses()[k] for k in range(2)]
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"), plan="layers")
    assert record.plan.endswith("; not by layers, since the losses are callables, and share no graph")


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [("graddrop", {}, "needs their coordinates"), ("mgda", {"store": torch.bfloat16}, "leave store=")],
)
def test_what_does_not_go_together_is_refused(rule: str, options: dict[str, Any], message: str) -> None:
    model = MultiHead(2)
    with pytest.raises(ValueError, match=message):
        mtopt.backward(model.losses, model, mtopt.create_combiner(rule), plan="layers", **options)
