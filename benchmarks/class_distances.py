"""Class distances of 20,000 x 512 embeddings against the same numbers from scikit-learn's `pairwise_distances`.

    python -m benchmarks.class_distances [--quick]

Each contender runs in a process of its own, so that its peak memory is its own. Ours gives mean distances, ratio,
energy distance, centroid distances, neighbour purity and silhouette, each with its jackknife interval. scikit-learn is
timed twice, without intervals: for the mean distances alone, and with neighbour purity and silhouette.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import product_rate
from benchmarks.table import Row

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
PREVALENCES = (0.629, 0.135, 0.109, 0.057, 0.043, 0.043, 0.034, 0.033, 0.018, 0.018, 0.015, 0.013, 0.008, 0.005)
N_NEIGHBORS = 10


@dataclass(frozen=True)
class Contender:
    """One contender: wall-clock and processor seconds, peak memory beyond the inputs, largest relative error of a mean
    distance against float64."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    largest_error: float


def inputs(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings, 14 labels at IU-Xray's prevalences with 2 % unknown, and patients of one to three images."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, len(PREVALENCES))) < PREVALENCES).astype(np.float32)
    embeddings = rng.normal(size=(n, d)) + 0.5 * rng.normal(size=d)
    embeddings += labels @ rng.normal(scale=0.3, size=(len(PREVALENCES), d))
    labels[rng.random(labels.shape) < 0.02] = np.nan
    groups = np.repeat(np.arange(n), rng.integers(1, 4, size=n))[:n]
    return embeddings.astype(np.float32), labels, groups


def ours(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return mean distances, purity and silhouette (L, 5) by `class_distances`, which computes more besides."""
    from medvlm_probe.metrics.separability import class_distances

    return np.array(
        [
            [e.value for e in (c.intra_positive, c.intra_negative, c.inter, c.neighbour_purity, c.silhouette)]
            for c in class_distances(embeddings, labels, groups, n_neighbors=N_NEIGHBORS)
        ]
    )


def distances_with_scikit_learn(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean distances (L, 3) as a user would get them: the whole matrix, then sums by label."""
    return _mean_distances(labels, groups, _row_sums(_matrix(embeddings, groups), labels))


def all_with_scikit_learn(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return mean distances, purity and silhouette (L, 5) from two whole matrices, one after the other."""
    distances = _matrix(embeddings, groups)
    means = _mean_distances(labels, groups, _row_sums(distances, labels))
    for group in _members(groups):
        distances[np.ix_(group, group)] = np.inf
    nearest = np.argpartition(distances, N_NEIGHBORS, axis=1)[:, :N_NEIGHBORS]
    found = labels[nearest]
    purity = [np.nanmean(found[labels[:, k] == 1, :, k]) for k in range(labels.shape[1])]
    del distances
    sums = _row_sums(_matrix(embeddings, groups, "cosine"), labels)
    silhouettes = []
    for k in range(labels.shape[1]):
        positive, negative = labels[:, k] == 1, labels[:, k] == 0
        own = groups[positive]
        a = sums[positive, k] / (positive.sum() - np.bincount(groups, positive)[own])
        b = sums[positive, labels.shape[1] + k] / (negative.sum() - np.bincount(groups, negative)[own])
        silhouettes.append(((b - a) / np.maximum(a, b)).mean())
    return np.column_stack([means, purity, silhouettes])


def _matrix(embeddings: np.ndarray, groups: np.ndarray, metric: str = "euclidean") -> np.ndarray:
    from sklearn.metrics import pairwise_distances
    from sklearn.preprocessing import normalize

    distances = pairwise_distances(normalize(embeddings), metric=metric)
    for group in _members(groups):
        distances[np.ix_(group, group)] = 0
    return np.asarray(distances)


def _members(groups: np.ndarray) -> list[np.ndarray]:
    return np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])


def _row_sums(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return sums of distances to positives and to negatives, (n, 2 L)."""
    marks = np.concatenate([labels == 1, labels == 0], axis=1)
    return (distances @ marks.astype(distances.dtype)).astype(np.float64)


def in_float64(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean distances (L, 3) from float64 products of strips, the reference."""
    x = embeddings.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x -= x.mean(axis=0)
    squares = (x**2).sum(axis=1)
    marks = np.concatenate([labels == 1, labels == 0], axis=1).astype(np.float64)
    sums = np.empty(marks.shape)
    for start in range(0, len(x), 512):
        strip = slice(start, start + 512)
        distances = np.sqrt(np.maximum(squares[strip, None] + squares - 2 * x[strip] @ x.T, 0))
        distances[groups[strip, None] == groups] = 0
        sums[strip] = distances @ marks
    return _mean_distances(labels, groups, sums)


def _mean_distances(labels: np.ndarray, groups: np.ndarray, sums: np.ndarray) -> np.ndarray:
    positive, negative = (labels == 1).astype(np.float64), (labels == 0).astype(np.float64)
    n_labels = labels.shape[1]
    p, n = (np.stack([np.bincount(groups, column) for column in marks.T], axis=1) for marks in (positive, negative))

    def mean(first: np.ndarray, second: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (first * second).sum(axis=0) / (a.sum(axis=0) * b.sum(axis=0) - (a * b).sum(axis=0))

    return np.stack(
        [
            mean(positive, sums[:, :n_labels], p, p),
            mean(negative, sums[:, n_labels:], n, n),
            mean(positive, sums[:, n_labels:], p, n),
        ],
        axis=1,
    )


CONTENDERS = {
    "medvlm-probe, all": ours,
    "scikit-learn, distances": distances_with_scikit_learn,
    "scikit-learn, all": all_with_scikit_learn,
    "float64 reference": in_float64,
}


def _measure(name: str, n: int, d: int) -> dict[str, Any]:
    """Run one contender here, and say what it took; the imports and inputs do not count."""
    data = inputs(n, d)
    CONTENDERS[name](*(part[:64] for part in data[:2]), data[2][:64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    numbers = CONTENDERS[name](*data)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "numbers": numbers.tolist(),
    }


def run(quick: bool = False) -> list[Contender]:
    """Return a row for each contender, ours first."""
    n, d = size(quick)
    results = {}
    for name in CONTENDERS:
        command = [sys.executable, "-m", "benchmarks.class_distances", "--contender", name, "--size", str(n), str(d)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=FIGURES.parents[1])
        results[name] = json.loads(done.stdout)
    numbers = {name: np.array(result["numbers"]) for name, result in results.items()}
    reference = numbers["float64 reference"]
    np.testing.assert_allclose(numbers["medvlm-probe, all"], numbers["scikit-learn, all"], rtol=1e-4)
    return [
        Contender(
            name,
            result["seconds"],
            result["cpu_seconds"],
            result["peak_mib"],
            float(np.abs(numbers[name][:, :3] / reference - 1).max()),
        )
        for name, result in results.items()
    ]


def rows(quick: bool) -> list[Row]:
    """Return the row of all measures against scikit-learn's; ours has intervals besides."""
    mine, _, theirs, _ = run(quick)
    n, d = size(quick)
    return [
        Row(
            "class distances, purity, silhouette",
            f"{n:,} x {d}, {len(PREVALENCES)} labels",
            mine.seconds,
            "scikit-learn, without intervals",
            theirs.seconds,
            agreement=f"{mine.largest_error:.0e} of float64",
            floor_seconds=n * n * d / product_rate(),
            floor="half the distances as products",
        )
    ]


def size(quick: bool) -> tuple[int, int]:
    """Return how many embeddings of how many dimensions."""
    return (4_000, 128) if quick else (20_000, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="4,000 x 128 instead of 20,000 x 512")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--size", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(_measure(arguments.contender, *arguments.size)))
        return
    contenders = run(arguments.quick)
    n, d = size(arguments.quick)
    rate = product_rate()
    floor = n * n * d / rate
    print(f"{n:,} x {d}, 14 labels; products at {rate / 1e9:.0f} GFLOP/s; floor of half the distances: {floor:.2f} s")
    print(f"{'':26}{'seconds':>9}{'cpu s':>9}{'peak MiB':>10}{'error':>10}")
    for row in contenders:
        print(f"{row.name:26}{row.seconds:9.2f}{row.cpu_seconds:9.2f}{row.peak_mib:10.0f}{row.largest_error:10.1e}")
    mine = contenders[0]
    for theirs in contenders[1:3]:
        print(
            f"against {theirs.name}: {theirs.seconds / mine.seconds:.1f} times faster "
            f"({theirs.cpu_seconds / mine.cpu_seconds:.1f} in processor time), "
            f"{mine.peak_mib / theirs.peak_mib:.3f} of the memory"
        )
    FIGURES.mkdir(parents=True, exist_ok=True)
    report = {
        "n": n,
        "d": d,
        "products_per_second": rate,
        "floor_seconds": floor,
        "rows": [asdict(row) for row in contenders],
    }
    name = "class_distances_quick.json" if arguments.quick else "class_distances.json"
    (FIGURES / name).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
