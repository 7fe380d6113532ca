"""Simulated cohorts with known distances, and how often the intervals of class_distances cover them.

    python tests/statistics/separability_simulation.py [SIMULATIONS]

prints the table of coverages.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy import special

from medvlm_probe.metrics.separability import ClassDistances, class_distances
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

QUANTITIES = (
    "intra_positive",
    "intra_negative",
    "inter",
    "ratio",
    "energy_distance",
    "between_centroids",
    "neighbour_purity",
    "silhouette",
)


@dataclass(frozen=True)
class Design:
    """A cohort of `positives` and `negatives` in `dimensions`, `shift` apart, positives `scale` as wide.

    At `correlation` 0 each image is its own group; else groups hold one to three images, correlated, whose labels vary.
    """

    positives: int
    negatives: int
    correlation: float
    shift: float = 1.5
    scale: float = 1.2
    dimensions: int = 16

    def __str__(self) -> str:
        return f"{self.positives}+{self.negatives}, icc {self.correlation}, shift {self.shift}, d {self.dimensions}"

    def draw(self, rng: np.random.Generator) -> tuple[FloatArray, IntArray, IntArray]:
        """Return embeddings (n, d), labels (n,) and groups (n,)."""
        n = self.positives + self.negatives
        sizes = rng.integers(1, 4, n) if self.correlation else np.ones(n, dtype=np.int64)
        groups = np.repeat(np.arange(n), sizes)[:n]
        liability = math.sqrt(0.6) * rng.standard_normal(n)[groups] + math.sqrt(0.4) * rng.standard_normal(n)
        labels = (np.argsort(np.argsort(-liability)) < self.positives).astype(np.int64)
        shared = math.sqrt(self.correlation) * rng.standard_normal((n, self.dimensions))[groups]
        x = shared + math.sqrt(1 - self.correlation) * rng.standard_normal((n, self.dimensions))
        x *= np.where(labels == 1, self.scale, 1.0)[:, None]
        x[:, 0] += self.shift * labels
        return x, labels, groups

    def truth(self) -> dict[str, float]:
        """Return the distances in closed form; the other quantities have none."""
        d = self.dimensions

        def mean_distance(variance: float, shift: float) -> float:
            """E |N(shift, variance I)|, the mean of a noncentral chi variable."""
            scale = math.sqrt(2 * variance) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
            return scale * float(special.hyp1f1(-0.5, d / 2, -(shift**2) / (2 * variance)))

        p, n = mean_distance(2 * self.scale**2, 0), mean_distance(2, 0)
        between = mean_distance(1 + self.scale**2, self.shift)
        return {
            "intra_positive": p,
            "intra_negative": n,
            "inter": between,
            "ratio": 2 * between / (p + n),
            "energy_distance": 2 * between - p - n,
            "between_centroids": self.shift,
        }


@dataclass(frozen=True)
class Coverage:
    """For each quantity: how often the interval covered the truth, and how often it called itself reliable, (S, Q)."""

    covered: BoolArray
    reliable: BoolArray


def estimates(entry: ClassDistances) -> tuple[Estimate, ...]:
    return (
        entry.intra_positive,
        entry.intra_negative,
        entry.inter,
        entry.ratio,
        entry.energy_distance_estimate,
        entry.centroids.between,
        entry.neighbour_purity,
        entry.silhouette,
    )


def simulate(design: Design, n_simulations: int, seed: int = 0) -> Coverage:
    """Return coverages; where there is no closed form, the truth is the mean over the simulations."""
    rng = np.random.default_rng(seed)
    found = np.empty((n_simulations, len(QUANTITIES), 3))
    reliable = np.empty((n_simulations, len(QUANTITIES)), dtype=bool)
    for k in range(n_simulations):
        x, labels, groups = design.draw(rng)
        for q, e in enumerate(estimates(class_distances(x, labels, groups, space="raw")[0])):
            found[k, q] = e.value, e.low, e.high
            reliable[k, q] = e.reliable
    known = design.truth()
    truth = np.array([known.get(name, np.nanmean(found[:, q, 0])) for q, name in enumerate(QUANTITIES)])
    return Coverage((found[:, :, 1] <= truth) & (truth <= found[:, :, 2]), reliable)


SHAPES = ((3, 150), (10, 150), (50, 200), (200, 300))
DESIGNS = [
    Design(positives, negatives, correlation, shift, scale)
    for shift, scale in ((1.5, 1.2), (0.0, 1.0))
    for positives, negatives in SHAPES
    for correlation in (0.0, 0.5)
]
FLAT = [
    Design(positives, negatives, 0.5, shift, 1.0, dimensions)
    for dimensions in (1, 2, 4)
    for shift in (0.0, 0.4, 0.8)
    for positives, negatives in SHAPES[1:]
]


def main(n_simulations: int) -> None:
    """Print coverage over all simulations, and in brackets the share of intervals that call themselves reliable."""
    print(f"{'design':40}" + "".join(f"{name:>20}" for name in QUANTITIES))
    for design in DESIGNS + FLAT:
        result = simulate(design, n_simulations)
        cells = zip(result.covered.mean(axis=0), result.reliable.mean(axis=0), strict=True)
        print(f"{design!s:40}" + "".join(f"{f'{c:.3f} ({r:.2f})':>20}" for c, r in cells), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
