"""The packages that are installed; everything else is in setup.cfg, which cannot give a folder another name."""

from setuptools import find_packages, setup

SUITES = "mtopt_suites"
"""What the folder ``benchmarks`` is called once it is installed: other projects have a ``benchmarks``, too."""

setup(
    packages=[
        *find_packages(include=["mtopt", "mtopt.*"]),
        *(name.replace("benchmarks", SUITES, 1) for name in find_packages(include=["benchmarks", "benchmarks.*"])),
    ],
    package_dir={SUITES: "benchmarks"},
)
