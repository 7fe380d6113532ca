"""How well each label is told apart: recall, precision, F1, specificity, AUROC, average precision, with intervals.

Labels are 1 (present), 0 (absent) or NaN (not known); unknown ones are left out, label by label. Scores are larger
where a label is more likely; a label is predicted where its score is at least its threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import (
    VarianceFunction,
    auroc_variance,
    binomial_variance,
    effective_size,
    score_interval,
)
from medvlm_probe.metrics.proportions import f1, proportion
from medvlm_probe.metrics.ranked_scores import (
    auroc_without_groups,
    average_precision_without_groups,
    ranked_scores,
)
from medvlm_probe.metrics.ranking import checked_ranking
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

THRESHOLD_METRICS = ("recall", "precision", "f1", "specificity")
RANK_METRICS = ("auroc", "average_precision")
METRICS = (*THRESHOLD_METRICS, *RANK_METRICS)

TOO_FEW = 10
"""Below so many positives a table says "too few"."""

AVERAGE_PRECISION_MIN_GROUPS = 5


@dataclass(frozen=True)
class LabelPerformance:
    """One label's estimates, each in [0, 1], larger better; NaN where undefined or where no threshold is chosen.

    `n_groups` counts the groups with a known label; `threshold` is NaN where none is chosen.
    """

    label: str
    n_positive: int
    n_negative: int
    n_unknown: int
    n_groups: int
    threshold: float
    recall: Estimate
    precision: Estimate
    f1: Estimate
    specificity: Estimate
    auroc: Estimate
    average_precision: Estimate

    @property
    def prevalence(self) -> float:
        """Positives among the known labels; NaN without any."""
        known = self.n_positive + self.n_negative
        return self.n_positive / known if known else math.nan

    @property
    def too_few(self) -> bool:
        """Whether there are under `TOO_FEW` positives."""
        return self.n_positive < TOO_FEW


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return P(a positive scores higher than a negative), ties counting half, in [0, 1], .5 by chance.

    Args:
        labels: 1, 0 or NaN (left out), (n,).
        scores: finite, (n,).

    Raises:
        InputError: shapes or values that do not fit.

    Source: Hanley and McNeil 1982; equal to scikit-learn's `roc_auc_score`, NaN where only one kind is there.
    """
    return _rank_values(labels, scores)[0]


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean precision at each positive, in (0, 1], the prevalence by chance; arguments as `auroc`.

    Equal to scikit-learn's `average_precision_score`, NaN without a positive.
    """
    return _rank_values(labels, scores)[1]


def label_performance(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: IntArray,
    *,
    label_names: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
) -> tuple[LabelPerformance, ...]:
    """Return every label's estimates.

    Intervals: proportions by `proportion` (F1 as Jaccard index), AUROC and average precision by `score_interval`, all
    with the design effect or the jackknife of the groups. Average precision is unreliable under 5 groups with a
    positive, AUROC under 2 groups of either kind.

    Args:
        labels: (n, L), see above.
        scores: finite, (n, L).
        groups: the independently sampled group of each image, (n,).
        label_names: L names.
        thresholds: label to the least score at which it is predicted; labels without one get no estimates that need it.

    Raises:
        InputError: shapes or values that do not fit.
    """
    y, s = checked_ranking(labels, scores)
    codes = checked_groups(groups, len(y))
    if len(label_names) != y.shape[1]:
        raise InputError(f"{len(label_names)} label names for {y.shape[1]} columns.")
    chosen = thresholds or {}
    return tuple(
        _one_label(name, y[:, k], s[:, k], codes, chosen.get(name, math.nan)) for k, name in enumerate(label_names)
    )


def exact_match(labels: ArrayLike, predictions: ArrayLike, groups: IntArray) -> Estimate:
    """Return the share of images whose labels are all predicted rightly, over the images whose labels are all known.

    Args:
        labels: (n, L), see above.
        predictions: bool (n, L).
        groups: (n,).
    """
    y = np.asarray(labels, dtype=np.float64)
    known = ~np.isnan(y).any(axis=1)
    right = (y == np.asarray(predictions)).all(axis=1)
    return proportion(right[known], np.asarray(groups)[known])


def micro_estimates(labels: ArrayLike, predictions: ArrayLike, groups: IntArray) -> dict[str, Estimate]:
    """Return recall, precision, F1 and specificity over all known (image, label) entries taken together."""
    y = np.asarray(labels, dtype=np.float64)
    known = ~np.isnan(y)
    spread = np.broadcast_to(np.asarray(groups)[:, None], y.shape)[known]
    return _threshold_estimates(y[known] == 1, np.asarray(predictions, dtype=bool)[known], spread)


def any_present(labels: FloatArray) -> NDArray[np.float64]:
    """Return 1 where any label of a row (n, k) is 1, 0 where all are 0, and NaN where that is not known."""
    return np.where((labels == 1).any(axis=1), 1.0, np.where(np.isnan(labels).any(axis=1), np.nan, 0.0))


def checked_groups(groups: IntArray, n: int) -> NDArray[np.int64]:
    """Return group codes 0..G-1, (n,); raises InputError."""
    given = np.asarray(groups)
    if given.shape != (n,):
        raise InputError(f"Groups of shape {given.shape} given for {n:,} images: one each is expected.")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _one_label(name: str, label: FloatArray, score: FloatArray, codes: IntArray, threshold: float) -> LabelPerformance:
    known = ~np.isnan(label)
    positive, groups = label[known] == 1, codes[known]
    n_positive = int(positive.sum())
    if math.isnan(threshold):
        undefined = Estimate(math.nan, math.nan, math.nan, len(positive), 0, "no threshold chosen", reliable=False)
        at_threshold = dict.fromkeys(THRESHOLD_METRICS, undefined)
    else:
        at_threshold = _threshold_estimates(positive, score[known] >= threshold, groups)
    return LabelPerformance(
        label=name,
        n_positive=n_positive,
        n_negative=len(positive) - n_positive,
        n_unknown=len(label) - len(positive),
        n_groups=len(np.unique(groups)),
        threshold=threshold,
        **at_threshold,
        **{metric: _rank_estimate(label, score, codes, metric) for metric in RANK_METRICS},
    )


def _threshold_estimates(positive: BoolArray, predicted: BoolArray, groups: IntArray) -> dict[str, Estimate]:
    return {
        "recall": proportion(predicted[positive], groups[positive]),
        "precision": proportion(positive[predicted], groups[predicted]),
        "f1": f1(positive, predicted, groups),
        "specificity": proportion(~predicted[~positive], groups[~positive]),
    }


@dataclass(frozen=True)
class Jackknifed:
    """A metric of one label with what its interval needs.

    Attributes:
        value: on all groups.
        without: the value without each of the groups `present`, those with a known label, (g,).
        present: their codes, (g,).
        working: the working variance of `score_interval`.
        n: images with a known label.
        n_scarce: groups on the scarcer side.
    """

    value: float
    without: FloatArray
    present: IntArray
    working: VarianceFunction
    n: int
    n_scarce: int

    def over_all(self, n_groups: int) -> FloatArray:
        """Return the values without each group of the cohort: leaving out one that the label lacks changes nothing."""
        full = np.full(n_groups, self.value)
        full[self.present] = self.without
        return full


def jackknifed_rank_metric(label: FloatArray, score: FloatArray, codes: IntArray, metric: str) -> Jackknifed | None:
    """Return AUROC or average precision of one label; None where it is undefined.

    Args:
        label: 1, 0 or NaN, (n,).
        score: finite, (n,).
        codes: group codes, (n,).
        metric: of `RANK_METRICS`.
    """
    known = ~np.isnan(label)
    positive, s = label[known] == 1, score[known]
    present, own = np.unique(codes[known], return_inverse=True)
    value = _values_of(positive, s)[RANK_METRICS.index(metric)]
    if math.isnan(value):
        return None
    of_positives = own[positive]
    if metric == "auroc":
        of_negatives = own[~positive]
        without = auroc_without_groups(positive, s, own)
        working = auroc_variance(effective_size(of_positives), effective_size(of_negatives))
        n_scarce = min(len(np.unique(of_positives)), len(np.unique(of_negatives)))
    else:
        without = average_precision_without_groups(positive, s, own)
        working = binomial_variance(effective_size(of_positives))
        n_scarce = len(np.unique(of_positives))
    return Jackknifed(value, without, present, working, len(positive), n_scarce)


def _rank_estimate(label: FloatArray, score: FloatArray, codes: IntArray, metric: str) -> Estimate:
    found = jackknifed_rank_metric(label, score, codes, metric)
    if found is None:
        n = int((~np.isnan(label)).sum())
        return Estimate(math.nan, math.nan, math.nan, n, 0, "undefined: one kind of label only", reliable=False)
    return score_interval(
        found.value,
        found.without,
        found.working,
        n=found.n,
        n_scarce=found.n_scarce,
        min_groups=AVERAGE_PRECISION_MIN_GROUPS if metric == "average_precision" else 2,
    )


def _rank_values(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.ndim != 1:
        raise InputError(f"Labels of shape {y.shape}: expected (n,).")
    checked_ranking(y[:, None], s[:, None])
    known = ~np.isnan(y)
    return _values_of(y[known] == 1, s[known])


def _values_of(positive: BoolArray, scores: FloatArray) -> tuple[float, float]:
    counts = ranked_scores(positive, scores, np.zeros(len(positive), dtype=np.int64), 1)
    found, precision = counts.auroc_and_average_precision(np.ones((1, 1)))
    return float(np.minimum(found[0], 1.0)), float(np.minimum(precision[0], 1.0))
