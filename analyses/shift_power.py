"""Power of every two-sample test over severity and patients, on normal vectors and on phantoms.

    python analyses/shift_power.py [features|phantoms ...] [--simulations 50]

Writes figures/shift_tests/power_features.csv and power_phantoms.csv (anew after each cell) and power.svg of what is
there. Both samples have as many patients; a test rejects where its own p-value (99 permutations, before Holm) is at
most .05.

features: 16 dimensions, one to four images a patient (`Design` in tests/statistics/shift_simulation.py). The site's
mean lies `severity` standard deviations away in one direction, or that share of its patients lies 4 away in another.
phantoms: images through phantom-clip, balanced prevalences; the site's went through a gamma transform of that strength,
or that share of its patients is from the portable scanner.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from shift_type_one_error import PROJECT, TESTS, Design, Drawable, FromPools, p_values
from simulation_tables import Rows, rejected, write_cells

from medvlm_probe.plots.power_curves import power_curves
from medvlm_probe.plots.style import figure_bytes
from medvlm_probe.runs import write_bytes_atomically

SIZES = {"features": (25, 100), "phantoms": (25, 60)}
SEVERITIES = {
    "mean": (0.25, 0.5, 1.0),
    "mixture": (0.05, 0.1, 0.3),
}
"""No spread: the tests compare directions, and scaling all vectors of a site alike moves none."""
GAMMAS = (1.2, 1.4, 2.0)
SHARES = (0.1, 0.25, 0.5)
WORDS = {
    "mean": "Mean, standard deviations away",
    "mixture": "Share of patients who lie elsewhere",
    "gamma": "Phantoms: gamma of the site",
    "scanner": "Phantoms: share from another scanner",
}


def features() -> Iterator[tuple[str, float, int, Drawable]]:
    for n in SIZES["features"]:
        for shift, severities in SEVERITIES.items():
            for severity in severities:
                yield shift, severity, n, Design(n, n, **{shift: severity})


def phantoms() -> Iterator[tuple[str, float, int, Drawable]]:
    from phantom_pool import phantom_pool

    def pool(what: str) -> tuple[np.ndarray, np.ndarray]:
        found = phantom_pool(what)
        return found.vectors, found.groups

    reference, portable = pool("reference"), pool("portable")
    altered = {gamma: pool(f"gamma/v1@{gamma:g}") for gamma in GAMMAS}
    for n in SIZES["phantoms"]:
        for gamma in GAMMAS:
            yield "gamma", gamma, n, FromPools(reference, altered[gamma], n, n, share=1.0)
        for share in SHARES:
            yield "scanner", share, n, FromPools(reference, portable, n, n, share=share)


PARTS = {part.__name__: part for part in (features, phantoms)}


def cells(part: str, runs: int) -> Rows:
    for shift, severity, n, design in PARTS[part]():
        found = p_values(design, TESTS, runs, np.random.default_rng(2), n_permutations=99)
        facts = {"shift": shift, "severity": severity, "patients_a_side": n}
        rows = [facts | {"test": name} | rejected(p) for name, p in zip(TESTS, found.T, strict=True)]
        yield f"{shift} {severity} {n}", rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--simulations", type=int, default=50)
    parser.add_argument("--draw", action="store_true", help="only the figure, from the tables that are there")
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "shift_tests")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {part: arguments.out / f"power_{part}.csv" for part in PARTS}
    for part in () if arguments.draw else arguments.parts or PARTS:
        write_cells(files[part], cells(part, arguments.simulations))
    found = pd.concat([pd.read_csv(file) for file in files.values() if file.exists()])
    figure = power_curves(found, WORDS, note=f"{found['simulations'].min():,} runs or more a point; level .05.")
    write_bytes_atomically(arguments.out / "power.svg", figure_bytes(figure, "svg"))


if __name__ == "__main__":
    main()
