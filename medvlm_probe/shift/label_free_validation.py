"""Label-free estimates beside the truth, on a site whose labels are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_debiased import debiased_calibration_error
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.intervals import paired_mean
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.label_free import METHODS, estimate_label_free
from medvlm_probe.types import Estimate, IntArray


@dataclass(frozen=True)
class LabelFreeCheck:
    """One estimate without labels beside what the labels say.

    Attributes:
        method: of `label_free.METHODS`.
        metric: of `label_free.METRICS`.
        estimate: without the site's labels.
        truth: with them, on the same images; of `calibration_error` without an interval.
        holds: whether the estimate's interval holds the truth's value; None where either is undefined.
    """

    method: str
    metric: str
    estimate: Estimate
    truth: Estimate
    holds: bool | None

    @property
    def difference(self) -> float:
        """The estimate's value less the truth's."""
        return self.estimate.value - self.truth.value


def validate_label_free(
    labels: ArrayLike,
    reference_probabilities: ArrayLike,
    site_labels: ArrayLike,
    site_probabilities: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    threshold: float,
    rng: np.random.Generator,
    methods: tuple[str, ...] = tuple(METHODS),
) -> tuple[LabelFreeCheck, ...]:
    """Return each method's estimates beside the truth on the site's images whose label is known.

    The estimates never see `site_labels`, but for which of them are known.

    Args:
        labels, reference_probabilities, site_probabilities, reference_groups, site_groups, threshold, rng, methods: as
            `estimate_label_free` takes them.
        site_labels: 1, 0 or NaN (image left out), (m,).

    Raises:
        InputError: as `estimate_label_free`, or a site without known labels.
    """
    y, q = np.asarray(site_labels, dtype=np.float64), np.asarray(site_probabilities, dtype=np.float64)
    if y.shape != q.shape[:1] or np.isnan(y).all():
        raise InputError(
            f"Site labels of shape {y.shape} for {len(q):,} images: expected one each, some of them known."
        )
    codes = checked_groups(site_groups, len(y))
    known = ~np.isnan(y)
    y, q, codes = y[known], q[known], codes[known]
    found = estimate_label_free(
        labels, reference_probabilities, q, reference_groups, codes, threshold=threshold, rng=rng, methods=methods
    )
    truth = true_performance(y, q, codes, threshold=threshold)
    return tuple(
        LabelFreeCheck(method, metric, estimate, truth[metric], _holds(estimate, truth[metric]))
        for method, estimates in found.items()
        for metric, estimate in estimates.items()
    )


def true_performance(
    labels: ArrayLike, probabilities: ArrayLike, groups: IntArray, *, threshold: float
) -> dict[str, Estimate]:
    """Return the metrics of `label_free.METRICS` from known labels.

    Args:
        labels: 1 or 0, (m,).
        probabilities: P(present), (m,).
        groups: (m,).
        threshold: the least probability that is called.
    """
    y, p, codes = np.asarray(labels) == 1, np.asarray(probabilities, dtype=np.float64), np.asarray(groups)
    called = p >= threshold
    n_groups = len(np.unique(codes))
    error = debiased_calibration_error(p, y.astype(np.float64))
    return {
        "accuracy": proportion(y == called, codes),
        "recall": proportion(called[y], codes[y]),
        "precision": proportion(y[called], codes[called]),
        "specificity": proportion(~called[~y], codes[~y]),
        "overconfidence": paired_mean(np.where(called, p, 1 - p) - (y == called), codes),
        "calibration_error": Estimate(error, math.nan, math.nan, len(y), n_groups, "debiased, no interval", False),
    }


def _holds(estimate: Estimate, truth: Estimate) -> bool | None:
    if not all(math.isfinite(x) for x in (estimate.low, estimate.high, truth.value)):
        return None
    return estimate.low <= truth.value <= estimate.high
