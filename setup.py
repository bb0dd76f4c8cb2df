"""The packages that are installed, and the package's page; everything else is in setup.cfg, which can do neither."""

import re
from pathlib import Path

from setuptools import find_packages, setup

SUITES = "mtopt_suites"
"""What the folder ``benchmarks`` is called once it is installed: other projects have a ``benchmarks``, too."""

HOME = ""
"""Where the files of this repository can be read, with a slash at the end; empty as long as they are nowhere."""


def package_page(readme: str, home: str) -> str:
    """The README for a page that has none of the repository's files beside it.

    Its links lead to ``home``; without one, what they say stays, and pictures go.
    """
    link = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")
    if home:
        return link.sub(rf"\1[\2]({home}\3)", readme)
    return link.sub(lambda found: "" if found[1] else found[2], readme)


setup(
    packages=[
        *find_packages(include=["mtopt", "mtopt.*"]),
        *(name.replace("benchmarks", SUITES, 1) for name in find_packages(include=["benchmarks", "benchmarks.*"])),
    ],
    package_dir={SUITES: "benchmarks"},
    long_description=package_page(Path(__file__).with_name("README.md").read_text(encoding="utf-8"), HOME),
    long_description_content_type="text/markdown",
)
