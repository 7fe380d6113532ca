"""How often each interval covers the truth, over cohort sizes and correlations within groups.

    python analyses/interval_coverage.py [--simulations 2000] [--costly-simulations 400] [--calibration-simulations 100]

Writes two files to figures/interval_coverage/, one row a method and design: coverage.csv for performance, and
calibration.csv for calibration. `coverage` is the share of simulations whose 95 % interval holds the truth; `reliable`
the share of intervals that do not call themselves unreliable, and `coverage_where_reliable` the coverage of those. Rows
that a file already has are kept; delete it to begin anew.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medvlm_probe.types import BoolArray, FloatArray

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "statistics"))  # the tests run the same simulations

from calibration_simulation import CHANCES, CONFIDENCES, LAYOUTS, Answers, covered, estimates, truths  # noqa: E402
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
CALIBRATION_COLUMNS = (
    "metric",
    "confidences",
    "chances",
    "n",
    "correlation",
    "simulations",
    "coverage",
    "median_width",
    "reliable",
    "coverage_where_reliable",
)
CALIBRATION_KEY = ("confidences", "chances", "n", "correlation")
CALIBRATION_METRICS = (
    "ece",
    "ace",
    "mce",
    "ece_kde",
    "smooth_ece",
    "brier",
    "nll",
    "calibration_in_the_large",
    "overconfidence",
    "sure_errors",
    "risk_coverage",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--costly-simulations", type=int, default=400)
    parser.add_argument("--calibration-simulations", type=int, default=100)
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "interval_coverage")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    performance(arguments.out / "coverage.csv", arguments.simulations, arguments.costly_simulations)
    calibration(arguments.out / "calibration.csv", arguments.calibration_simulations)


def performance(path: Path, n_fast: int, n_costly: int) -> None:
    with _table(path, COLUMNS, KEY) as (write, done):
        for name, simulate in (FAST | COMPARISON | COSTLY).items():
            n_simulations = n_costly if name in COSTLY else n_fast
            for design in DESIGNS:
                labels = "varying" if design.varying else "constant"
                if (name, str(design.positives), str(design.correlation), labels) in done:
                    continue
                result = simulate(design, n_simulations, np.random.default_rng(1))
                write(
                    {
                        "method": name,
                        "positives": design.positives,
                        "groups_with_positive": design.n_positive_groups,
                        "correlation": design.correlation,
                        "labels_within_group": labels,
                        "simulations": n_simulations,
                        **_shares(result.covered, result.width, result.reliable),
                    }
                )


def calibration(path: Path, n_simulations: int) -> None:
    with _table(path, CALIBRATION_COLUMNS, CALIBRATION_KEY) as (write, done):
        for confidences, chances, (n, correlation) in itertools.product(CONFIDENCES, CHANCES, LAYOUTS):
            design = Answers(confidences, chances, n, correlation)
            key = {"confidences": confidences, "chances": chances, "n": n, "correlation": correlation}
            if tuple(str(value) for value in key.values()) in done:
                continue
            truth = truths(confidences, chances)
            for metric, found in estimates(
                design, CALIBRATION_METRICS, n_simulations, np.random.default_rng(n)
            ).items():
                width = np.array([estimate.high - estimate.low for estimate in found])
                reliable = np.array([estimate.reliable and np.isfinite(estimate.value) for estimate in found])
                shares = _shares(covered(found, truth[metric]), width, reliable)
                write({"metric": metric, **key, "simulations": n_simulations, **shares})


def _shares(covers: BoolArray, width: FloatArray, reliable: BoolArray) -> dict[str, str]:
    return {
        "coverage": f"{covers.mean():.4f}",
        "median_width": f"{np.median(width):.4f}",
        "reliable": f"{reliable.mean():.3f}",
        "coverage_where_reliable": f"{covers[reliable].mean():.4f}" if reliable.any() else "",
    }


@contextmanager
def _table(
    path: Path, columns: Sequence[str], key: Sequence[str]
) -> Iterator[tuple[Callable[[dict[str, object]], None], set[tuple[str, ...]]]]:
    """Give a function that appends a row and prints it, and the keys of the rows that the file has already."""
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {tuple(row[name] for name in key) for row in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        if not done:
            table.writeheader()

        def write(row: dict[str, object]) -> None:
            table.writerow(row)
            file.flush()
            print(*row.values(), sep="  ", flush=True)

        yield write, done


if __name__ == "__main__":
    main()
