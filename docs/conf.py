"""How Sphinx builds the site: ``python -m sphinx -W -b html docs build/site``."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "extensions"), str(DOCS.parent)]

import mtopt  # noqa: E402  (found through the path above)

project = "mtopt"
author = "The mtopt developers"
copyright = author
version = release = mtopt.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "plain_docstrings",
    "rule_pages",
    "api_pages",
]
exclude_patterns = ["examples", "images"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_custom_sections = [("Traits", "params_style")]
napoleon_use_ivar = True  # a field that autodoc finds, too, would be described twice

html_theme = "furo"
html_title = f"mtopt {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]

linkcheck_ignore = [r"https?://.*"]  # only links within the site can be checked without a network
