"""A checkpoint of the right checksum and the wrong content: one error that names the file, whatever is wrong."""

import copy
import hashlib
import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt import _checkpoints as files
from mtopt.training import (
    BestCheckpoint,
    CheckpointWarning,
    CSVLogger,
    EarlyStopping,
    Evaluator,
    FrontArchive,
    WeightAverage,
    read_checkpoint,
    write_checkpoint,
)
from tests.training.support import PointTrainer, loader, two_losses

ABSENT = object()
WRONG = [
    *(ABSENT, None, True, -1, 0.5, float("nan"), 10**30, "x", b"x", [], {}, (1,), [1, 2, 3], {"a": 1}),
    *(torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)),
]
"""What is put in place of every value in turn."""


def places(value, here=()):
    """The place of every value in plain content, that of the whole first; of long lists the first ones."""
    yield here
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*here, key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value[:2]):
            yield from places(entry, (*here, index))


def changed(content, place, new):
    """The content with another value at a place, or with none."""
    if not place:
        return new
    first, rest = place[0], place[1:]
    copied = copy.copy(content) if isinstance(content, dict) else list(content)
    if not rest and new is ABSENT:
        del copied[first]
    else:
        copied[first] = changed(content[first], rest, new)
    return copied if isinstance(content, dict) else type(content)(copied)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.register_buffer("count", torch.tensor(0))


def build(folder, rule="moco", optimizer="Adam", every=1):
    model = Pair()
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01)
    callbacks = [
        Evaluator([None], every=every),
        WeightAverage(0.9),
        EarlyStopping("validation", "loss_0", patience=50),
        BestCheckpoint("validation", "loss_0", path=folder / "best.pt"),
        FrontArchive("validation", ["loss_0", "loss_1"], path=folder / "front"),
        CSVLogger(folder / "log.csv"),
    ]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(made, T_max=40)
    return PointTrainer(model, made, rule, scheduler=scheduler, callbacks=callbacks, seed=5)


@pytest.fixture(autouse=True)
def nothing_waits_for_the_disk(monkeypatch):
    """These thousands of files are written for nothing."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


DATA = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("content")


@pytest.fixture(scope="module")
def saved(folder):
    trainer = build(folder)
    trainer.fit(DATA, steps=3)
    trainer.save(folder / "whole.pt")
    return read_checkpoint(folder / "whole.pt")


def go_on(folder, content, every=1):
    """What it raises to load the content and to take two steps more, with or without evaluations."""
    trainer = build(folder, every=every)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        try:
            trainer.load_state_dict(content)
            trainer.fit(DATA, steps=5)
        except Exception as error:  # noqa: BLE001 - its class is what is tested
            return error
    return None


PARTS = [
    *("step", "model", "optimizer", "scheduler", "scaler", "combiner", "callbacks", "history", "position"),
]


@pytest.mark.parametrize("part", PARTS)
def test_whatever_is_wrong_is_a_checkpoint_error_or_does_no_harm(part, saved, folder):
    refused = 0
    for number, place in enumerate(places(saved[part], (part,))):
        # of the long ones every second value at each place, the others at the next
        for new in WRONG[number % 2 :: 2] if part in ("position", "history") and len(place) > 1 else WRONG:
            error = go_on(folder, changed(saved, place, new), every=1 if part in ("callbacks", "history") else 100)
            assert error is None or isinstance(error, mtopt.CheckpointError), (place, new, error)
            refused += error is not None
            assert error is not None or new is not ABSENT or len(place) > 1
    assert refused


@pytest.mark.parametrize("place", [("made_with",), ("made_with", "trainer"), ("made_with", "trainer", "seed")])
def test_words_that_are_compared_do_no_harm(place, saved, folder):
    for new in WRONG:
        assert go_on(folder, changed(saved, place, new), every=100) is None


def test_the_whole_is_something_else(folder):
    for new in WRONG[1:]:
        assert isinstance(go_on(folder, new), mtopt.CheckpointError)


def test_a_whole_state_goes_on(saved, folder):
    assert go_on(folder, saved) is None


@pytest.mark.parametrize("rule", mtopt.list_combiners(stateful=True))
def test_the_state_of_every_rule(rule):
    trainer = two_losses(rule)
    trainer.fit(loader(), steps=2)
    state = trainer.combiner.state_dict()
    for place in places(state):
        for new in WRONG[1:] if not place else WRONG:
            # numbers of another size are a rule's own to find, when it sees the gradients
            if isinstance(new, torch.Tensor) and len(place) > 1:
                continue
            fresh = mtopt.create_combiner(rule, **({"seed": 0} if trainer.combiner.stochastic else {}))
            try:
                fresh.load_state_dict(changed(state, place, new))
            except mtopt.CheckpointError:
                continue
            assert place[:1] != ("rule",)


@pytest.mark.parametrize(
    "name", ["SGD", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop"]
)
def test_the_moments_of_every_optimizer(name, folder):
    trainer = build(folder, "linear", name)
    trainer.fit(DATA, steps=2)
    content = copy.deepcopy(trainer.state_dict())
    resumed = build(folder, "linear", name)
    resumed.load_state_dict(content)
    resumed.fit(DATA, steps=3)  # a whole one goes on
    for key in content["optimizer"]["state"]["state"].get(0, {}):
        for new in (ABSENT, None, "x", torch.zeros(3, 3)):
            place = ("optimizer", "state", "state", 0, key)
            if key == "momentum_buffer" and new in (ABSENT, None):
                continue
            with pytest.raises(mtopt.CheckpointError, match="optimizer's state of parameter 0"):
                build(folder, "linear", name).load_state_dict(changed(content, place, new))


def test_the_error_names_the_file_and_the_part(saved, folder):
    place = ("optimizer", "state", "state", 0, "exp_avg")
    write_checkpoint(folder / "wrong.pt", changed(saved, place, torch.zeros(3)))
    trainer = build(folder)
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(
        mtopt.CheckpointError,
        match=r"wrong\.pt does not fit: its optimizer's state of parameter 0 has exp_avg of shape \(3,\)",
    ):
        trainer.load(folder / "wrong.pt")
    assert all(value.equal(before[name]) for name, value in trainer.model.state_dict().items())


def test_bytes_that_are_no_content_under_a_right_checksum(folder):
    """Every byte of the pickle that torch reads, changed in turn, with the checksum made anew."""
    path = folder / "bytes.pt"
    write_checkpoint(path, {"x": [torch.arange(3.0), 1.5, "text"], "y": {"a": (1, None)}})
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
        start = whole.index(archive.read(entry))
    rng, outcomes = np.random.default_rng(0), set()
    for place in range(start, start + entry.file_size):
        body = bytearray(whole[: files._MARK.search(whole).start()])
        body[place] ^= int(rng.integers(1, 256))
        mark = whole[len(body) :].replace(whole[-64:], _digest(body))
        path.write_bytes(bytes(body) + mark)
        outcomes.add(outcome(path))
    assert outcomes == {"read", f"checkpoint {path} is intact"}


def outcome(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of an unknown protocol
        try:
            read_checkpoint(path)
        except mtopt.CheckpointError as error:
            return str(error).partition(",")[0]
    return "read"


def _digest(body):
    """As it is taken when the comment's length, which the two bytes before it hold, is still zero."""
    return hashlib.sha256(bytes(body[:-2]) + b"\0\0").hexdigest().encode()
