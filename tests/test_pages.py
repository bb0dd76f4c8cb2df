"""Every page's code runs as it is printed, given what the page leaves to its reader."""

import functools
import re
import sys
from types import ModuleType, SimpleNamespace

import torch

import mtopt
from tests.experiments.tiny import ParabolasTask
from tests.printed import NOT_RUN, PAGES, ROOT, page_examples


def test_every_page_with_code_is_run():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("**/test_*.py"))
    run = set(re.findall(r'run_page\(\s*"([^"]+)"', tests))
    assert {page for page in PAGES if page_examples(page)} == run


def test_code_that_is_not_run_says_why():
    marked = re.compile(r"<!-- not run.*?-->\s*", flags=re.DOTALL)
    for page in PAGES:
        for mark in marked.finditer((ROOT / page).read_text(encoding="utf-8")):
            assert NOT_RUN.search(mark[0]), f"{page}: {mark[0]}"


def test_comparing(run_page, monkeypatch, tmp_path, capsys):
    suite = mtopt.experiments.Suite("toy", tasks=(ParabolasTask(),))
    tiny = functools.partial(mtopt.compare, quick=True, jobs=1, out=tmp_path / "results")
    names = {
        **{name: getattr(mtopt, name) for name in dir(mtopt)},
        "compare": lambda _, combiners, seeds: tiny(suite, combiners=combiners, seeds=2),
    }
    rules = ModuleType("my_package.rules")
    monkeypatch.setitem(sys.modules, "my_package.rules", rules)
    page = run_page(
        "docs/comparing.md",
        mtopt=SimpleNamespace(**names),
        trainings=2,
        train=lambda x: ([x[0] + 1 / epoch, 1 - x[0] + 1 / epoch] for epoch in range(1, 21)),
    )
    assert {row["combiner"] for row in page["comparison"].rows()} == {"linear", "mgda", "pcgrad"}
    assert page["suite"].name == "unlearning"
    assert "mgda" in capsys.readouterr().out


def test_figures(run_page, tmp_path):
    run_page("docs/figures.md")
    pictures = re.findall(r"\(images/(\w+\.png)\)", (ROOT / "docs" / "figures.md").read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.glob("*.png")} == set(pictures)


def test_instances(run_page):
    model = torch.nn.Linear(3, 4)
    page = run_page(
        "docs/instances.md",
        mtopt=mtopt,
        torch=torch,
        model=model,
        criterion=torch.nn.CrossEntropyLoss(reduction="none"),
        x=torch.randn(6, 3),
        y=torch.arange(6) % 4,
        combiner=mtopt.create_combiner("upgrad"),
        loader=[[SimpleNamespace(x=torch.randn(3, 3), y=torch.arange(3)) for _ in range(2)]],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    )
    assert set(page["record"].weights) == {"retain", "forget"}  # of the last block


def test_matrix_free(run_page):
    model = torch.nn.Linear(3, 3)
    page = run_page(
        "docs/matrix_free.md",
        mtopt=mtopt,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loader=torch.randn(4, 8, 3),
        losses=lambda model, batch: list((model(batch) - torch.arange(3.0)).square().mean(0)),
        three_batches=torch.randn(3, 8, 3),
    )
    assert "matrix-free" in page["record"].plan


def test_multitask(run_page, monkeypatch):
    models = ModuleType("my_models")
    models.SegNet = torch.nn.Module
    monkeypatch.setitem(sys.modules, "my_models", models)
    assert run_page("docs/multitask.md")["suite"].name == "nyu"


def test_problems(run_page):
    page = run_page("docs/problems.md", mtopt=mtopt)
    assert page["values"].shape == (100, 2)


def test_start(run_page, capsys):
    page = run_page("docs/start.md")
    assert len(page["history"]) == 100
    assert "cosine" in capsys.readouterr().out


def test_a_rule_of_ones_own(run_page, capsys):
    page = run_page("docs/own_rule.md")
    found = page["rule"](torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([0.6, 1.8]))
    capsys.readouterr()


def test_losses_with_gradients_inside(run_page, capsys):
    page = run_page("docs/inner_gradients.md")
    assert page["record"].losses["residual"] < 0.5
    capsys.readouterr()


def test_migration(run_page):
    page = run_page("docs/migration.md")
    assert set(page["record"].weights) == {"loss_0", "loss_1"}
    assert len(page["trainer"].history) == 10


def test_speed(run_page):
    run_page("docs/speed.md")
