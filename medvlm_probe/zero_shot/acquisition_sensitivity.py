"""What acquisition does to each label's scores: their shift, recall and AUROC on the same images, by severity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.acquisition import AcquisitionStep, parse_steps
from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings
from medvlm_probe.metrics.classification import jackknifed_rank_metric, label_performance
from medvlm_probe.metrics.intervals import jackknife_interval, paired_mean
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import Estimate, FloatArray, IntArray, Scores

METRICS: dict[str, str] = {
    "score_shift": "mean change of the score, in standard deviations of the untouched scores",
    "flagged": "share of all images at or above the threshold",
    "recall": "recall at the untouched threshold",
    "specificity": "specificity at the untouched threshold",
    "auroc": "AUROC",
    "recall_change": "recall less that on the untouched images",
    "auroc_change": "AUROC less that on the untouched images",
}
"""What is measured. Those that change are paired: the same images untouched and transformed."""

TOO_FEW = 10
"""Labels with fewer positives are not named as the most affected."""

Scorer = Callable[[NDArray[np.floating]], Scores]


def acquisition_sensitivity(
    embedded: AcquisitionEmbeddings, score: Scorer, *, thresholds: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Return each label's curves over the severity of each transform, a row an estimate.

    Args:
        embedded: the images, untouched and under single transforms (no chains).
        score: from embeddings before normalisation (n, D) to scores of the rows: `predict.zero_shot_scores` or a head.
        thresholds: label to the least score that counts as present, chosen elsewhere on untouched images.

    Returns:
        `transform` (its family; every one begins with a row of severity 0, the untouched images), `level`, `unit`,
        `severity` (signed, in levels from neutral), `label`, `metric` (of `METRICS`), `n_positive`, `value`, `low`,
        `high`, `n`, `n_groups`, `method`, `reliable`. Metrics that need a threshold are missing for labels without one.
    """
    untouched = score(embedded.untouched)
    labels = embedded.cohort.targets(untouched.labels)
    groups = embedded.cohort.groups()
    limits = dict(thresholds or {})
    families: dict[str, list[AcquisitionStep]] = {}
    shown: dict[str, Scores] = {}
    for name, vectors in embedded.transformed.items():
        (step,) = parse_steps(name)
        families.setdefault(step.acquisition.name, []).append(step)
        shown[step.name] = score(vectors)
    rows: list[dict[str, object]] = []
    base = _measures(untouched, untouched, labels, groups, limits)
    for family, steps in families.items():
        entry = steps[0].acquisition
        about: dict[str, object] = {"transform": family, "unit": entry.unit}
        rows += [about | {"level": entry.neutral, "severity": 0} | row for row in base]
        for step in steps:
            place = {"level": step.level, "severity": entry.severity(step.level)}
            found = _measures(shown[step.name], untouched, labels, groups, limits)
            rows += [about | place | row for row in found]
    front = ["transform", "level", "unit", "severity", "label", "metric", "n_positive"]
    table = pd.DataFrame(rows)
    return table[front + [column for column in table.columns if column not in front]]


def most_affected(table: pd.DataFrame, metric: str = "auroc_change") -> pd.DataFrame:
    """Return the row of each transform that changes a metric most, the largest change first; labels with ten positives.

    Args:
        table: of `acquisition_sensitivity`.
        metric: one that is a change: `score_shift`, `recall_change` or `auroc_change`.
    """
    rows = table[(table["metric"] == metric) & (table["severity"] != 0) & table["value"].notna()]
    rows = rows[rows["n_positive"] >= TOO_FEW]
    size = rows["value"].abs()
    first = rows.loc[size.groupby(rows["transform"]).idxmax()]
    return first.reindex(first["value"].abs().sort_values(ascending=False).index).reset_index(drop=True)


def _measures(
    scores: Scores, untouched: Scores, labels: FloatArray, groups: IntArray, limits: Mapping[str, float]
) -> list[dict[str, object]]:
    """Return the rows of one set of scores: label, metric, the number of positives and the estimate."""
    performance = label_performance(labels, scores.values, groups, label_names=scores.labels, thresholds=limits)
    rows: list[dict[str, object]] = []
    for k, label in enumerate(scores.labels):
        now, before, truth = scores.values[:, k], untouched.values[:, k], labels[:, k]
        spread = float(before.std())
        found: dict[str, Estimate] = {
            "score_shift": paired_mean((now - before) / (spread if spread > 0 else math.nan), groups),
            "auroc": performance[k].auroc,
            "auroc_change": _auroc_change(truth, now, before, groups),
        }
        if label in limits:
            flagged, first = now >= limits[label], before >= limits[label]
            positive = truth == 1
            change = (flagged.astype(np.float64) - first)[positive]
            found |= {
                "flagged": proportion(flagged, groups),
                "recall": performance[k].recall,
                "specificity": performance[k].specificity,
                "recall_change": _within(paired_mean(change, groups[positive])),
            }
        for metric, estimate in found.items():
            about: dict[str, object] = {"label": label, "metric": metric, "n_positive": performance[k].n_positive}
            rows.append(about | {name: getattr(estimate, name) for name in _ESTIMATE})
    return rows


def _within(change: Estimate) -> Estimate:
    """Return a difference of two shares with its interval cut to what such a difference can be."""
    return replace(change, low=max(change.low, -1.0), high=min(change.high, 1.0))


_ESTIMATE = ("value", "low", "high", "n", "n_groups", "method", "reliable")


def _auroc_change(truth: FloatArray, now: FloatArray, before: FloatArray, groups: IntArray) -> Estimate:
    """Return the paired difference of AUROCs with the group jackknife's interval."""
    codes = np.unique(groups, return_inverse=True)[1]
    after, first = (jackknifed_rank_metric(truth, score, codes, "auroc") for score in (now, before))
    if after is None or first is None:
        n = int((~np.isnan(truth)).sum())
        return Estimate(math.nan, math.nan, math.nan, n, 0, "undefined: one kind of label only", reliable=False)
    return _within(
        jackknife_interval(after.value - first.value, after.without - first.without, n=after.n, n_scarce=after.n_scarce)
    )
