"""Type-I error, power and interval coverage of the two-sample tests, and split halves of real sites.

    python analyses/shift_type_one_error.py [PART ...] [--simulations 2000] [--embeddings FILE.parquet ...]

PART is any of type_one_error, power, coverage, facts, split_halves; all by default, split_halves where embeddings are
given (`medvlm-probe export` writes them). Writes a CSV each to figures/shift_tests/.
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

from shift_simulation import Design, effect_coverage, fact_coverage, fact_results, p_values  # noqa: E402

from medvlm_probe.metrics.permutation import holm  # noqa: E402
from medvlm_probe.shift import shift_tests  # noqa: E402

TESTS = ("mmd", "classifier", "energy", "frechet", "directions", "mmd_linear")
DESIGNS = {
    "45 + 30 patients": Design(),
    "80 + 20 patients, correlation .9": Design(80, 20, correlation=0.9),
    "25 + 25 patients, 64 dimensions": Design(25, 25, dimensions=64),
}
LEFT_ALONE = {
    "60 + 30 patients, three images each at the site": Design(60, 30, site_images=3),
    "30 + 60 patients, three images each at the site": Design(30, 60, site_images=3),
}
"""No shift of the images, but patients differ in how many they have: what permuting patients does not promise."""

POWER = {
    "mean": [{"mean": m} for m in (0.25, 0.5, 0.75, 1.0)],
    "mixture": [{"mixture": m} for m in (0.05, 0.1, 0.2, 0.3)],
    "spread": [{"spread": s} for s in (1.15, 1.3, 1.5, 2.0)],
}


def type_one_error(n: int, files: list[Path]) -> Iterator[dict[str, Any]]:
    for name, design in (DESIGNS | LEFT_ALONE).items():
        # Random features cost more than all others here, and permute as they do: one design shows that.
        tests = (*TESTS, "mmd_features") if design == Design() else TESTS
        runs = n if name in DESIGNS else n // 4
        found = p_values(design, tests, runs, np.random.default_rng(1), n_permutations=99)
        family = [tests.index(test) for test in shift_tests.DEFAULT_TESTS]
        adjusted = np.array([holm(p).min() for p in found[:, family]])
        for test, column in zip(tests, found.T, strict=True):
            yield {"design": name, "test": test, "simulations": len(column), **_rejected(column)}
        yield {
            "design": name,
            "test": "any of the five defaults, Holm",
            "simulations": len(adjusted),
            **_rejected(adjusted),
        }


def power(n: int, files: list[Path]) -> Iterator[dict[str, Any]]:
    for shift, steps in POWER.items():
        for step in steps:
            design = replace(Design(), **step)
            found = p_values(design, TESTS, max(20, n // 25), np.random.default_rng(2), n_permutations=99)
            for test, column in zip(TESTS, found.T, strict=True):
                yield {
                    "reference_patients": design.reference,
                    "site_patients": design.site,
                    "shift": shift,
                    "severity": next(iter(step.values())),
                    "test": test,
                    "simulations": len(column),
                    "rejected": f"{np.mean(column <= 0.05):.3f}",
                }


def coverage(n: int, files: list[Path]) -> Iterator[dict[str, Any]]:
    for patients in ((15, 15), (45, 30), (200, 100)):
        for mean in (0.0, 0.5, 1.0):
            design = Design(*patients, decay=0.0, mean=mean)
            for name, found in effect_coverage(design, max(20, n // 10), np.random.default_rng(3)).items():
                yield {
                    "reference_patients": patients[0],
                    "site_patients": patients[1],
                    "shift": mean,
                    "effect": name,
                    "simulations": max(20, n // 10),
                    "truth": f"{found.truth:.4g}",
                    "coverage": f"{found.share:.3f}",
                    "median_width": f"{found.median_width:.4g}",
                }


def facts(n: int, files: list[Path]) -> Iterator[dict[str, Any]]:
    null = fact_results(0.0, n, np.random.default_rng(4))
    for k, name in enumerate(("cramers_v", "ks")):
        column = np.array([pair[k].p_value for pair in null])
        yield {"quantity": name, "shift": 0.0, "simulations": n, "rejected": f"{np.mean(column <= 0.05):.4f}"}
    for shift in (0.0, 0.3, 1.0):
        for name, found in fact_coverage(shift, max(20, n // 4), np.random.default_rng(5)).items():
            yield {
                "quantity": name,
                "shift": shift,
                "simulations": max(20, n // 4),
                "truth": f"{found.truth:.4g}",
                "coverage": f"{found.share:.3f}",
                "median_width": f"{found.median_width:.4g}",
            }


def split_halves(n: int, files: list[Path]) -> Iterator[dict[str, Any]]:
    """Split one real site's patients in two at random, over and over: none of the tests should see a difference."""
    import pandas as pd

    for file in files:
        table = pd.read_parquet(file)
        for site, images in table.groupby("site"):
            x = np.stack(images["embedding"].to_list())
            patients, codes = np.unique(images["patient"].astype(str), return_inverse=True)
            rng = np.random.default_rng(6)
            found = np.empty((max(20, n // 10), len(TESTS)))
            for k in range(len(found)):
                # At most 150 patients a half: the level is what is asked, and many splits must be made.
                side = np.full(len(patients), -1)
                drawn = rng.permutation(len(patients))[:300]
                side[drawn] = np.arange(len(drawn)) % 2
                first, second = (side[codes] == half for half in (0, 1))
                report = shift_tests.test_shift(
                    x[first], x[second], codes[first], codes[second], tests=TESTS, n_permutations=99, rng=rng
                )
                found[k] = [test.p_value for test in report.tests]
            for test, column in zip(TESTS, found.T, strict=True):
                yield {
                    "cohort": file.stem,
                    "site": site,
                    "patients": len(patients),
                    "test": test,
                    "splits": len(column),
                    **_rejected(column),
                }


def _rejected(p: np.ndarray) -> dict[str, str]:
    share = float(np.mean(p <= 0.05))
    return {"rejected": f"{share:.4f}", "standard_error": f"{np.sqrt(share * (1 - share) / len(p)):.4f}"}


PARTS = {part.__name__: part for part in (type_one_error, power, coverage, facts, split_halves)}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    start = time.perf_counter()
    found = []
    for row in rows:
        found.append(row)
        print(*row.values(), f"{time.perf_counter() - start:.0f} s", sep="  ", flush=True)
        columns = list(dict.fromkeys(key for row in found for key in row))
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "shift_tests")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or PARTS:
        if name not in PARTS:
            parser.error(f"unknown part {name}: expected {', '.join(PARTS)}")
        if name != "split_halves" or arguments.embeddings:
            _write(arguments.out / f"{name}.csv", PARTS[name](arguments.simulations, arguments.embeddings))


if __name__ == "__main__":
    main()
