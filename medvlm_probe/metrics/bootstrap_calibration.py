"""Calibration metrics on every bootstrap replicate at once, from group weights, for differences between models.

The same weights for two models pair their replicates. Plain calibration errors of a replicate are biased upwards twice
over, so their spread about their own mean is what counts, not where they lie; for one model's interval use
`calibration_estimates`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_bins import Binning, bin_edges, bins_of
from medvlm_probe.metrics.calibration_forms import KERNEL_POINTS, evenly_spaced
from medvlm_probe.metrics.calibration_kernel import kde_bandwidth, kernel_weights
from medvlm_probe.metrics.calibration_problem import Problem, problem_of
from medvlm_probe.metrics.calibration_scores import brier_terms, log_terms
from medvlm_probe.types import FloatArray, IntArray

BINNINGS: tuple[Binning, ...] = ("width", "mass")


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
    c, correct = problem.outcomes.confidence, problem.outcomes.correct
    several = len(c) > 1
    at = evenly_spaced(c, KERNEL_POINTS) if several else np.zeros(0, dtype=np.int64)
    kernel = kernel_weights(c, at, kde_bandwidth(c)).T if several else np.zeros((len(c), 0))
    hot = {binning: _bins(problem, binning) for binning in BINNINGS}
    columns = {
        "images": np.ones((len(c), 1)),
        "terms": np.stack(list(terms.values()), axis=1),
        "width": hot["width"] * (correct - c)[:, None],
        "counts": hot["width"],
        "mass": hot["mass"] * (correct - c)[:, None],
        "kernel": kernel,
        "true": kernel * correct[:, None],
    }
    sums = _weighted_sums(columns, problem.owners, drawn)
    total = sums["images"][:, 0]
    found = {name: _ratio(sums["terms"][:, k], total) for k, name in enumerate(terms)}
    found["ece"] = _ratio(np.abs(sums["width"]).sum(axis=1), total)
    found["ace"] = _ratio(np.abs(sums["mass"]).sum(axis=1), total)
    counts = sums["counts"]
    gaps = np.where(counts > 0, _ratio(np.abs(sums["width"]), counts), 0)
    found["mce"] = np.where(total > 0, gaps.max(axis=1), np.nan)
    found["ece_kde"] = np.full(len(drawn), np.nan)
    if several:
        of_points = np.where(sums["kernel"] > 0, drawn[:, problem.owners[at]], 0.0)
        gaps = np.where(of_points > 0, np.abs(_ratio(sums["true"], sums["kernel"]) - c[at]), 0.0)
        found["ece_kde"] = _ratio((gaps * of_points).sum(axis=1), of_points.sum(axis=1))
    return found


def _bins(problem: Problem, binning: Binning) -> NDArray[np.float64]:
    """Return which bin each image is in, one-hot, (n, bins)."""
    edges = bin_edges(problem.outcomes.confidence, problem.n_bins, binning)
    return np.asarray(np.eye(len(edges) + 1)[bins_of(problem.outcomes.confidence, edges)])


def _weighted_sums(
    columns: Mapping[str, FloatArray], owners: IntArray, weights: FloatArray
) -> dict[str, NDArray[np.float64]]:
    """Return the sums over images of (n, m) columns under group weights (B, G), (B, m) each: one product for all."""
    n_groups = weights.shape[1]
    member = sparse.csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))), shape=(n_groups, len(owners)))
    sums = weights @ (member @ np.concatenate(list(columns.values()), axis=1))
    ends = np.cumsum([part.shape[1] for part in columns.values()])
    return dict(zip(columns, np.split(sums, ends[:-1], axis=1), strict=True))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> NDArray[np.float64]:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)
