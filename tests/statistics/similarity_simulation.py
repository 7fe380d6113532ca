"""Simulated cohorts, and how often the intervals of overlap, modality gap, clusters and separability rows cover.

    python tests/statistics/similarity_simulation.py [SIMULATIONS]

prints the coverages.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy import stats
from separability_simulation import Design

from medvlm_probe.metrics.clustering import adjusted_rand_index, cluster_agreements
from medvlm_probe.metrics.modality_gap import modality_gap
from medvlm_probe.metrics.overlap import overlaps
from medvlm_probe.metrics.separation_scores import QUANTITIES, separability_row
from medvlm_probe.types import Estimate

DESIGNS = [
    Design(positives, negatives, correlation, shift, 1.0, 8)
    for shift in (0.0, 0.5, 1.5)
    for positives, negatives in ((10, 150), (50, 200), (200, 300))
    for correlation in (0.0, 0.5)
]
NAMES = ("overlap", "gap", "adjusted_rand")


@dataclass(frozen=True)
class Coverage:
    """Of the intervals that call themselves reliable: how many there were, and how many hold the truth."""

    n_claimed: int
    n_covered: int

    def __str__(self) -> str:
        return f"{self.n_covered / self.n_claimed:.3f} of {self.n_claimed}" if self.n_claimed else "none claimed"


def _coverage(found: list[Estimate], truth: float) -> Coverage:
    claimed = [e for e in found if e.reliable]
    return Coverage(len(claimed), sum(e.low <= truth <= e.high for e in claimed))


def _rand_truth(design: Design) -> float:
    """The adjusted Rand index of halves of the first axis with the label, on a million images."""
    n = 10**6
    positive = np.arange(n) < n * design.positives / (design.positives + design.negatives)
    first = np.random.default_rng(99).standard_normal(n) + design.shift * positive
    return float(adjusted_rand_index(np.histogram2d(first > 0.5, positive, bins=2)[0]))


def simulate(design: Design, n_simulations: int) -> dict[str, Coverage]:
    """Return the coverages of overlap of the first coordinate, of the gap to a fixed text, and of two fixed halves.

    Coordinates have unit variance and the positives' first one is shifted, so the overlap is 2 Phi(-shift / 2).
    """
    rng = np.random.default_rng(7)
    text = np.zeros((1, design.dimensions))
    text[0, 1] = 1.0
    found: dict[str, list[Estimate]] = {name: [] for name in NAMES}
    for _ in range(n_simulations):
        x, labels, groups = design.draw(rng)
        found["overlap"].append(overlaps(x[:, :1], labels[:, None], groups, n_permutations=199, rng=rng)[0].estimate)
        found["gap"].append(modality_gap(x + 2 * np.eye(design.dimensions)[2], text, groups))
        halves = (x[:, 0] > 0.5).astype(np.int64)
        [agreement] = cluster_agreements(halves, labels[:, None], groups, n_permutations=199, rng=rng)
        found["adjusted_rand"].append(agreement.adjusted_rand)
    truth = {
        "overlap": 2 * float(stats.norm.cdf(-design.shift / 2)),
        "gap": float(np.mean([e.value for e in found["gap"]])),
        "adjusted_rand": _rand_truth(design),
    }
    return {name: _coverage(found[name], truth[name]) for name in NAMES}


def simulate_rows(design: Design, n_simulations: int) -> dict[str, Coverage]:
    """Return the coverages of a separability row; Davies-Bouldin has a closed form, the truth else is the mean."""
    rng = np.random.default_rng(8)
    found: dict[str, list[Estimate]] = {name: [] for name in QUANTITIES}
    for _ in range(n_simulations):
        x, labels, groups = design.draw(rng)
        for name, estimate in separability_row(x, labels, groups, space="raw", rng=rng).items():
            found[name].append(estimate)
    means = {name: float(np.mean([e.value for e in found[name]])) for name in QUANTITIES}
    means["davies_bouldin"] = 2 * math.sqrt(design.dimensions) / design.shift if design.shift else math.inf
    return {name: _coverage(found[name], means[name]) for name in QUANTITIES if not math.isnan(means[name])}


def main(n_simulations: int) -> None:
    """Print the coverage of intervals that call themselves reliable, and how many do."""
    for design in DESIGNS:
        for found in (simulate(design, n_simulations), simulate_rows(design, n_simulations)):
            print(design, {name: str(coverage) for name, coverage in found.items()}, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
