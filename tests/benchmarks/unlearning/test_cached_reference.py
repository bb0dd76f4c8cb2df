"""A reference on the disk trains as the model itself does, and is refused where it cannot."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from benchmarks.unlearning.cached_reference import CachedReference, cached_reference
from benchmarks.unlearning.methods import METHODS, create_trainer, method
from benchmarks.unlearning.trainer import UnlearningTrainer
from tests.benchmarks.unlearning.steps import adam, batches, flat, model_of
from tests.benchmarks.unlearning.tiny import batch_of

CACHED = ["KL", "NPO", "NPO+NLL", "NPO+KL", "IdkDPO", "UNDIAL", "BLUR"]


@pytest.mark.parametrize("name", CACHED)
def test_it_trains_as_a_copy_of_the_model_does(name, tmp_path):
    ends = []
    for cached in (False, True):
        model, data = model_of(0, dtype=torch.float64).train(), batches()
        if not cached:
            create_trainer(name, model, adam(model, 1e-2), seed=0).fit(data, epochs=2)
        else:
            with cached_reference(model, method(name), data, epochs=2, folder=tmp_path) as reference:
                trainer = create_trainer(name, model, adam(model, 1e-2), reference=reference, seed=0)
                assert trainer.reference is reference
                assert list(tmp_path.iterdir())
                history = trainer.fit(data, epochs=2)
            assert not history["skipped"].any()
            assert model.training
            assert not list(tmp_path.iterdir())
        ends.append(flat(model))
    # rows are padded otherwise in the cache's batches, which rounds otherwise
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-9)
    assert not torch.equal(ends[0], flat(model_of(0, dtype=torch.float64)))


def test_every_method_with_a_reference_is_cached_or_refused(tmp_path):
    model = model_of(0)
    for name, recipe in METHODS.items():
        losses = {"forget": recipe.forget, "retain": recipe.retain}
        has = UnlearningTrainer(model, adam(model), "linear", **losses).reference is not None
        if name in CACHED:
            assert has
            continue
        told = "take hidden states of" if has else "take nothing of"
        with (
            pytest.raises(ValueError, match=told),
            cached_reference(model, recipe, batches(), epochs=1, folder=tmp_path),
        ):
            pass


def test_rows_of_another_training_are_refused(tmp_path):
    model = model_of(0)
    with cached_reference(model, method("NPO+KL"), batches(), epochs=1, folder=tmp_path) as reference:
        assert isinstance(reference, CachedReference)
        with pytest.raises(ValueError, match="the cached reference has no row of the"):
            reference.sequence_nll(batch_of(99))
        other = batch_of(99)
        with pytest.raises(ValueError, match="it was made of others"):
            reference(input_ids=other["input_ids"], attention_mask=other["attention_mask"])


def test_a_disk_without_room_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with (
        pytest.raises(ValueError, match=r"rows takes 0\.0 GiB, and the disk of .* has 0\.0 free; write elsewhere"),
        cached_reference(model_of(0), method("KL"), batches(), epochs=1, folder=tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_rows_of_further_batches_are_there_too(tmp_path):
    model, further = model_of(0), batch_of(99)
    rows = {name: further[name] for name in ("input_ids", "attention_mask")}
    real = further["attention_mask"].bool()
    options = {"epochs": 1, "folder": tmp_path, "also": [{"retain": further}]}
    with cached_reference(model, method("KL"), batches(), **options) as reference, torch.no_grad():
        torch.testing.assert_close(reference(**rows).logits[real], model(**rows).logits[real])
