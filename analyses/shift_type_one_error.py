"""Type-I error and interval coverage of the two-sample tests, and split halves of real sites.

    python analyses/shift_type_one_error.py [PART ...] [--simulations 1000] [--embeddings FILE.parquet ...]

PART is any of type_one_error, phantoms, coverage, facts, split_halves; all by default, split_halves where embeddings
are given (`medvlm-probe export` writes them). Writes a CSV each to figures/shift_tests/, anew after each block of runs:
what is stopped early stands there with the runs that it had. The power of the tests: `shift_power.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from simulation_tables import Rows, rejected, write_cells

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "statistics"))  # the tests run the same simulations

from shift_simulation import Design, Drawable, FromPools, effect_coverage, fact_coverage, fact_results, p_values  # noqa: E402

from medvlm_probe.metrics.permutation import holm  # noqa: E402
from medvlm_probe.shift import shift_tests  # noqa: E402

TESTS = (*shift_tests.DEFAULT_TESTS, "mmd_linear", "mmd_features")
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

SIZES = ((60, 40),)
BLOCK = 100
FACTS = ("cramers_v", "ks")


def type_one_error(n: int, files: Sequence[Path]) -> Rows:
    for name, design in (DESIGNS | LEFT_ALONE).items():
        yield from _levels({"design": name}, design, n if name in DESIGNS else n // 4, 1)
    # Cheap, and twice near the upper end of what chance gives with fewer runs.
    yield from _levels({"design": "45 + 30 patients, more runs"}, Design(), 6 * n, 99, tests=("mmd_linear",))


def phantoms(n: int, files: Sequence[Path]) -> Rows:
    """Two samples of patients of the phantom reference site through phantom-clip, one to three images each."""
    from phantom_pool import phantom_pool

    found = phantom_pool("reference")
    pool = found.vectors, found.groups
    for sizes in SIZES:
        design = FromPools(pool, pool, *sizes)
        yield from _levels({"design": f"{sizes[0]} + {sizes[1]} phantom patients, 128 dimensions"}, design, n, 7)


def _levels(facts: dict[str, Any], design: Drawable, n: int, seed: int, tests: Sequence[str] = TESTS) -> Rows:
    """Yield how often each test rejects where nothing moved, after each block of runs."""
    rng, found = np.random.default_rng(seed), np.empty((0, len(tests)))
    family = [tests.index(test) for test in shift_tests.DEFAULT_TESTS] if tests == TESTS else []
    while len(found) < n:
        block = p_values(design, tests, min(BLOCK, n - len(found)), rng, n_permutations=99)
        found = np.concatenate([found, block])
        columns = dict(zip(tests, found.T, strict=True))
        if family:
            columns["any of the five defaults, Holm"] = np.array([holm(p).min() for p in found[:, family]])
        name = " ".join(map(str, (*facts.values(), len(tests))))
        yield name, [facts | {"test": test} | rejected(p) for test, p in columns.items()]


def coverage(n: int, files: Sequence[Path]) -> Rows:
    for patients in ((15, 15), (45, 30), (200, 100)):
        for mean in (0.0, 0.5, 1.0):
            design = Design(*patients, decay=0.0, mean=mean)
            sides = {"reference_patients": patients[0], "site_patients": patients[1], "shift": mean}
            runs = max(20, n // 5)
            rows = [
                sides | {"effect": name} | covered_row(found, runs)
                for name, found in effect_coverage(design, runs, np.random.default_rng(3)).items()
            ]
            yield f"{patients} {mean}", rows


def facts(n: int, files: Sequence[Path]) -> Rows:
    rng, found = np.random.default_rng(4), np.empty((0, 2))
    while len(found) < 6 * n:
        block = fact_results(0.0, min(1000, 6 * n - len(found)), rng)
        found = np.concatenate([found, [[test.p_value for test in pair] for pair in block]])
        yield "null", [{"quantity": q, "shift": 0.0} | rejected(p) for q, p in zip(FACTS, found.T, strict=True)]
    for shift in (0.0, 0.3, 1.0):
        held = fact_coverage(shift, max(20, 3 * n // 4), np.random.default_rng(5))
        yield (
            f"{shift}",
            [{"quantity": q, "shift": shift} | covered_row(c, max(20, 3 * n // 4)) for q, c in held.items()],
        )


def split_halves(n: int, files: Sequence[Path]) -> Rows:
    """Split one real site's patients in two at random, over and over: none of the tests should see a difference."""
    import pandas as pd

    for file in files:
        table = pd.read_parquet(file)
        for site, images in table.groupby("site"):
            groups = np.unique(images["patient"].astype(str), return_inverse=True)[1]
            pool = np.stack(images["embedding"].to_list()), groups
            patients = int(groups.max()) + 1
            # At most 150 patients a half: the level is what is asked, and many splits must be made.
            half = min(150, patients // 2)
            facts = {"cohort": file.stem, "site": site, "patients": patients}
            design = FromPools(pool, pool, half, half)
            yield from _levels(facts, design, max(20, n // 10), 6)
            # Cheap, and those whose level was in doubt.
            yield from _levels(facts, design, max(20, 2 * n // 5), 8, tests=("mmd", "energy", "mmd_linear"))


def covered_row(found: Any, runs: int) -> dict[str, Any]:
    """Return a coverage as columns."""
    return {
        "simulations": runs,
        "truth": f"{found.truth:.4g}",
        "coverage": f"{found.share:.3f}",
        "median_width": f"{found.median_width:.4g}",
    }


PARTS = {part.__name__: part for part in (type_one_error, phantoms, coverage, facts, split_halves)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "shift_tests")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or PARTS:
        if name not in PARTS:
            parser.error(f"unknown part {name}: expected {', '.join(PARTS)}")
        if name != "split_halves" or arguments.embeddings:
            write_cells(arguments.out / f"{name}.csv", PARTS[name](arguments.simulations, arguments.embeddings))


if __name__ == "__main__":
    main()
