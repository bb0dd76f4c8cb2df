"""The README's promises: its code runs, its commands and links are real."""

import re
import types
from pathlib import Path

import pytest
import torch

import mtopt

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(text):
    (found,) = [b for b in BLOCKS if text in b]
    return found


def test_the_loop_runs_as_printed():
    model = torch.nn.Linear(3, 1)
    before = model.weight.detach().clone()
    namespace = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loss": lambda model, batch: (model(batch) - 1).square().mean(),
        "batches": [(torch.randn(4, 3), torch.randn(4, 3)) for _ in range(2)],
    }
    exec(block("optimizer.zero_grad()"), namespace)
    assert not torch.equal(before, model.weight)
    assert set(namespace["record"].weights) == {"retain", "forget"}


RULES = [
    pytest.param(text, name, id=f"{path.name}: {name}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")))
    for text in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
    for name in re.findall(r"register_combiner\(\"(\w+)\"", text)
]


@pytest.mark.parametrize(("text", "name"), RULES)
def test_a_rule_that_is_printed_keeps_what_every_rule_promises(text, name):
    exec(text, {})
    mtopt.testing.check_combiner(name)
    jacobian = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert mtopt.create_combiner(name)(jacobian).isfinite().all()


def test_the_rule_of_ones_own_works_in_a_loop():
    exec(block('register_combiner("inverse_norm")'), {})
    model = torch.nn.Linear(2, 2, bias=False)
    losses = [model.weight[0].sum(), (2 * model.weight).sum(), 0 * model.weight.sum()]
    record = mtopt.backward(losses, model, mtopt.create_combiner("inverse_norm"), private="combined")
    assert list(record.weights.values()) == pytest.approx([2**-0.5, 0.25, 0.0])
    torch.testing.assert_close(model.weight.grad, torch.tensor([[2**-0.5 + 0.5] * 2, [0.5] * 2]))


def test_the_trainer_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Module()
    for name in ("trunk", "left", "right"):
        model.add_module(name, torch.nn.Linear(4, 4))
    batch = types.SimpleNamespace(images=torch.randn(8, 4), left=torch.randint(4, (8,)), right=torch.randint(4, (8,)))
    namespace = {
        "mtopt": mtopt,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "cross_entropy": torch.nn.functional.cross_entropy,
        "loader": [batch],
    }
    exec(block("class TwoTasks"), namespace)
    assert len(namespace["trainer"].history) == 10
    assert list((tmp_path / "checkpoints").iterdir())


def test_links_and_commands_are_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link.partition("#")[0]).exists(), link
    commands = re.findall(r"<!-- command: (\w+) -->\n```bash\n(.+)\n```", README)
    assert [name for name, _ in commands] == ["compare", "tests"]
    assert all(command.startswith("python3 -m venv .venv && ") for _, command in commands)
