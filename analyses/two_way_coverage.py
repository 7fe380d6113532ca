"""How often the two-way bootstrap's 95 % interval of a paired difference covers the truth.

    python analyses/two_way_coverage.py [--simulations 400]

Writes figures/two_way_bootstrap/coverage.csv: a row a design and metric. `passes` is how often a difference that lies
exactly at the margin is called not worse, which should happen in at most 5 % (of accuracy; of the others 5 % from the
other side).
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "statistics"))  # the tests run the same simulation

from two_way_simulation import METRICS, Design, covered, truths  # noqa: E402

DESIGNS = [Design(draws, groups) for draws in (5, 20) for groups in (20, 40, 100, 300)] + [
    Design(3, 100),
    Design(20, 100, 0.0),
    Design(20, 100, 1.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "two_way_bootstrap")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = {interaction: truths(interaction) for interaction in sorted({d.interaction for d in DESIGNS})}
    with (arguments.out / "coverage.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["draws", "groups", "interaction", "metric", "simulations", "coverage", "width", "passes"])
        for design in DESIGNS:
            runs = [covered(design, known[design.interaction], seed) for seed in range(arguments.simulations)]
            for metric in METRICS:
                means = [f"{np.mean([run[metric][key] for run in runs]):.4f}" for key in ("covers", "width", "passes")]
                row = [design.draws, design.groups, design.interaction, metric, len(runs), *means]
                table.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main()
