"""Simulated answers of known calibration: confidences, true chances, labels correlated within groups, and truths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special, stats

from medvlm_probe.metrics.calibration_bins import bin_edges, bins_of
from medvlm_probe.metrics.calibration_estimates import interval_estimates
from medvlm_probe.metrics.calibration_kernel import gridded_coefficients, smooth
from medvlm_probe.metrics.calibration_problem import problem_of
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

LARGE = 400_000


def _scaled(factor: float) -> Callable[[FloatArray], FloatArray]:
    """True chances of a model whose logits are too large (factor below 1) or too small."""
    return lambda c: special.expit(factor * special.logit(np.clip(c, 1e-12, 1 - 1e-12)))


CHANCES: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "calibrated": lambda c: c,
    "over-confident": _scaled(0.5),
    "under-confident": _scaled(1.6),
    "too high by .05": lambda c: np.clip(c - 0.05, 0, 1),
    "wrong above .8": lambda c: np.where(c > 0.8, c - 0.15, c),
}
"""The true chance of each confidence."""

CONFIDENCES: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "top label": lambda z: 0.5 + 0.5 * special.expit(1.5 * z + 1),
    "probability": lambda z: special.expit(1.5 * z - 1),
    "rare label": lambda z: special.expit(1.2 * z - 3.5),
    "sure": lambda z: 0.5 + 0.5 * special.expit(2 * z + 4),
}
"""The confidences of standard normal z."""

LAYOUTS = [(n, correlation) for n in (50, 200, 2000) for correlation in (0.0, 0.5)]
"""Numbers of answers, and their correlation within groups."""


@dataclass(frozen=True)
class Answers:
    """A cohort's layout: n answers in groups, confidences and labels correlated within groups."""

    confidences: str
    chances: str
    n: int
    correlation: float
    group_size: int = 0

    @property
    def groups(self) -> IntArray:
        """Groups of 2, 1, 3, 2, 1, 3, ... images, or all of `group_size`."""
        sizes = [self.group_size] if self.group_size else [2, 1, 3]
        return np.repeat(np.arange(self.n), np.resize(sizes, self.n))[: self.n]

    def draw(self, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
        """Return confidences and outcomes, (n,) each."""
        confidence = CONFIDENCES[self.confidences](self._normals(rng))
        return confidence, stats.norm.cdf(self._normals(rng)) < CHANCES[self.chances](confidence)

    def _normals(self, rng: np.random.Generator) -> FloatArray:
        shared = rng.standard_normal(int(self.groups.max()) + 1)[self.groups]
        return np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * rng.standard_normal(self.n)


@cache
def truths(confidences: str, chances: str) -> dict[str, float]:
    """Return what the metrics of endlessly many such answers are."""
    c = CONFIDENCES[confidences](np.random.default_rng(1).standard_normal(LARGE))
    q = CHANCES[chances](c)
    gap = q - c

    def by_bin(binning: str) -> tuple[FloatArray, FloatArray]:
        bins = bins_of(c, bin_edges(c, 10, binning))  # type: ignore[arg-type]
        return np.bincount(bins, weights=gap, minlength=10), np.bincount(bins, minlength=10)

    width, counts = by_bin("width")
    answer = np.maximum(c, 1 - c)
    wrong = np.where(c >= 0.5, 1 - q, q)
    order = np.argsort(-answer)
    clip = np.clip(c, 1e-12, 1 - 1e-12)
    return {
        "ece": np.abs(width).sum() / LARGE,
        "ace": np.abs(by_bin("mass")[0]).sum() / LARGE,
        "mce": (np.abs(width) / np.maximum(counts, 1))[counts > LARGE / 1000].max(),
        "ece_kde": np.abs(gap).mean(),
        "smooth_ece": float(smooth(gridded_coefficients(c, gap), steps=30)[0]),
        "brier": np.mean(q * (1 - c) ** 2 + (1 - q) * c**2),
        "nll": -np.mean(q * np.log(clip) + (1 - q) * np.log(1 - clip)),
        "calibration_in_the_large": -gap.mean(),
        "overconfidence": np.mean(answer - 1 + wrong),
        "sure_errors": wrong[answer > 0.9].sum() / wrong.sum(),
        "risk_coverage": np.mean(np.cumsum(wrong[order]) / np.arange(1, LARGE + 1)),
    }


def estimates(
    design: Answers, metrics: tuple[str, ...], n_simulations: int, rng: np.random.Generator
) -> dict[str, list[Estimate]]:
    """Return each metric's estimates on so many draws of the design."""
    found: dict[str, list[Estimate]] = {name: [] for name in metrics}
    for _ in range(n_simulations):
        confidence, outcome = design.draw(rng)
        problem = problem_of(confidence, outcome.astype(float), design.groups, metrics=metrics)
        for name, estimate in interval_estimates(problem, rng).items():
            found[name].append(estimate)
    return found


def covered(found: list[Estimate], truth: float) -> BoolArray:
    """Return whether each interval holds the truth."""
    return np.array([e.low <= truth <= e.high for e in found])
