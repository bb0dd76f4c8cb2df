"""docs/figures.md: every figure has its picture and its code, and the pictures stay small."""

import re
from pathlib import Path

import mtopt

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "figures.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_figure_function_is_shown_and_used():
    code = "\n".join(BLOCKS)
    for name in mtopt.plotting.__all__:
        if name.startswith("plot_"):
            assert f"{name}(" in code


def test_the_page_shows_just_the_pictures_that_its_code_saves():
    shown = re.findall(r"!\[[^]]+\]\(images/(\w+)\.png\)", PAGE)
    saved = re.findall(r'save\(ax\.figure, "(\w+)", \["png"\]\)', "\n".join(BLOCKS))
    assert shown == saved
    assert all((DOCS / "images" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in shown)


def test_the_code_compiles_and_names_only_what_exists():
    for number, block in enumerate(BLOCKS):
        compile(block, f"block {number}", "exec")
    for path in set(re.findall(r"\bmtopt\.((?:problems|pareto|plotting)\.\w+)\(", PAGE)):
        package, name = path.split(".")
        assert hasattr(getattr(mtopt, package), name)


def test_the_pictures_are_small():
    assert sum(file.stat().st_size for file in (DOCS / "images").iterdir()) < 3e6
