"""The page docs/learning_rate.md: its loops run as they are printed."""

import torch

import mtopt


class Trainer(mtopt.MultiLossTrainer):
    def losses(self, batch):
        out = self.model(batch[0])
        return {"retain": (out - batch[0][:, :1]).square().mean(), "forget": (out - 1).square().mean()}


def test_its_loops_run(run_page, capsys):
    inputs = torch.randn(120, 3)
    model = torch.nn.Linear(3, 1)
    page = run_page(
        "docs/learning_rate.md",
        mtopt=mtopt,
        torch=torch,
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-5),
        combiner=mtopt.create_combiner("ngdiff"),
        batches=[(part, inputs) for part in inputs.split(20)],
        retain_loss=lambda batch: (model(batch) - batch[:, :1]).square().mean(),
        forget_loss=lambda batch: (model(batch) - 1).square().mean(),
        probe_batches=[(inputs,)],
        loader=[(part,) for part in inputs.split(20)],
        scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10),
        Trainer=Trainer,
        dataset=torch.utils.data.TensorDataset(inputs),
    )
    assert page["gen"].get_last_lr()[0] == page["optimizer"].param_groups[0]["lr"] > 1e-4
    assert page["growing"].changes
    assert "(" in capsys.readouterr().out
