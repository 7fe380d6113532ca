"""AUROC and average precision of one label: plain, for any group weights at once, and without each group in turn.

Ties are counted as scikit-learn counts them: a tied pair is half a win for AUROC, and average precision takes all
images of one score at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medvlm_probe.types import BoolArray, FloatArray, IntArray

_LARGE_GROUP = 64


@dataclass(frozen=True, eq=False)
class RankedScores:
    """A label's images counted by group and by where their score lies among the K different scores of its positives.

    Attributes:
        positives: positives of each group at each of those scores, from the highest on, (K, G).
        negatives: negatives of each group below the score before and not below this one, (K + 1, G); the last row holds
            those below all positives.
        ties: negatives of each group at exactly that score, (K, G).
    """

    positives: sparse.csr_array
    negatives: sparse.csr_array
    ties: sparse.csr_array

    def auroc_and_average_precision(self, weights: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return both statistics, each (B,), for B sets of group weights (G, B); NaN where undefined.

        AUROC needs a positive and a negative of weight above 0, average precision a positive.
        """
        positive, negative = self.positives @ weights, self.negatives @ weights
        found, false = np.cumsum(positive, axis=0), np.cumsum(negative, axis=0)
        n_positive, n_negative = positive.sum(axis=0), false[-1]
        beaten = n_negative - false[:-1] + (self.ties @ weights) / 2
        wins = (positive * beaten).sum(axis=0)
        precision = found / np.maximum(found + false[:-1], 1e-300)
        return (
            _ratio(wins, n_positive * n_negative),
            _ratio((positive * precision).sum(axis=0), n_positive),
        )


def ranked_scores(positive: BoolArray, scores: FloatArray, codes: IntArray, n_groups: int) -> RankedScores:
    """Return the counts of a label whose every image is known.

    Args:
        positive: bool (n,).
        scores: finite, (n,).
        codes: group of each image, 0..n_groups-1, (n,).
        n_groups: G.
    """
    levels = np.unique(scores[positive])  # ascending
    k = len(levels)

    def counted(rows: IntArray, columns: IntArray, height: int) -> sparse.csr_array:
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(height, n_groups))

    at = k - 1 - np.searchsorted(levels, scores[positive])
    not_below = np.searchsorted(levels, scores[~positive], side="right")
    tied = (not_below > 0) & (levels[np.maximum(not_below, 1) - 1] == scores[~positive]) if k else np.zeros(0, bool)
    others = codes[~positive]
    return RankedScores(
        positives=counted(at, codes[positive], k),
        negatives=counted(k - not_below, others, k + 1),
        ties=counted((k - not_below)[tied], others[tied], k) if k else counted(np.zeros(0, int), np.zeros(0, int), 0),
    )


def auroc_without_groups(positive: BoolArray, scores: FloatArray, codes: IntArray) -> NDArray[np.float64]:
    """Return the AUROC without each group, (G,), NaN where that leaves only one kind; arguments as `ranked_scores`.

    From each image's won pairs: those of the group's images leave, and the pairs within the group, counted twice, come
    back. O(n log n).
    """
    won = _won_pairs(positive, scores, np.zeros(len(codes), dtype=np.int64))
    within = _won_pairs(positive, scores, codes)[positive]
    lost_by_group = np.bincount(codes, weights=won)
    back = np.bincount(codes[positive], weights=within, minlength=len(lost_by_group))
    p = np.bincount(codes, weights=positive.astype(np.float64))
    n = np.bincount(codes, weights=(~positive).astype(np.float64))
    left = won[positive].sum() - lost_by_group + back
    return _ratio(left, (p.sum() - p) * (n.sum() - n))


def average_precision_without_groups(positive: BoolArray, scores: FloatArray, codes: IntArray) -> NDArray[np.float64]:
    """Return the average precision without each group, (G,), NaN where no positive is left.

    Without a group, the precision at a positive, a / r, becomes (a - p) / (r - q), where q images and p positives of
    the group score as high. Both change only at the group's own images, so running sums of a / (r - q) and 1 / (r - q)
    over the positives, for each q up to the largest group, give every sum between two of them. Groups above 64 images
    are left out one by one instead.
    """
    n_groups = int(codes.max(initial=-1)) + 1
    sizes = np.bincount(codes, minlength=n_groups)
    result = np.full(n_groups, np.nan)
    for large in np.flatnonzero(sizes > _LARGE_GROUP):
        kept = codes != large
        one = ranked_scores(positive[kept], scores[kept], np.zeros(int(kept.sum()), dtype=np.int64), 1)
        result[large] = one.auroc_and_average_precision(np.ones((1, 1)))[1][0]
    small = sizes <= _LARGE_GROUP
    descending = -np.sort(-scores[positive])
    if not small.any() or not len(descending):
        return result
    everything = np.sort(-scores)
    a = np.searchsorted(-descending, -descending, side="right").astype(np.float64)
    r = np.searchsorted(everything, -descending, side="right").astype(np.float64)
    q = np.arange(int(sizes[small].max()) + 1)[:, None]
    inverse = np.where(r > q, 1.0 / np.where(r > q, r - q, 1.0), 0.0)
    zeros = np.zeros((len(q), 1))
    sums_a = np.concatenate([zeros, np.cumsum(a * inverse, axis=1)], axis=1)
    sums_1 = np.concatenate([zeros, np.cumsum(inverse, axis=1)], axis=1)

    order = np.lexsort((-scores, codes))
    order = order[small[codes[order]]]
    group, score, is_positive = codes[order], scores[order], positive[order]
    first = np.r_[True, group[1:] != group[:-1]]
    starts = np.flatnonzero(first)
    start_of = starts[np.cumsum(first) - 1]
    removed = np.arange(len(group)) - start_of + 1
    running = np.cumsum(is_positive)
    removed_positives: NDArray[np.int64] = running - (running - is_positive)[start_of]
    begin = np.searchsorted(-descending, -score, side="left")
    end = np.r_[begin[1:], len(descending)]
    end[np.r_[starts[1:] - 1, len(group) - 1]] = len(descending)
    between = sums_a[removed, end] - sums_a[removed, begin]
    between -= removed_positives * (sums_1[removed, end] - sums_1[removed, begin])
    totals = np.bincount(group, weights=between, minlength=n_groups)
    totals[group[starts]] += sums_a[0, begin[starts]]

    last_of_tie = _last_of_run(np.r_[(group[1:] != group[:-1]) | (score[1:] != score[:-1]), True])[is_positive]
    own = np.searchsorted(-descending, -score[is_positive], side="left")
    taken, taken_positives = removed[last_of_tie], removed_positives[last_of_tie]
    own_terms = (a[own] - taken_positives) * inverse[taken, own]
    totals -= np.bincount(group[is_positive], weights=own_terms, minlength=n_groups)
    n_left = len(descending) - np.bincount(codes, weights=positive.astype(np.float64), minlength=n_groups)
    return np.where(small, _ratio(totals, n_left), result)


def _won_pairs(positive: BoolArray, scores: FloatArray, segment: IntArray) -> NDArray[np.float64]:
    """Return for each image the pairs of it and one of the other kind in its segment that are ordered rightly, (n,)."""
    order = np.lexsort((scores, segment))
    s, where, is_positive = scores[order], segment[order], positive[order].astype(np.float64)
    new_segment = np.r_[True, where[1:] != where[:-1]] if len(where) else np.zeros(0, dtype=bool)
    new_run = new_segment | np.r_[True, s[1:] != s[:-1]] if len(s) else new_segment
    run, part = np.cumsum(new_run) - 1, np.cumsum(new_segment) - 1
    positives, negatives = np.bincount(run, weights=is_positive), np.bincount(run, weights=1 - is_positive)
    part_of_run = part[np.flatnonzero(new_run)]
    before = np.cumsum(negatives) - negatives
    first_run = np.flatnonzero(np.r_[True, part_of_run[1:] != part_of_run[:-1]]) if len(part_of_run) else run[:0]
    below = before - before[first_run][part_of_run] + negatives / 2
    cumulative = np.cumsum(positives)
    total = np.bincount(part_of_run, weights=positives)
    offset = (cumulative - positives)[first_run][part_of_run]
    above = total[part_of_run] - (cumulative - offset) + positives / 2
    won = np.empty(len(scores))
    won[order] = np.where(is_positive > 0, below[run], above[run])
    return won


def _last_of_run(last: BoolArray) -> NDArray[np.int64]:
    """Return for each position the next one that is marked as its run's last."""
    ends = np.flatnonzero(last)
    return ends[np.searchsorted(ends, np.arange(len(last)))]


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)
