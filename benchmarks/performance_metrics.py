"""Ranking metrics and group bootstraps of every metric by label, against scikit-learn.

    python -m benchmarks.performance_metrics [--quick]

(a) LRAP, coverage error and ranking loss together at 100,000 x 14, against scikit-learn's three functions.
(b) 1,000 bootstraps over patients of recall, precision, F1, specificity, AUROC and average precision of 14 labels at
7,500 images, against a loop over scikit-learn's functions on resampled rows; the loop is timed on a few replicates of
the same draws and extrapolated, and so marked.
Both in one process, in turn, medians; with the largest difference between the outputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import metrics as reference

from benchmarks.machine import memory_rate
from benchmarks.table import Row
from medvlm_probe.metrics.bootstrap_performance import performance_replicates, replicate_weights
from medvlm_probe.metrics.ranking import ranking_rows

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
PREVALENCES = (0.629, 0.135, 0.109, 0.057, 0.043, 0.043, 0.034, 0.033, 0.018, 0.018, 0.015, 0.013, 0.008, 0.005)
REPEATS = 3


def inputs(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels at IU-Xray's prevalences, scores with some ties, and patients of one to three images."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, len(PREVALENCES))) < PREVALENCES).astype(float)
    scores = (rng.normal(size=labels.shape) + labels).round(4)
    return labels, scores, np.repeat(np.arange(n), rng.integers(1, 4, size=n))[:n]


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = task()
    return time.perf_counter() - started, result


def ranking(n: int) -> dict[str, Any]:
    """Return part (a)."""
    labels, scores, _ = inputs(n)
    labels[:, 0] = np.where(labels.any(axis=1), labels[:, 0], 1.0)  # so that every metric is defined on every row

    def ours() -> tuple[float, ...]:
        rows = ranking_rows(labels, scores)
        return tuple(float(np.mean(v)) for v in (rows.average_precision, rows.coverage, rows.loss))

    def theirs() -> tuple[float, ...]:
        return (
            reference.label_ranking_average_precision_score(labels, scores),
            reference.coverage_error(labels, scores),
            reference.label_ranking_loss(labels, scores),
        )

    seconds: dict[str, list[float]] = {"medvlm-probe": [], "scikit-learn": []}
    found: dict[str, Any] = {}
    for _ in range(REPEATS):
        for name, task in (("medvlm-probe", ours), ("scikit-learn", theirs)):
            elapsed, found[name] = timed(task)
            seconds[name].append(elapsed)
    return _row(seconds, n=n, difference=float(np.abs(np.subtract(*found.values())).max()))


def bootstrap(n: int, n_resamples: int, n_timed: int) -> dict[str, Any]:
    """Return part (b)."""
    labels, scores, groups = inputs(n)
    weights = replicate_weights(groups, n_resamples, np.random.default_rng(1))
    codes = np.unique(groups, return_inverse=True)[1]
    thresholds = np.ones(labels.shape[1])

    def loop() -> np.ndarray:
        found = np.full((n_timed, 6, labels.shape[1]), np.nan)
        for b in range(n_timed):
            rows = np.repeat(np.arange(n), weights[b, codes].astype(int))
            for k in range(labels.shape[1]):
                y, s = labels[rows, k], scores[rows, k]
                p = s >= thresholds[k]
                found[b, :, k] = (
                    reference.recall_score(y, p, zero_division=np.nan),
                    reference.precision_score(y, p, zero_division=np.nan),
                    reference.f1_score(y, p, zero_division=np.nan),
                    reference.recall_score(y, p, pos_label=0, zero_division=np.nan),
                    reference.roc_auc_score(y, s),
                    reference.average_precision_score(y, s),
                )
        return found

    seconds: dict[str, list[float]] = {"medvlm-probe": [], "scikit-learn loop, extrapolated": []}
    for _ in range(REPEATS):
        elapsed, ours = timed(lambda: performance_replicates(labels, scores, groups, weights, thresholds=thresholds))
        seconds["medvlm-probe"].append(elapsed)
        elapsed, theirs = timed(loop)
        seconds["scikit-learn loop, extrapolated"].append(elapsed * n_resamples / n_timed)
    stacked = np.stack([ours.by_label[m][:n_timed] for m in ours.by_label], axis=1)
    return _row(
        seconds, n=n, resamples=n_resamples, timed=n_timed, difference=float(np.nanmax(np.abs(stacked - theirs)))
    )


def _row(seconds: dict[str, list[float]], **facts: Any) -> dict[str, Any]:
    ours, theirs = (statistics.median(times) for times in seconds.values())
    return {**facts, "seconds": seconds, "times_faster": theirs / ours}


def measure(quick: bool) -> dict[str, Any]:
    """Return both parts."""
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    return {
        "ranking_metrics": ranking(5_000 if quick else 100_000),
        "group_bootstrap": bootstrap(1_000 if quick else 7_500, 100 if quick else 1_000, 2 if quick else 20),
    }


def rows(quick: bool) -> list[Row]:
    """Return a row for each part. The floors are of memory: labels and scores read once; weights read once a label."""
    found, rate, n_labels = measure(quick), memory_rate(), len(PREVALENCES)
    ranked, drawn = found["ranking_metrics"], found["group_bootstrap"]
    (ours, theirs), (our_draws, their_draws) = (
        [statistics.median(times) for times in part["seconds"].values()] for part in (ranked, drawn)
    )
    return [
        Row(
            "LRAP, coverage error, ranking loss",
            f"{ranked['n']:,} x {n_labels}",
            ours,
            "scikit-learn",
            theirs,
            agreement=f"{ranked['difference']:.0e}",
            floor_seconds=2 * 8 * ranked["n"] * n_labels / rate,
            floor="reading the inputs once",
            bar=50,
        ),
        Row(
            "bootstrap over patients, 6 metrics",
            f"{drawn['n']:,} x {n_labels}, {drawn['resamples']:,} resamples",
            our_draws,
            "scikit-learn in a loop",
            their_draws,
            extrapolated=True,
            agreement=f"{drawn['difference']:.0e}",
            floor_seconds=8 * drawn["n"] * drawn["resamples"] * n_labels / rate,
            floor="reading each image's weights once a label",
            bar=30,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    quick = parser.parse_args().quick
    result = measure(quick)
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / ("performance_metrics_quick.json" if quick else "performance_metrics.json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    for task, row in result.items():
        for name, times in row["seconds"].items():
            print(f"{task:18} {name:34} {statistics.median(times):8.3f} s")
        print(f"{task:18} {row['times_faster']:.0f} times faster, largest difference {row['difference']:.1e}")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
