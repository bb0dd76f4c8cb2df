"""How much hypervolume each tuner leaves to gain after the same number of epochs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from scipy.stats import qmc

from mtopt.experiments import TMOBO
from mtopt.pareto import hypervolume

from .._command import run_command
from .problem import DIMENSION, EPOCHS, HYPERVOLUME, REFERENCE, Array, objectives

Archive = list[Array]
"""The objectives after every epoch that was trained."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tuners and print a table of Markdown."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200, help="of all trainings together (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--tuners", nargs="+", choices=list(TUNERS), default=list(TUNERS))
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"| tuner | gap after {options.epochs // 2} epochs | after {options.epochs} |\n|---|---|---|")
    for name in options.tuners:
        archives = [TUNERS[name](options.epochs, seed) for seed in range(options.seeds)]
        gaps = [[gap(archive[:count]) for archive in archives] for count in (options.epochs // 2, options.epochs)]
        print(f"| {name} | {' | '.join(told(found) for found in gaps)} |", flush=True)


def gap(archive: Archive) -> float:
    """Hypervolume of the known front less that of the points."""
    return HYPERVOLUME - hypervolume(np.array(archive), REFERENCE)


def told(gaps: list[float]) -> str:
    """``0.0123 (0.0100 to 0.0200)``: the median and the range over seeds."""
    return f"{np.median(gaps):.4f} ({min(gaps):.4f} to {max(gaps):.4f})"


def run_tmobo(epochs: int, seed: int) -> Archive:
    """Trainings that the tuner stops when it will."""
    tuner, archive = TMOBO(DIMENSION, EPOCHS, REFERENCE, seed=seed), Archive()
    while len(archive) < epochs:
        x, epoch, goes_on = tuner.propose(), 0, True
        while goes_on:
            epoch += 1
            archive.append(objectives(x, epoch))
            goes_on = tuner.observe(archive[-1])
    return archive


def run_halton(epochs: int, seed: int) -> Archive:
    """Whole trainings at scrambled Halton points."""
    points = qmc.Halton(DIMENSION, rng=np.random.default_rng(seed)).random(-(-epochs // EPOCHS))
    return [objectives(x, epoch) for x in points for epoch in range(1, EPOCHS + 1)]


def run_optuna(make: Callable[..., Any], *, tunes_epochs: bool = False) -> Callable[[int, int], Archive]:
    """A sampler of Optuna that minimises the objectives at the end; ``tunes_epochs``: it says when that is, too."""

    def run(epochs: int, seed: int) -> Archive:
        study, archive = optuna.create_study(directions=["minimize"] * 2, sampler=make(seed=seed)), Archive()
        while len(archive) < epochs:
            trial = study.ask()
            x = np.array([trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(DIMENSION)])
            last = trial.suggest_int("epochs", 1, EPOCHS) if tunes_epochs else EPOCHS
            archive += [objectives(x, epoch) for epoch in range(1, last + 1)]
            study.tell(trial, archive[-1].tolist())
        return archive

    return run


def make_tpe(seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=DIMENSION + 1)


def make_gp(seed: int) -> Any:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=DIMENSION + 1)


def make_nsga2(seed: int) -> Any:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=4)


TUNERS: dict[str, Callable[[int, int], Archive]] = {
    "TMOBO": run_tmobo,
    "Halton": run_halton,
    "Optuna TPE": run_optuna(make_tpe),
    "Optuna TPE, epochs too": run_optuna(make_tpe, tunes_epochs=True),
    "Optuna NSGA-II": run_optuna(make_nsga2),
    "Optuna GP": run_optuna(make_gp),
}

if __name__ == "__main__":
    run_command(main)
