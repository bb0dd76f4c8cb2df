"""Damaged files of the unlearning suite: each is named, with what to do; a damaged cache is made again."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save

from benchmarks.unlearning import _cache
from benchmarks.unlearning._recording import record_evaluation
from benchmarks.unlearning.files import read_muse, read_tofu
from benchmarks.unlearning.metrics import Evaluation

DEEP, LONG = "[" * 200_000, '{"a": ' + "9" * 6_000 + "}"


@pytest.fixture
def entry(tmp_path):
    model = torch.nn.Linear(2, 1)
    _cache.write(tmp_path / "entry", model, {"loss": 0.5})
    assert _cache.read(tmp_path / "entry", model)["loss"] == 0.5
    return tmp_path / "entry"


@pytest.mark.parametrize("record", ["[]", "null", '"text"', DEEP, LONG, "{", "", "\ufeff", '{"sha256": []}'])
def test_a_damaged_record_of_the_cache_is_named_and_made_again(record, entry):
    (entry / "record.json").write_text(record)
    with pytest.warns(UserWarning, match=rf"{entry} is damaged \(.*; it is trained again"):
        assert _cache.read(entry, torch.nn.Linear(2, 1)) is None
    assert not entry.exists()


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": torch.zeros(1, 2)},
        {"weight": torch.zeros(3, 2), "bias": torch.zeros(1)},
        {"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "more": torch.zeros(1)},
        None,
    ],
)
def test_other_weights_under_a_right_checksum_are_made_again(weights, entry):
    import hashlib

    content = b"\0" * 20 if weights is None else save(weights)
    (entry / "weights.safetensors").write_bytes(content)
    (entry / "record.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    with pytest.warns(UserWarning, match=r"weights\.safetensors .*; it is trained again"):
        assert _cache.read(entry, model) is None
    assert model.weight.equal(before)


@pytest.mark.parametrize(
    "content", ["{", DEEP, LONG, "[]", '{"summary": {}}', '{"summary": 1, "items": 2, "settings": 3}']
)
def test_a_damaged_evaluation_is_named(content, tmp_path):
    path = tmp_path / "logs.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"logs\.json"):
        Evaluation.load(path)


@pytest.mark.parametrize("half", ['{"step": 4, "model_ut', "[]", '{"utility": 0.5}', '{"step": "4"}', DEEP])
def test_half_a_line_of_a_summary_is_named_with_what_to_do(half, tmp_path):
    path = tmp_path / "summary.jsonl"
    path.write_text('{"step": 0}\n{"step": 2}\n' + half)
    with pytest.raises(
        ValueError, match=r"summary\.jsonl, line 3.*take that line out of the file, or give another --out"
    ):
        record_evaluation(tmp_path, 4, 1.0, Evaluation({}, {}, {}))
    assert path.read_text().endswith(half)
    path.write_text('{"step": 0}\n{"step": 2}\n{"step": 4}\n')
    record_evaluation(tmp_path, 2, 1.0, Evaluation({}, {}, {}))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 2]


@pytest.mark.parametrize("bad", [DEEP.encode(), LONG.encode(), b'{"question": '])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_set_that_cannot_be_read_is_named(bad, mark, tmp_path):
    (tmp_path / "full.json").write_bytes(mark + b'{"question": "a", "answer": "b"}\n' + bad)
    with pytest.raises(ValueError, match=r"full\.json, line 2"):
        read_tofu(tmp_path, "full")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "forget.json").write_bytes(mark + b'["text",\n' + bad)
    with pytest.raises(ValueError, match=r"forget\.json"):
        read_muse(tmp_path, "raw", "forget")


def test_an_array_after_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "forget.json").write_bytes(b'\xef\xbb\xbf["text", "more"]')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_muse(tmp_path, "raw", "forget") == [{"text": "text"}, {"text": "more"}]
