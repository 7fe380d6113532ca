"""One-sided bounds at a stated confidence: exact where the interval can be computed anew, else rescaled."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from medvlm_probe.audit.inputs import AuditInputs, people
from medvlm_probe.metrics.classification import (
    AVERAGE_PRECISION_MIN_GROUPS,
    RANK_METRICS,
    checked_groups,
    jackknifed_rank_metric,
)
from medvlm_probe.metrics.intervals import score_interval
from medvlm_probe.metrics.proportions import f1, proportion
from medvlm_probe.types import Estimate

UNDEFINED = Estimate(math.nan, math.nan, math.nan, 0, 0, "undefined", reliable=False)


def rescaled(estimate: Estimate, confidence: float) -> Estimate:
    """Return an estimate whose bounds are one-sided at a confidence, from its two-sided 95 % interval.

    Each half of the interval is rescaled by the ratio of normal quantiles: exact for intervals that are normal on
    either side, and within a few per cent of the half-width for those of this package at 90 to 99 %.

    Args:
        estimate: with its two-sided 95 % interval.
        confidence: of each bound, in (.5, 1).
    """
    ratio = float(special.ndtri(confidence) / special.ndtri(0.975))
    low = estimate.value - ratio * (estimate.value - estimate.low)
    high = estimate.value + ratio * (estimate.high - estimate.value)
    return Estimate(estimate.value, low, high, estimate.n, estimate.n_groups, estimate.method, estimate.reliable)


def performance_bounds(inputs: AuditInputs, label: str, metric: str, confidence: float) -> tuple[Estimate, int]:
    """Return a label's metric at the site with its one-sided bounds, and how many people carry it.

    Those are the people with the finding for recall and F1, without it for specificity, called for precision, and the
    fewer of both for AUROC and average precision. The estimate is undefined where thresholds or labels are lacking.

    Args:
        inputs: of the audit.
        label: one of those audited.
        metric: of `metrics.classification.METRICS`.
        confidence: of each bound, in (.5, 1).
    """
    side, k, level = inputs.site, inputs.column(label), 2 * confidence - 1
    y = side.targets[:, k]
    known = ~np.isnan(y)
    present, groups = y[known] == 1, side.groups[known]
    if side.scores is None or not present.any():
        return UNDEFINED, people(groups[present])
    if metric in RANK_METRICS:
        return _rank_bounds(y, side.scores.values[:, k], side.groups, metric, level)
    if inputs.deployed is None or label not in inputs.deployed.thresholds.values:
        return UNDEFINED, people(groups[present])
    called = inputs.deployed.called(side.scores)[known, k]
    if metric == "f1":
        return f1(present, called, groups, level=level), people(groups[present])
    carriers, successes = {
        "recall": (present, called),
        "specificity": (~present, ~called),
        "precision": (called, present),
    }[metric]
    return proportion(successes[carriers], groups[carriers], level=level), people(groups[carriers])


def _rank_bounds(
    y: np.ndarray[tuple[int], np.dtype[np.float64]],
    scores: np.ndarray[tuple[int], np.dtype[np.floating]],
    groups: np.ndarray[tuple[int], np.dtype[np.int64]],
    metric: str,
    level: float,
) -> tuple[Estimate, int]:
    n_people = min(people(groups[y == kind]) for kind in (1, 0))
    found = jackknifed_rank_metric(y, scores, checked_groups(groups, len(groups)), metric)
    if found is None:
        return UNDEFINED, n_people
    estimate = score_interval(
        found.value,
        found.without,
        found.working,
        n=found.n,
        n_scarce=found.n_scarce,
        min_groups=AVERAGE_PRECISION_MIN_GROUPS if metric == "average_precision" else 2,
        level=level,
    )
    return estimate, n_people
