"""Sessions, each in an environment of its own: ``nox -l`` lists them, ``nox -s types`` runs one.

``lint``, ``types``, ``docs``, ``tests`` and ``numerics`` are what ``.ci/run`` does, command by command, and it needs no
nox. ``lowest`` takes the oldest versions that setup.cfg allows; ``coverage`` has a floor.
"""

from __future__ import annotations

import re
from configparser import ConfigParser

import nox

nox.options.sessions = ["lint", "types", "docs", "tests", "numerics"]
nox.options.reuse_existing_virtualenvs = True

FLOOR = 97
"""Percent of mtopt's lines and branches that the tests run."""

NARROW = {"OPENBLAS_CORETYPE": "Nehalem", "ATEN_CPU_CAPABILITY": "default"}
"""As a processor without wide vectors rounds."""

LOWEST = ("tests/solvers", "tests/combiners", "tests/linalg", "tests/pareto", "tests/autograd")
"""What rests on the packages that every user has; the rest takes extras."""


def development(session: nox.Session) -> None:
    session.install("-q", "-c", "constraints.txt", "-e", ".[dev]")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules, and its format."""
    session.install("-q", "-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    development(session)
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, without a warning."""
    development(session)
    session.run(*["python", "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "build/site"])


@nox.session
def tests(session: nox.Session) -> None:
    """As the README says; ``nox -s tests -- PATHS`` for some of them."""
    development(session)
    session.run(*["python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"], *session.posargs)


@nox.session
def numerics(session: nox.Session) -> None:
    """Solvers and rules once more, as a processor without wide vectors rounds them."""
    development(session)
    command = "python -m pytest -q -n 2 --dist worksteal tests/solvers tests/combiners"
    session.run(*command.split(), env=NARROW)


@nox.session
def coverage(session: nox.Session) -> None:
    """All tests in one process under coverage, which does not see those that they start; fails below the floor."""
    development(session)
    session.run(*["coverage", "run", "-m", "pytest", "-q"], *session.posargs)
    session.run("coverage", "report", "--skip-covered", "--show-missing", f"--fail-under={FLOOR}")


@nox.session
def lowest(session: nox.Session) -> None:
    """The lowest versions of what setup.cfg requires, and of the judge's packages."""
    session.install("-q", *lowest_versions(), "pytest", "hypothesis", "sybil")
    session.install("-q", "--no-deps", "-e", ".")
    session.run("python", "-m", "pytest", "-q", *(session.posargs or LOWEST))


def lowest_versions() -> list[str]:
    """``torch >= 2.6`` as ``torch==2.6.*``, of what is always required and of the extra ``reference``."""
    setup = ConfigParser(interpolation=None)
    setup.read("setup.cfg", encoding="utf-8")
    asked = f"{setup['options']['install_requires']}\n{setup['options.extras_require']['reference']}"
    return [f"{name}=={low}.*" for name, low in re.findall(r"^([\w-]+) >= ([\d.]+)$", asked, flags=re.MULTILINE)]
