"""What each source of labels makes of the same scores and embeddings, and how far that is from the first source's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.classification import RANK_METRICS, jackknifed_rank_metric, label_performance
from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.ranking import bounded_mean, ranking_rows
from medvlm_probe.metrics.separability import class_distances
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, Scores
from medvlm_probe.zero_shot.thresholds import Thresholds

ALL_LABELS = ""
"""The label of a conclusion about all labels together (LRAP)."""

Jackknifed = tuple[float, NDArray[np.float64]]
"""A value, and the same without each group."""


@dataclass(frozen=True)
class Conclusion:
    """One metric by one source, on the images that all sources know.

    Attributes:
        label: the label, `ALL_LABELS` for LRAP.
        metric: `recall`, `specificity`, `auroc`, `average_precision`, `ratio` (of embed-dist) or
            `label_ranking_average_precision`.
        source: whose labels.
        n_positive: positives among these images by this source.
        estimate: the value.
        shift: the value minus that by the reference source, on the same images; None for the reference itself. Its
            interval is that of a paired difference; the ratio's has none.
    """

    label: str
    metric: str
    source: str
    n_positive: int
    estimate: Estimate
    shift: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """Return the estimates; undefined numbers are None."""
        return {
            "label": self.label or None,
            "metric": self.metric,
            "source": self.source,
            "n_positive": self.n_positive,
            "estimate": self.estimate.to_json(),
            "shift": self.shift.to_json() if self.shift else None,
        }


def conclusions_by_source(
    sources: Mapping[str, FloatArray],
    labels: tuple[str, ...],
    groups: IntArray,
    *,
    scores: Scores,
    thresholds: Thresholds | None,
    embeddings: FloatArray | None,
) -> tuple[Conclusion, ...]:
    """Return every metric of every label by every source, then LRAP.

    Of each label the images count that all sources know, so that no difference comes from other images.

    Args:
        sources: name to 1, 0 or NaN, (m, L); the first is the reference.
        labels: L names.
        groups: (m,).
        scores: of the same images; labels that it lacks are left out.
        thresholds: for recall and specificity; None leaves them out.
        embeddings: image vectors before normalisation, (m, d); None leaves the ratio out.
    """
    codes = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    found: list[Conclusion] = []
    shared = [label for label in labels if label in scores.labels]
    for label in shared:
        k = labels.index(label)
        common = ~np.isnan(np.stack([values[:, k] for values in sources.values()])).any(axis=0)
        column = {name: np.where(common, values[:, k], np.nan).astype(np.float64) for name, values in sources.items()}
        score = scores.values[:, scores.labels.index(label)].astype(np.float64)
        threshold = thresholds.values.get(label, math.nan) if thresholds else math.nan
        found += _of_label(label, column, score, codes, threshold)
        if embeddings is not None:
            found += _ratios(label, column, embeddings, codes)
    if len(shared) > 1:
        found += _ranking(sources, labels, shared, scores, codes)
    return tuple(found)


def _of_label(
    label: str, column: Mapping[str, FloatArray], score: FloatArray, codes: IntArray, threshold: float
) -> list[Conclusion]:
    n_groups = int(codes.max(initial=-1)) + 1
    predicted = score >= threshold
    parts: dict[str, Callable[[FloatArray], Jackknifed | None]] = {}
    if not math.isnan(threshold):
        parts["recall"] = lambda y: _share(predicted, y == 1, codes)
        parts["specificity"] = lambda y: _share(~predicted, y == 0, codes)
    for metric in RANK_METRICS:
        parts[metric] = lambda y, metric=metric: _rank(y, score, codes, metric, n_groups)  # type: ignore[misc]
    estimates = {
        name: label_performance(
            y[:, None], score[:, None], codes, label_names=(label,), thresholds=_one_threshold(label, threshold)
        )[0]
        for name, y in column.items()
    }
    found = []
    reference = next(iter(column))
    for metric, jackknifed in parts.items():
        base = jackknifed(column[reference])
        for name, y in column.items():
            shift = None
            if name != reference:
                scarce = _scarce_groups((y, column[reference]), codes, metric)
                shift = _difference(jackknifed(y), base, int((~np.isnan(y)).sum()), scarce)
            entry = estimates[name]
            found.append(Conclusion(label, metric, name, entry.n_positive, getattr(entry, metric), shift))
    return found


def _one_threshold(label: str, threshold: float) -> dict[str, float]:
    return {} if math.isnan(threshold) else {label: threshold}


def _ratios(label: str, column: Mapping[str, FloatArray], embeddings: FloatArray, codes: IntArray) -> list[Conclusion]:
    entries = class_distances(
        embeddings, np.stack(list(column.values()), axis=1), codes, label_names=tuple(column), n_permutations=0
    )
    base = entries[0].ratio.value
    found = []
    for position, (name, entry) in enumerate(zip(column, entries, strict=True)):
        ratio = entry.ratio
        moved = Estimate(
            ratio.value - base, math.nan, math.nan, ratio.n, ratio.n_groups, "no interval of this difference", False
        )
        found.append(Conclusion(label, "ratio", name, entry.n_positive, ratio, moved if position else None))
    return found


def _ranking(
    sources: Mapping[str, FloatArray], labels: tuple[str, ...], shared: list[str], scores: Scores, codes: IntArray
) -> list[Conclusion]:
    columns = [labels.index(label) for label in shared]
    values = scores.values[:, [scores.labels.index(label) for label in shared]]
    known = ~np.isnan(np.stack([v[:, columns] for v in sources.values()])).any(axis=(0, 2))
    metric = "label_ranking_average_precision"
    rows = {
        name: np.where(known, ranking_rows(v[:, columns], values).average_precision, np.nan)
        for name, v in sources.items()
    }
    base = _mean(rows[next(iter(rows))], codes)
    found = []
    for position, (name, row) in enumerate(rows.items()):
        shift = _difference(_mean(row, codes), base, int(known.sum()), None) if position else None
        n_positive = int((~np.isnan(row)).sum())
        found.append(Conclusion(ALL_LABELS, metric, name, n_positive, bounded_mean(row, codes, (0.0, 1.0)), shift))
    return found


def _share(success: BoolArray, among: BoolArray, codes: IntArray) -> Jackknifed | None:
    n_groups = int(codes.max(initial=-1)) + 1
    total = np.bincount(codes[among], minlength=n_groups).astype(np.float64)
    hits = np.bincount(codes[among & success], minlength=n_groups).astype(np.float64)
    return _ratio_without(hits, total)


def _mean(values: FloatArray, codes: IntArray) -> Jackknifed | None:
    defined = ~np.isnan(values)
    n_groups = int(codes.max(initial=-1)) + 1
    sums = np.bincount(codes[defined], weights=values[defined], minlength=n_groups).astype(np.float64)
    return _ratio_without(sums, np.bincount(codes[defined], minlength=n_groups).astype(np.float64))


def _ratio_without(part: FloatArray, whole: FloatArray) -> Jackknifed | None:
    if not whole.sum():
        return None
    left = whole.sum() - whole
    without = np.where(left > 0, (part.sum() - part) / np.where(left > 0, left, 1.0), np.nan)
    return float(part.sum() / whole.sum()), without


def _rank(y: FloatArray, score: FloatArray, codes: IntArray, metric: str, n_groups: int) -> Jackknifed | None:
    found = jackknifed_rank_metric(y, score, codes, metric)
    return (found.value, np.asarray(found.over_all(n_groups))) if found is not None else None


def _scarce_groups(pair: tuple[FloatArray, FloatArray], codes: IntArray, metric: str) -> int:
    """Return the groups on the scarcer side of the scarcer source."""
    sides = {"recall": (1,), "specificity": (0,), "average_precision": (1,), "auroc": (0, 1)}[metric]
    return min(len(np.unique(codes[y == side])) for y in pair for side in sides)


def _difference(one: Jackknifed | None, base: Jackknifed | None, n: int, n_scarce: int | None) -> Estimate:
    method = "paired difference, group jackknife"
    if one is None or base is None:
        return Estimate(math.nan, math.nan, math.nan, n, 0, "undefined: one kind of label only", reliable=False)
    if np.array_equal(one[1], base[1], equal_nan=True):
        return Estimate(one[0] - base[0], 0.0, 0.0, n, len(one[1]), "the same labels", reliable=True)
    return jackknife_interval(one[0] - base[0], one[1] - base[1], n=n, method=method, n_scarce=n_scarce)
