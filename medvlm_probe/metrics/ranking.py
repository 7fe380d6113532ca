"""How each image's labels are ranked by its scores: LRAP, coverage error, ranking loss, top-k recall, with intervals.

Ties are counted as scikit-learn counts them, against the ranking: a label's rank is the number of scores at least as
large as its own. Where scikit-learn folds rows in on which a metric is undefined (a row without a positive label is a
perfect 1.0 to its LRAP), these leave the row out and count it. Rows with an unknown label are left out too: whether an
unknown label ranks rightly cannot be told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import binomial_variance, effective_size, mean_without_groups, score_interval
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

_BLOCK = 1 << 16


@dataclass(frozen=True)
class RankingRows:
    """Ranking metrics of each image, (n,); NaN where undefined.

    Attributes:
        average_precision: mean over the row's positives of (positives ranked at least as high) / (labels ranked at
            least as high); in (0, 1], larger better. Undefined without a positive.
        coverage: how many labels must be taken from the top to have all positives; 1 to L, smaller better. Undefined
            without a positive.
        loss: share of (positive, negative) pairs whose negative scores at least as high; in [0, 1], smaller better.
            Undefined without a positive or without a negative.
        n_unknown: rows left out for an unknown label.
    """

    average_precision: NDArray[np.float64]
    coverage: NDArray[np.float64]
    loss: NDArray[np.float64]
    n_unknown: int


def ranking_rows(labels: ArrayLike, scores: ArrayLike) -> RankingRows:
    """Return the ranking metrics of every row.

    Args:
        labels: 1 (present), 0 (absent) or NaN (not known), (n, L).
        scores: finite, (n, L), larger means more likely present.

    Raises:
        InputError: shapes that do not fit, other label values, scores that are not finite.

    Source: Tsoumakas, Katakis and Vlahavas 2010, section 34.7.2.
    """
    y, s = checked_ranking(labels, scores)
    known = np.asarray(~np.isnan(y).any(axis=1))
    positive = (y == 1) & known[:, None]
    rows, columns = np.nonzero(positive)
    above = np.empty(len(rows))
    positives_above = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        row = rows[part]
        as_high = s[row] >= s[row, columns[part]][:, None]
        above[part] = np.count_nonzero(as_high, axis=1)
        positives_above[part] = np.count_nonzero(as_high & positive[row], axis=1)
    n, n_labels = y.shape
    counts = np.bincount(rows, minlength=n).astype(np.float64)
    has_positive = counts > 0
    precision = np.bincount(rows, weights=positives_above / above, minlength=n)
    wrong_pairs = np.bincount(rows, weights=above - positives_above, minlength=n)
    coverage = np.full(n, np.nan)
    if len(rows):
        starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        coverage[rows[starts]] = np.maximum.reduceat(above, starts)
    pairs = counts * (n_labels - counts)
    return RankingRows(
        average_precision=_ratio(precision, counts, has_positive),
        coverage=coverage,
        loss=_ratio(wrong_pairs, pairs, pairs > 0),
        n_unknown=int((~known).sum()),
    )


def label_ranking_average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean of the rows' ranking average precision, in (0, 1], larger better, over rows where it is defined.

    Equals scikit-learn's on rows with a positive label. NaN where no row has one. Arguments and errors as in
    `ranking_rows`.
    """
    return _mean(ranking_rows(labels, scores).average_precision)


def coverage_error(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean depth at which all positives of a row are found, 1 to L, smaller better; else as LRAP above."""
    return _mean(ranking_rows(labels, scores).coverage)


def ranking_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean share of wrongly ordered pairs, in [0, 1], smaller better, over rows with both kinds of label."""
    return _mean(ranking_rows(labels, scores).loss)


def top_k_recall(
    labels: ArrayLike, scores: ArrayLike, k: int, *, average: Literal["macro", "micro"] | None = "macro"
) -> float | NDArray[np.float64]:
    """Return the share of positives whose score is among their image's k highest, in [0, 1], larger better.

    Args:
        labels, scores: as in `ranking_rows`.
        k: at least 1. A score that ties with others counts at the tie's last place.
        average: `macro` is the mean over the labels that have a positive, `micro` the share over all positives; None
            gives each label's own, (L,), NaN without a positive.

    Raises:
        InputError: as `ranking_rows`, or k below 1.
    """
    found, positive = top_k_hits(labels, scores, k)
    if average == "micro":
        return float(found.sum() / positive.sum()) if positive.any() else math.nan
    counts = positive.sum(axis=0).astype(np.float64)
    recalls = _ratio(found.sum(axis=0).astype(np.float64), counts, counts > 0)
    return recalls if average is None else _mean(recalls)


def top_k_hits(labels: ArrayLike, scores: ArrayLike, k: int) -> tuple[BoolArray, BoolArray]:
    """Return which positives are among their image's k highest scores, and which entries are positives, bool (n, L)."""
    y, s = checked_ranking(labels, scores)
    if k < 1:
        raise InputError(f"k is {k}; expected 1 or more.")
    positive = (y == 1) & ~np.isnan(y).any(axis=1, keepdims=True)
    if k >= y.shape[1]:
        return positive, positive
    # At most k scores are as high as s exactly where s exceeds the (k + 1)-th highest.
    next_highest = np.partition(s, -(k + 1), axis=1)[:, -(k + 1)]
    return positive & (s > next_highest[:, None]), positive


def ranking_estimates(labels: ArrayLike, scores: ArrayLike, groups: IntArray) -> dict[str, Estimate]:
    """Return the means of the ranking metrics with intervals by `score_interval`, and each one's number of rows as n.

    Keys: `label_ranking_average_precision`, `coverage_error`, `ranking_loss`.

    Args:
        labels, scores: as in `ranking_rows`.
        groups: the independently sampled group of each image, (n,).
    """
    return ranking_means(ranking_rows(labels, scores), groups, np.shape(scores)[1])


def ranking_means(rows: RankingRows, groups: IntArray, n_labels: int) -> dict[str, Estimate]:
    """Return the means of rows that are there already; else as `ranking_estimates`."""
    return {
        "label_ranking_average_precision": bounded_mean(rows.average_precision, groups, (0.0, 1.0)),
        "coverage_error": bounded_mean(rows.coverage, groups, (1.0, float(n_labels))),
        "ranking_loss": bounded_mean(rows.loss, groups, (0.0, 1.0)),
    }


def top_k_estimates(labels: ArrayLike, scores: ArrayLike, groups: IntArray, k: int) -> list[Estimate]:
    """Return each label's top-k recall with the interval of a proportion over its positives."""
    found, positive = top_k_hits(labels, scores, k)
    groups = np.asarray(groups)
    return [
        proportion(found[positive[:, column], column], groups[positive[:, column]])
        for column in range(positive.shape[1])
    ]


def bounded_mean(values: FloatArray, groups: IntArray, bounds: tuple[float, float]) -> Estimate:
    """Return the mean of values in a known range over the rows where they are defined, with its score interval.

    Args:
        values: (n,), NaN where undefined.
        groups: (n,).
        bounds: the least and the greatest value there can be.
    """
    defined = ~np.isnan(values)
    method = "score interval, group jackknife"
    if not defined.any() or bounds[0] == bounds[1]:
        value = _mean(values)
        return Estimate(value, value, value, int(defined.sum()), 0, "undefined" if math.isnan(value) else method)
    kept, owners = values[defined], np.asarray(groups)[defined]
    mean, without = mean_without_groups(kept, owners)
    value = float(np.clip(mean, *bounds))
    return score_interval(
        value, without, binomial_variance(effective_size(owners)), n=len(kept), method=method, bounds=bounds
    )


def checked_ranking(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return labels (n, L) as float with 1, 0 and NaN, and finite scores (n, L); raises InputError."""
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.ndim != 2 or y.shape != s.shape or y.shape[1] == 0:
        raise InputError(f"Labels of shape {y.shape} and scores of shape {s.shape}: expected (n, L) for both.")
    if not ((y == 0) | (y == 1) | np.isnan(y)).all():
        raise InputError("Labels must be 1, 0 or NaN (not known); apply the uncertainty policy to -1 first.")
    if not np.isfinite(s).all():
        raise InputError("Scores hold NaN or infinity; leave those images out.")
    return y, s


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any], defined: BoolArray) -> NDArray[np.float64]:
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def _mean(values: FloatArray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
