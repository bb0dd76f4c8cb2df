"""The page docs/which_rule.md: its code runs as it is printed, and says what the page says, but for the digits."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def without_digits(text):
    return re.sub(r"[+-]?\d[\d.,]*(e[+-]\d+)?", "#", text)


@pytest.mark.filterwarnings("ignore::mtopt.diagnosis.StarvationWarning")
def test_its_code_prints_what_it_says(run_page, capsys):
    def compare(example):
        printed = without_digits(capsys.readouterr().out)
        return None if printed == without_digits(example.parsed) else printed

    page = run_page("docs/which_rule.md", compare=compare)
    assert page["first"].rounding == ("stay",)
    assert Path("which_rule.png").stat().st_size > 10_000
    assert (DOCS / "images" / "which_rule.png").read_bytes().startswith(b"\x89PNG")


def test_other_pages_lead_to_it():
    assert "docs/which_rule.md" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(which_rule.md)" in (DOCS / "rules.md").read_text(encoding="utf-8")
