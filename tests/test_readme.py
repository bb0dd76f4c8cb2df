"""The README's promises: its code runs, its commands and links are real."""

import re
import types
from pathlib import Path

import pytest
import torch

import mtopt
from tests import printed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RULE_OF_ONES_OWN = re.compile(r'register_combiner\("(\w+)"')


class TwoTasks(torch.nn.Module):
    """A model for every block: with two heads for the trainer, and for the loop with one output."""

    def __init__(self):
        super().__init__()
        self.trunk, self.left, self.right = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, inputs):
        return self.left(self.trunk(inputs))


def test_its_code_runs(run_page, tmp_path):
    model = TwoTasks()
    before = model.trunk.weight.detach().clone()
    page = run_page(
        "README.md",
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=lambda model, batch: (model(batch) - 1).square().mean(),
        batches=[(torch.randn(4, 4), torch.randn(4, 4)) for _ in range(2)],
        cross_entropy=torch.nn.functional.cross_entropy,
        loader=[
            types.SimpleNamespace(images=torch.randn(8, 4), left=torch.randint(4, (8,)), right=torch.randint(4, (8,)))
        ],
    )
    assert not torch.equal(before, model.trunk.weight)
    assert set(page["record"].weights) == {"retain", "forget"}
    assert len(page["trainer"].history) == 10
    assert list((tmp_path / "checkpoints").iterdir())


RULES = [
    pytest.param(page, name, id=f"{page}: {name}")
    for page in printed.PAGES
    for name in RULE_OF_ONES_OWN.findall((ROOT / page).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "name"), RULES)
def test_a_rule_that_is_printed_keeps_what_every_rule_promises(as_printed, page, name):
    printed.run(
        [example for example in printed.page_examples(page) if f'register_combiner("{name}")' in example.parsed]
    )
    mtopt.testing.check_combiner(name)
    jacobian = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert mtopt.create_combiner(name)(jacobian).isfinite().all()


def test_the_rule_of_ones_own_works_in_a_loop(as_printed):
    printed.run([example for example in printed.page_examples("README.md") if "inverse_norm" in example.parsed])
    model = torch.nn.Linear(2, 2, bias=False)
    losses = [model.weight[0].sum(), (2 * model.weight).sum(), 0 * model.weight.sum()]
    record = mtopt.backward(losses, model, mtopt.create_combiner("inverse_norm"), private="combined")
    assert list(record.weights.values()) == pytest.approx([2**-0.5, 0.25, 0.0])
    torch.testing.assert_close(model.weight.grad, torch.tensor([[2**-0.5 + 0.5] * 2, [0.5] * 2]))


def test_links_and_commands_are_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link.partition("#")[0]).exists(), link
    commands = re.findall(r"<!-- command: (\w+) -->\n```bash\n(.+)\n```", README)
    assert [name for name, _ in commands] == ["compare", "tests"]
    assert all(command.startswith("python3 -m venv .venv && ") for _, command in commands)
