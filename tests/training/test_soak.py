"""Twenty thousand steps: memory stands still, but for the history, which keeps some numbers of each."""

import gc
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import mtopt
from mtopt.training import CSVLogger, EarlyStopping, Evaluator, Monitor, WeightAverage
from tests.training.support import TwoHeads, adam, loader, two_losses

pytestmark = pytest.mark.long

WARM, STEPS = 5_000, 20_000
RULES = [*mtopt.list_combiners(stateful=True, draws=1, reevaluates=False), "linear", "mgda", "pcgrad"]


class Held(NamedTuple):
    """Python's memory blocks, live tensors, and the process's resident KiB."""

    blocks: int
    tensors: int
    resident: int


def held() -> Held:
    gc.collect()
    tensors = sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    resident = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
    return Held(sys.getallocatedblocks(), tensors, resident)


def size_of(history: mtopt.History) -> int:
    """KiB that a history's numbers take, with the room that it keeps for more."""
    columns = 9 + sum(len(history[name]) for name in ("losses", "weights", "norms", "cosines"))
    return 2 * 8 * columns * len(history) // 1024


def check_flat(run: Callable[[int], None], history: mtopt.History) -> None:
    run(WARM)
    before = held()
    run(STEPS - WARM)
    after = held()
    print(f"after {WARM} steps {before}, after {STEPS} {after}, the history has {size_of(history)} KiB at most")
    assert len(history) == STEPS
    assert after.tensors <= before.tensors + 5
    assert after.blocks - before.blocks < (STEPS - WARM) // 20  # one block in twenty steps would be a leak
    assert after.resident - before.resident < size_of(history) + 4096


def test_a_trainer_with_callbacks(tmp_path: Path) -> None:
    callbacks = [
        Evaluator(loader(), every=500),
        WeightAverage(0.9),
        EarlyStopping("validation", "left", patience=10**6),
        CSVLogger(tmp_path / "log.csv"),
        Monitor(every=50, lines=1e9),
    ]
    trainer = two_losses("moco", make_optimizer=adam, callbacks=callbacks)
    data = loader()

    def run(steps: int) -> None:
        trainer.fit(data, steps=trainer.step + steps)

    check_flat(run, trainer.history)


def losses_of(model: TwoHeads, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    features = model.trunk(inputs)
    return {
        "left": (model.left(features)[:, 0] - inputs.sin().sum(1)).square().mean(),
        "right": nn.functional.l1_loss(model.right(features)[:, 0], inputs.cos().sum(1)),
    }


def test_a_plain_loop_with_many_rules() -> None:
    torch.manual_seed(0)
    models = [TwoHeads() for _ in RULES]
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
    rules = [mtopt.create_combiner(name) for name in RULES]
    history = mtopt.History()

    def steps() -> Iterator[None]:
        while True:
            for model, optimizer, rule in zip(models, optimizers, rules, strict=True):
                optimizer.zero_grad()
                # a callable, since some rules look at the batch a second time
                history.append(mtopt.backward(partial(losses_of, model, torch.randn(8, 6)), model, rule))
                optimizer.step()
                yield

    walk = steps()

    def run(count: int) -> None:
        for _ in range(count):
            next(walk)

    check_flat(run, history)
