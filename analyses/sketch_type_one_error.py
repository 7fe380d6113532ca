"""Type-I error, power and interval coverage of the test from two sketches, and its distance from the exact MMD.

    python analyses/sketch_type_one_error.py [PART ...] [--simulations 1000]

PART is any of type_one_error, power, agreement, label_shift; all by default. Writes a CSV each to figures/sketches/.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "statistics"))  # the tests run the same simulations

from shift_simulation import Design  # noqa: E402
from sketch_simulation import agreement, label_shift_from_sketches, sketch_p_values  # noqa: E402

DESIGNS = {
    "450 + 350 patients, one to four images": Design(450, 350),
    "1,000 + 400 patients, one to four images": Design(1000, 400),
    "400 + 400 patients, 64 dimensions, slow decay": Design(400, 400, dimensions=64, decay=0.3),
    "450 + 350 patients, correlation .9": Design(450, 350, correlation=0.9),
    "450 + 200 patients, one to four images": Design(450, 200),
    "450 + 350 patients, 8 dimensions, fast decay": Design(450, 350, dimensions=8, decay=2.0),
    "450 + 350 patients, three images each at the site": Design(450, 350, site_images=3),
}
"""Of the last one the null does not hold quite: means of three images vary less than those of one to four."""

POWER = {"mean": (0.1, 0.2, 0.3), "mixture": (0.01, 0.02, 0.05), "spread": (1.05, 1.1, 1.2)}


def type_one_error(n: int) -> Iterator[dict[str, Any]]:
    for name, design in DESIGNS.items():
        p, held = sketch_p_values(design, n, np.random.default_rng(1))
        yield {
            "design": name,
            "simulations": n,
            "rejected_at_5_percent": f"{np.mean(p <= 0.05):.4f}",
            "rejected_at_1_percent": f"{np.mean(p <= 0.01):.4f}",
            "interval_holds_0": f"{held:.4f}",
        }


def power(n: int) -> Iterator[dict[str, Any]]:
    for shift, severities in POWER.items():
        for severity in severities:
            p, _ = sketch_p_values(replace(Design(450, 350), **{shift: severity}), n // 5, np.random.default_rng(2))
            yield {
                "shift": shift,
                "severity": severity,
                "simulations": n // 5,
                "rejected_at_5_percent": f"{np.mean(p <= 0.05):.3f}",
            }


def measured_agreement(n: int) -> Iterator[dict[str, Any]]:
    for mean in (0.0, 0.2, 0.5, 1.0, 2.0):
        for seed in range(3):
            design = Design(600, 400, dimensions=64, decay=0.5, mean=mean)
            exact, sketched = agreement(design, np.random.default_rng(seed), n_features=4_096)
            yield {
                "mean_shift": mean,
                "seed": seed,
                "exact_squared_mmd": f"{exact:.6f}",
                "from_sketches": f"{sketched:.6f}",
                "absolute_error": f"{abs(sketched - exact):.2g}",
                "relative_error": f"{abs(sketched / exact - 1):.2g}",
            }


LABEL_SHIFTS = {
    "600 + 400 patients, 30 % at both": (600, 400, (0.3, 0.3), 2.5),
    "300 + 300 patients, 15 % against 30 %": (300, 300, (0.15, 0.3), 1.5),
    "2,000 + 1,000 patients, 5 % against 10 %": (2_000, 1_000, (0.05, 0.1), 2.0),
}


def label_shift(n: int) -> Iterator[dict[str, Any]]:
    for name, setting in LABEL_SHIFTS.items():
        for kind, found in label_shift_from_sketches(*setting, n, np.random.default_rng(3)).items():
            yield {
                "design": name,
                "reference": kind,
                "simulations": n,
                "misfit_rejected_at_5_percent": f"{np.mean(found[:, 0] <= 0.05):.4f}",
                "em_interval_holds_truth": f"{found[:, 1].mean():.4f}",
                "bbse_interval_holds_truth": f"{found[:, 2].mean():.4f}",
            }


PARTS = {
    "type_one_error": type_one_error,
    "power": power,
    "agreement": measured_agreement,
    "label_shift": label_shift,
}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    start = time.perf_counter()
    found = []
    for row in rows:
        found.append(row)
        print(*row.values(), f"{time.perf_counter() - start:.0f} s", sep="  ", flush=True)
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(row), lineterminator="\n")
            table.writeheader()
            table.writerows(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "sketches")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or PARTS:
        if name not in PARTS:
            parser.error(f"unknown part {name}: expected {', '.join(PARTS)}")
        _write(arguments.out / f"{name}.csv", PARTS[name](arguments.simulations))


if __name__ == "__main__":
    main()
