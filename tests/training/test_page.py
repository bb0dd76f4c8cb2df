"""The page docs/training.md: its code runs as it is printed, from top to bottom."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import mtopt

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def digits(examples: int) -> DataLoader:
    images = torch.randn(examples, 5)
    return DataLoader(TensorDataset(images, images[:, :3].argmax(1), images[:, 2:].argmax(1)), batch_size=8)


def test_its_code_runs(run_page, tmp_path, capfd):
    model = torch.nn.Module()
    for name, width in (("trunk", 5), ("left", 3), ("right", 3)):
        model.add_module(name, torch.nn.Linear(5, width))
    page = run_page("docs/training.md", model=model, loader=digits(48), validation=digits(24), test=digits(24))
    assert len(page["history"]) == 18
    steps, values = page["trainer"].history.evaluations("averaged")
    assert page["best"].step == page["trainer"].step == steps[values["right"].argmin()]
    assert len(page["archive"].points()) == len(list(Path("front").iterdir())) > 0
    assert {"run", "best", "front"} <= {path.name for path in tmp_path.iterdir()}
    capfd.readouterr()


@pytest.mark.parametrize("hook", [name for name in vars(mtopt.Callback) if name.startswith("on_")])
def test_its_table_has_every_hook(hook):
    assert f"`{hook}(trainer" in PAGE
