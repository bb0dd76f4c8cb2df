"""The page docs/which_rule.md: its code runs as it is printed, and says what the page says, but for the digits."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "which_rule.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:python)?\n.*?```", PAGE, flags=re.DOTALL)


def without_digits(text):
    return re.sub(r"[+-]?\d[\d.,]*(e[+-]\d+)?", "#", text)


@pytest.mark.filterwarnings("ignore::mtopt.diagnosis.StarvationWarning")
def test_its_code_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = {}
    with torch.random.fork_rng():
        for block in BLOCKS:
            if block.startswith("```python"):
                exec(block[10:-3], page)
            else:
                assert without_digits(capsys.readouterr().out) == without_digits(block[4:-3])
    plt.close("all")
    assert page["first"].rounding == ("stay",)
    assert Path("which_rule.png").stat().st_size > 10_000
    assert (DOCS / "images" / "which_rule.png").read_bytes().startswith(b"\x89PNG")


def test_other_pages_lead_to_it():
    assert "docs/which_rule.md" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(which_rule.md)" in (DOCS / "rules.md").read_text(encoding="utf-8")
