"""Calibration metrics on every bootstrap replicate at once, from group weights, for differences between models.

The same weights for two models pair their replicates. Plain calibration errors of a replicate are biased upwards twice
over, so their spread about their own mean is what counts, not where they lie; for one model's interval use
`calibration_estimates`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_bins import Binning, bin_edges, bins_of
from medvlm_probe.metrics.calibration_forms import KERNEL_POINTS, evenly_spaced
from medvlm_probe.metrics.calibration_kernel import kde_bandwidth, kernel_weights
from medvlm_probe.metrics.calibration_problem import Problem, problem_of
from medvlm_probe.metrics.calibration_scores import brier_terms, log_terms
from medvlm_probe.types import FloatArray, IntArray


def calibration_replicates(
    probabilities: ArrayLike, labels: ArrayLike, groups: IntArray, weights: FloatArray, *, n_bins: int = 10
) -> Mapping[str, NDArray[np.float64]]:
    """Return accuracy, calibration errors, Brier, NLL and confidence against truth under each set of weights.

    Edges of ACE and the bandwidth of KDE-ECE, at `KERNEL_POINTS` images, are those of the whole sample.

    Args:
        probabilities: (n,) P(y = 1), or (n, K).
        labels: 1, 0 or NaN (left out), or classes, (n,).
        groups: (n,).
        weights: how often each group is drawn, (B, G), in the order of `np.unique(groups)`, as
            `bootstrap_performance.replicate_weights` draws them.
        n_bins: of ECE, ACE and MCE.

    Returns:
        `accuracy`, `ece`, `ace`, `mce`, `ece_kde`, `brier`, `nll`, `overconfidence`, and of P(y = 1) also
        `calibration_in_the_large`, (B,) each; NaN where a replicate is empty.

    Raises:
        InputError: what is given does not fit; logits.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    drawn = np.asarray(weights, dtype=np.float64)
    if drawn.ndim != 2 or drawn.shape[1] != int(codes.max(initial=-1)) + 1:
        raise InputError(
            f"Weights of shape {drawn.shape} for {int(codes.max(initial=-1)) + 1} groups: expected (B, G)."
        )
    problem = problem_of(probabilities, labels, codes, n_bins=n_bins)
    terms = {
        "accuracy": problem.right,
        "brier": brier_terms(problem.probabilities, problem.labels),
        "nll": log_terms(problem.probabilities, problem.labels),
        "overconfidence": problem.answer_confidence - problem.right,
    }
    if problem.binary:
        terms["calibration_in_the_large"] = problem.probabilities - problem.labels
    total = drawn @ _by_group(np.ones((len(problem.owners), 1)), problem, drawn.shape[1])
    sums = drawn @ _by_group(np.stack(list(terms.values()), axis=1), problem, drawn.shape[1])
    found = {name: _ratio(sums[:, k], total[:, 0]) for k, name in enumerate(terms)}
    widths, counts = _bin_sums(problem, "width", drawn)
    found["ece"] = _ratio(np.abs(widths).sum(axis=1), total[:, 0])
    found["ace"] = _ratio(np.abs(_bin_sums(problem, "mass", drawn)[0]).sum(axis=1), total[:, 0])
    found["mce"] = np.where(
        total[:, 0] > 0, np.where(counts > 0, _ratio(np.abs(widths), counts), 0).max(axis=1), np.nan
    )
    found["ece_kde"] = _kernel_error(problem, drawn)
    return found


def _kernel_error(problem: Problem, weights: FloatArray) -> NDArray[np.float64]:
    c, n_groups = problem.outcomes.confidence, weights.shape[1]
    if len(c) < 2:
        return np.full(len(weights), np.nan)
    at = evenly_spaced(c, KERNEL_POINTS)
    kernel = kernel_weights(c, at, kde_bandwidth(c)).T
    mass = weights @ _by_group(kernel, problem, n_groups)
    true = weights @ _by_group(kernel * problem.outcomes.correct[:, None], problem, n_groups)
    of_points = np.where(mass > 0, weights[:, problem.owners[at]], 0.0)
    gaps = np.abs(_ratio(true, mass) - c[at])
    return _ratio((np.where(of_points > 0, gaps, 0.0) * of_points).sum(axis=1), of_points.sum(axis=1))


def _bin_sums(
    problem: Problem, binning: Binning, weights: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weighted sums of residuals and the weighted numbers of images by bin, (B, bins) each."""
    c = problem.outcomes.confidence
    edges = bin_edges(c, problem.n_bins, binning)
    hot = np.eye(len(edges) + 1)[bins_of(c, edges)]
    residual = hot * (problem.outcomes.correct - c)[:, None]
    n_groups = weights.shape[1]
    return weights @ _by_group(residual, problem, n_groups), weights @ _by_group(hot, problem, n_groups)


def _by_group(values: FloatArray, problem: Problem, n_groups: int) -> NDArray[np.float64]:
    """Return the sums of (n, m) values by group, (G, m)."""
    return np.stack([np.bincount(problem.owners, weights=column, minlength=n_groups) for column in values.T], axis=1)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> NDArray[np.float64]:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)
