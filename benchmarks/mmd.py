"""The MMD permutation test against the loop that indexes the kernel anew for each permutation, and all tests' times.

    python -m benchmarks.mmd [--quick]

5,000 against 5,000 patients of one image, 512 dimensions, 999 permutations (`--quick`: 1,000 and 128), in seconds of
processor time on one thread. The loop is timed on a few permutations of the same
kernel, and multiplied; both must give the same null values.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.machine import product_rate
from benchmarks.table import Row
from medvlm_probe.shift.group_kernel import group_kernel, null_discrepancies
from medvlm_probe.shift.mmd import median_bandwidth
from medvlm_probe.shift.shift_tests import TESTS
from medvlm_probe.shift.two_samples import SitePermutations, site_permutations, two_samples

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
N_PERMUTATIONS = 999


def by_indexing(kernel: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the null values as most code computes them: index the kernel's three blocks for each permutation."""
    found = []
    for mask in masks:
        x, y = np.flatnonzero(~mask), np.flatnonzero(mask)
        within = [kernel[np.ix_(part, part)].sum(dtype=np.float64) / (len(part) * (len(part) - 1)) for part in (x, y)]
        found.append(sum(within) - 2 * kernel[np.ix_(x, y)].mean(dtype=np.float64))
    return np.array(found)


def measure(quick: bool) -> dict[str, Any]:
    """Return the seconds of each part and of each test, on one thread."""
    with threadpool_limits(1):
        return _measure(*((1_000, 128, 20) if quick else (5_000, 512, 3)))


def _measure(n: int, d: int, n_loops: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    samples = two_samples(
        rng.normal(size=(n, d)).astype(np.float32) + 1, rng.normal(size=(n, d)).astype(np.float32) + 1.2
    )
    start = time.process_time()
    permutations = site_permutations(samples.of_site, N_PERMUTATIONS, rng)
    seconds = {"permutations": time.process_time() - start}
    scale = np.float32(-0.5 * (samples.points.unit / median_bandwidth(samples.points, samples.groups, rng)) ** 2)

    def gaussian(values: np.ndarray) -> None:
        np.square(values, out=values)
        np.multiply(values, scale, out=values)
        np.exp(values, out=values)

    start = time.process_time()
    kernel = group_kernel(samples, gaussian)
    seconds["kernel"] = time.process_time() - start
    start = time.process_time()
    ours = np.concatenate(list(null_discrepancies(kernel, permutations, n)))
    seconds["null, matrix products"] = time.process_time() - start
    few = SitePermutations(permutations.packed[:n_loops], permutations.n_groups)
    (masks,) = few.blocks()
    start = time.process_time()
    theirs = by_indexing(kernel.between, masks)
    seconds["null, indexing (extrapolated)"] = (time.process_time() - start) / n_loops * N_PERMUTATIONS
    difference = float(np.abs(ours[:n_loops] - theirs).max())
    assert difference < 1e-6, difference
    del kernel
    for name, test in TESTS.items():
        start = time.process_time()
        test(samples, permutations, np.random.default_rng(1))
        seconds[f"test {name}"] = time.process_time() - start
    rate = product_rate(clock=time.process_time)
    return {
        "n": n,
        "d": d,
        "n_permutations": N_PERMUTATIONS,
        "products_per_second": rate,
        "floor_seconds": 2 * (2 * n) ** 2 * N_PERMUTATIONS / rate,
        "seconds": seconds,
        "times_faster": seconds["null, indexing (extrapolated)"] / seconds["null, matrix products"],
        "largest_difference": difference,
    }


def rows(quick: bool) -> list[Row]:
    """Return the row of the permutations alone: both sides have the same kernel."""
    found = measure(quick)
    return [
        Row(
            "MMD permutation test",
            f"{found['n']:,} against {found['n']:,}, {N_PERMUTATIONS} permutations",
            found["seconds"]["null, matrix products"],
            "indexing the kernel anew",
            found["seconds"]["null, indexing (extrapolated)"],
            extrapolated=True,
            agreement=f"{found['largest_difference']:.0e} of a null value",
            floor_seconds=found["floor_seconds"],
            floor="matrix products",
            bar=100,
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="1,000 x 128 instead of 5,000 x 512")
    quick = parser.parse_args().quick
    found = measure(quick)
    n = found["n"]
    print(
        f"{n:,} against {n:,} x {found['d']}, {N_PERMUTATIONS} permutations; "
        f"products at {found['products_per_second'] / 1e9:.0f} GFLOP/s"
    )
    print(f"floor of the null's products: {found['floor_seconds']:.2f} s")
    for name, taken in found["seconds"].items():
        print(f"{name:32}{taken:9.2f} s")
    print(
        f"matrix products against indexing: {found['times_faster']:.0f} times; "
        f"largest difference {found['largest_difference']:.1e}"
    )
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / ("mmd_quick.json" if quick else "mmd.json")).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
