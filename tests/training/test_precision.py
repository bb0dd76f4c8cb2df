"""Autocast, the scaler of float16, clipping, and deterministic kernels."""

import os

import pytest
import torch

import mtopt
from tests.training.support import PointTrainer, fingerprint, interrupted, loader, point, two_losses


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", ["linear", "mgda", "modo"])
def test_losses_are_computed_in_the_type_that_is_asked_for(dtype, rule):
    seen = []

    class Seeing(type(two_losses())):
        def losses(self, batch):
            losses = super().losses(batch)
            seen.append(self.features.dtype)
            return losses

    base = two_losses(rule)
    trainer = Seeing(base.model, base.optimizer, rule, autocast=dtype)
    trainer.fit(loader(), steps=2)
    trainer.evaluate(loader())
    assert set(seen) == {torch.tanh(torch.ones(1, dtype=dtype)).dtype}
    assert all(param.dtype == torch.float32 for param in trainer.model.parameters())


def test_callables_run_in_autocast_though_they_run_later():
    def product():
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    class Late(PointTrainer):
        def losses(self, batch):
            def late():
                assert product() == torch.bfloat16
                return self.model.x.square().sum()

            return {"late": late, "now": self.model.x.sum()}

    base = point()
    Late(base.model, base.optimizer, "mgda", autocast=torch.bfloat16).fit(steps=2)
    assert product() == torch.float32


@pytest.mark.filterwarnings("ignore:the last 20 steps were all skipped")  # the first scale is far too large
@pytest.mark.parametrize("rule", ["linear", "famo", "mgda", "ngdiff", "graddrop"])
def test_an_overflow_skips_the_step_and_lowers_the_scale(rule):
    """Losses near 10 times a scale of 2**16 are beyond float16's 65504; the gradients then show it."""
    trainer = two_losses(rule, autocast=torch.float16, schedule=False)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = fingerprint(trainer)
    trainer.fit(loader(), steps=1)
    record = trainer.history[0]
    assert record.skipped
    assert record.reason
    assert trainer.precision.scaler.get_scale() == 2.0**39
    weights = dict(trainer.model.named_parameters())
    fresh = dict(two_losses(rule).model.named_parameters())
    assert all(torch.equal(weights[name], fresh[name]) for name in weights)
    trainer.fit(loader(), steps=40)
    assert 0 < trainer.history.skipped < 40
    assert fingerprint(trainer) != before


@pytest.mark.parametrize("rule", ["linear", "mgda"])
def test_a_scale_that_fits_changes_nothing_but_rounding(rule):
    scaled = two_losses(rule, autocast=torch.float16, dropout=0.0)
    scaled.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
    plain = two_losses(rule, dropout=0.0)
    for trainer in (scaled, plain):
        trainer.fit(loader(), steps=5)
    assert scaled.history.skipped == 0
    for a, b in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=0.02)


def test_the_scale_is_resumed(tmp_path):
    def build():
        return two_losses("mgda", autocast=torch.float16)

    whole = build()
    whole.fit(loader(), steps=15)
    assert whole.history.skipped > 0  # torch's first scale, 2**16, is too large here
    resumed = interrupted(build, loader, tmp_path, [2, 9], steps=15)
    assert fingerprint(resumed) == fingerprint(whole)
    assert resumed.precision.scaler.state_dict() == whole.precision.scaler.state_dict()
    with pytest.raises(mtopt.CheckpointError, match=r"made with autocast=torch\.float16, and this trainer is without"):
        two_losses("mgda").fit(loader(), steps=20, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("options", [{}, {"autocast": torch.float16}])
def test_the_direction_is_clipped(options):
    norms = []

    class Looks(mtopt.Callback):
        def on_gradients(self, trainer, batch, record):
            gradients = [param.grad for param in trainer.model.parameters() if param.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    two_losses("mgda", callbacks=[Looks()]).fit(loader(), steps=6)
    unclipped = list(norms)
    norms.clear()
    limit = sorted(unclipped)[2]
    trainer = two_losses("mgda", callbacks=[Looks()], clip_norm=limit, **options)
    trainer.fit(loader(), steps=12)
    assert max(norms) <= limit * (1 + 1e-5)
    assert min(norms) < max(norms)


class Steep(PointTrainer):
    """A finite loss whose gradient is infinite."""

    def losses(self, batch):
        return [(self.model.x - 2).abs().sqrt().sum(), self.model.x.sum()]


def test_a_direction_that_is_not_finite_is_skipped_before_it_is_clipped():
    base = point()
    trainer = Steep(base.model, base.optimizer, "linear", clip_norm=1.0)
    record = trainer.fit(steps=1)[0]
    assert record.skipped
    assert "non-finite gradient" in record.reason
    assert record.weights is None
    assert base.model.x.tolist() == [2.0, 3.0]
    with pytest.raises(mtopt.NonFiniteError, match="non-finite gradient"):
        Steep(base.model, base.optimizer, "linear", clip_norm=1.0, strict=True).fit(steps=1)


def test_deterministic_kernels_within_fit_only(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    class Looks(mtopt.Callback):
        def on_step_end(self, trainer, record):
            assert torch.are_deterministic_algorithms_enabled()
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            if record.step == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        point(callbacks=[Looks()], deterministic=True).fit(steps=5)
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autocast": torch.float64}, "autocast must be torch.bfloat16, torch.float16 or None, found torch.float64"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or None, found 0.0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        point(**options)
