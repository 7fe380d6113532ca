"""Simulate how often the two-way bootstrap's interval of a paired difference covers the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medvlm_probe.metrics.bootstrap_calibration import calibration_replicates
from medvlm_probe.metrics.calibration import brier_score, expected_calibration_error
from medvlm_probe.metrics.calibration import negative_log_likelihood as log_score
from medvlm_probe.metrics.two_way_bootstrap import not_worse, two_way_difference, two_way_sample, two_way_weights

METRICS = ("accuracy", "ece", "brier", "nll")


@dataclass(frozen=True)
class Design:
    """Draws, patients with two images each, and how much of what draws change depends on the patient."""

    draws: int
    groups: int
    interaction: float = 0.3


@dataclass(frozen=True)
class World:
    """One model against another that is tuned: its draws differ in sharpness, bias and from patient to patient."""

    design: Design
    rng: np.random.Generator

    def problem(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return P(y = 1) of the fixed model (1, n) and of every draw (D, n), labels and groups (n,)."""
        d, g = self.design.draws, self.design.groups
        rng, owners = self.rng, np.repeat(np.arange(g), 2)
        logit = rng.normal(0, 1.2, g)[owners] + rng.normal(0, 1.0, 2 * g)
        labels = (rng.random(2 * g) < expit(logit)).astype(np.float64)
        fixed = expit(2.2 * logit + 0.3)[None]
        sharpness, shift = rng.normal(1.4, 0.3, (d, 1)), rng.normal(0.2, 0.4, (d, 1))
        own = self.design.interaction * rng.normal(size=(d, g))[:, owners]
        return fixed, expit(sharpness * logit + shift + own), labels, owners


def truths(interaction: float = 0.3, size: int = 20_000, draws: int = 1500) -> dict[str, float]:
    """Return the differences over very many draws, a hundred of them at a time on other patients."""
    found = []
    for chunk in range(max(1, draws // 100)):
        world = World(Design(min(draws, 100), size, interaction), np.random.default_rng([99, chunk]))
        fixed, tuned, labels, _ = world.problem()
        base = _plain(fixed[0], labels)
        found += [_plain(p, labels) - base for p in tuned]
    return dict(zip(METRICS, np.mean(found, axis=0).tolist(), strict=True))


def _plain(p: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    right = float(((p >= 0.5) == (labels == 1)).mean())
    return np.array([right, *(metric(p, labels) for metric in (expected_calibration_error, brier_score, log_score))])


def covered(design: Design, truth: dict[str, float], seed: int, n_resamples: int = 400) -> dict[str, dict[str, float]]:
    """Return, for each metric, whether the interval covers, its width, and whether equality is rejected."""
    rng = np.random.default_rng([seed, design.draws, design.groups])
    fixed, tuned, labels, owners = World(design, rng).problem()
    weights = two_way_weights(design.draws, design.groups, n_resamples, rng)
    rows = np.concatenate([np.ones((1, design.groups)), weights.groups])
    sides = [[calibration_replicates(p, labels, owners, rows) for p in side] for side in (tuned, fixed)]
    result = {}
    for metric in METRICS:
        ours, theirs = (
            two_way_sample(
                np.array([one[metric][0] for one in side]), np.stack([one[metric][1:] for one in side]), weights
            )
            for side in sides
        )
        sample = ours.less(theirs)
        found = two_way_difference(sample, len(labels))
        result[metric] = {
            "covers": float(found.estimate.low <= truth[metric] <= found.estimate.high),
            "width": found.estimate.high - found.estimate.low,
            "passes": float(not_worse(sample, -truth[metric]) == "pass"),
        }
    return result
