"""The calibration error by kernel density: seconds and memory against the same formula with the whole n x n matrix.

    python -m benchmarks.kde_calibration [--quick]

The alternative is CalibPrompt's definition (`legacy=True`: Gaussian kernels) as its code has it: all pairs at once, in
float64. Memory is what was allocated at the peak, beyond the inputs. The slope is that of log memory over log n: 1 is
linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row
from medvlm_probe.metrics.calibration import kde_calibration_error

RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "kde_calibration.json"
SIZES, QUICK_SIZES = (2_000, 4_000, 8_000, 16_000), (500, 1_000)
REPEATS = 3
BANDWIDTHS = ((100, 0.3), (500, 0.2), (2_000, 0.1), (np.inf, 0.05))


def inputs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences of a calibrated binary problem, and its outcomes."""
    rng = np.random.default_rng(0)
    p = rng.beta(2, 5, n)
    return p, (rng.random(n) < p).astype(np.int64)


def whole_matrix(p: np.ndarray, y: np.ndarray) -> float:
    """Return the released definition from one matrix of all pairs."""
    bandwidth = next(h for below, h in BANDWIDTHS if len(p) < below)
    weights = np.exp(-((p[:, None] - p[None, :]) ** 2) / (2 * bandwidth**2))
    np.fill_diagonal(weights, 0)
    return float(np.abs(weights @ y / weights.sum(axis=1) - p).mean())


def ours(p: np.ndarray, y: np.ndarray) -> float:
    """Return the same in blocks."""
    return kde_calibration_error(p, y, legacy=True)


def beta(p: np.ndarray, y: np.ndarray) -> float:
    """Return the default, with beta kernels."""
    return kde_calibration_error(p, y)


CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "medvlm-probe, legacy": ours,
    "medvlm-probe, beta kernels": beta,
    "whole matrix": whole_matrix,
}


def measure(quick: bool) -> dict[str, Any]:
    """Return seconds, peak MiB and the slope of memory of each, and the largest difference from the whole matrix."""
    sizes = QUICK_SIZES if quick else SIZES
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    peaks: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    difference = 0.0
    for n in sizes:
        p, y = inputs(n)
        taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        values: dict[str, float] = {}
        for _ in range(REPEATS):
            for name, task in CONTENDERS.items():
                start = time.perf_counter()
                values[name] = task(p, y)
                taken[name].append(time.perf_counter() - start)
        for name, task in CONTENDERS.items():
            seconds[name].append(statistics.median(taken[name]))
            tracemalloc.start()
            task(p, y)
            peaks[name].append(tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.stop()
        difference = max(difference, abs(values["medvlm-probe, legacy"] - values["whole matrix"]))
    slopes = {name: float(np.polyfit(np.log(sizes), np.log(peak), 1)[0]) for name, peak in peaks.items()}
    return {
        "sizes": list(sizes),
        "seconds": seconds,
        "peak_mib": peaks,
        "memory_slope": slopes,
        "largest_difference": difference,
    }


def rows(quick: bool) -> list[Row]:
    """Return the row of the largest size: the same formula, the same number."""
    found = measure(quick)
    name, other = "medvlm-probe, legacy", "whole matrix"
    slope, peak, whole = found["memory_slope"][name], found["peak_mib"][name][-1], found["peak_mib"][other][-1]
    return [
        Row(
            "KDE-ECE",
            f"{found['sizes'][-1]:,} images; {peak:.0f} MiB against {whole:,.0f}, memory as n^{max(slope, 0):.1f}",
            found["seconds"][name][-1],
            "all pairs in one matrix",
            found["seconds"][other][-1],
            agreement=f"{found['largest_difference']:.0e}",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    quick = parser.parse_args().quick
    found = measure(quick)
    for name in CONTENDERS:
        for n, taken, peak in zip(found["sizes"], found["seconds"][name], found["peak_mib"][name], strict=True):
            print(f"{name:28} {n:7,} images {taken:8.3f} s {peak:9.1f} MiB")
        print(f"{name:28} memory grows as n^{found['memory_slope'][name]:.2f}")
    print(f"largest difference {found['largest_difference']:.1e}")
    if not quick:
        RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
