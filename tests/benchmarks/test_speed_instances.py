"""Timing of one loss per sample: every side does the same work, and the program end to end."""

import json

import pytest
import torch

import mtopt
from benchmarks.speed import instances


@pytest.mark.parametrize("name", list(instances.CASES))
def test_the_step_timed_is_that_of_a_backward_a_loss(name):
    case, batch = instances.CASES[name], 3
    sides = instances.sides_of(case, batch, peer=False)
    assert list(sides) == ["plain", "mtopt, Gramian", "mtopt, step", "mtopt, weights"]
    given = sides["plain"].inputs[0]
    labels = torch.randint(instances.CLASSES, (batch,), generator=torch.Generator().manual_seed(0))
    gradients = []
    for by_layer in (True, False):
        torch.manual_seed(0)
        model = case.make()
        if by_layer:
            instances._own_step(model, labels)(given)
        else:
            losses = torch.nn.functional.cross_entropy(model(given), labels, reduction="none")
            mtopt.backward(list(losses), model, mtopt.create_combiner("upgrad"))
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-4 * float(gradients[1].abs().max()))


def test_end_to_end(tmp_path, capsys):
    arguments = ["--models", "mlp", "--sizes", "4", "--rounds", "3", "--seconds", "1", "--out", str(tmp_path)]
    threads = torch.get_num_threads()
    try:
        assert instances.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    (cell,) = json.loads((tmp_path / "instances.json").read_text())["cells"]
    assert cell["batch"] == 4
    assert cell["parameters"] == 85_002
    assert min(cell["seconds"].values()) > 0
    assert "mlp" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        instances.main(["--sizes", "0"])
