"""How often each interval covers the truth, over cohort sizes and correlations within groups.

    python analyses/interval_coverage.py [--simulations 2000] [--costly-simulations 400]

Writes figures/interval_coverage/coverage.csv: one row a method and design. `coverage` is the share of simulations whose
95 % interval holds the truth; `reliable` the share of intervals that do not call themselves unreliable, and
`coverage_where_reliable` the coverage of those. Rows that the file already has are kept; delete it to begin anew.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "statistics"))  # the tests run the same simulations

from coverage_simulation import COMPARISON, COSTLY, DESIGNS, FAST  # noqa: E402

COLUMNS = (
    "method",
    "positives",
    "groups_with_positive",
    "correlation",
    "labels_within_group",
    "simulations",
    "coverage",
    "median_width",
    "reliable",
    "coverage_where_reliable",
)
KEY = ("method", "positives", "correlation", "labels_within_group")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--costly-simulations", type=int, default=400)
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "interval_coverage")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "coverage.csv"
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {tuple(row[key] for key in KEY) for row in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not done:
            table.writeheader()
        for name, simulate in (FAST | COMPARISON | COSTLY).items():
            n_simulations = arguments.costly_simulations if name in COSTLY else arguments.simulations
            for design in DESIGNS:
                labels = "varying" if design.varying else "constant"
                if (name, str(design.positives), str(design.correlation), labels) in done:
                    continue
                start = time.perf_counter()
                result = simulate(design, n_simulations, np.random.default_rng(1))
                row = {
                    "method": name,
                    "positives": design.positives,
                    "groups_with_positive": design.n_positive_groups,
                    "correlation": design.correlation,
                    "labels_within_group": labels,
                    "simulations": n_simulations,
                    "coverage": f"{result.covered.mean():.4f}",
                    "median_width": f"{np.median(result.width):.4f}",
                    "reliable": f"{result.reliable.mean():.3f}",
                    "coverage_where_reliable": (
                        f"{result.covered[result.reliable].mean():.4f}" if result.reliable.any() else ""
                    ),
                }
                table.writerow(row)
                file.flush()
                print(*row.values(), f"{time.perf_counter() - start:.1f} s", sep="  ", flush=True)


if __name__ == "__main__":
    main()
