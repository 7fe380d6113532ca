"""The score from which on a label counts as present: chosen on named images that no result uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.types import BoolArray, FloatArray, Scores

RULES: dict[str, str] = {
    "youden": "greatest recall + specificity",
    "f1": "greatest F1",
    "recall": "greatest threshold whose recall is at least a floor: recall:0.9",
}
"""How a threshold is chosen, by name."""


@dataclass(frozen=True)
class Thresholds:
    """Chosen thresholds.

    Attributes:
        values: label to the least score that counts as present; labels that could not be chosen are missing.
        source: the split that they were chosen on.
        rule: as given, `youden` or `recall:0.9`.
        n_positive: label to the positives that the choice rests on.
    """

    values: Mapping[str, float]
    source: str
    rule: str
    n_positive: Mapping[str, int]


def choose_thresholds(scores: Scores, labels: ArrayLike, *, rule: str, source: str) -> Thresholds:
    """Return a threshold per label that has known positives and negatives among these images.

    A threshold lies half-way between two neighbouring scores, so images that score a little differently elsewhere do
    not all fall on one side. Among equally good ones the lowest is taken: it finds most.

    Args:
        scores: of the images that the choice may use.
        labels: 1, 0 or NaN (left out), (n, L).
        rule: `youden`, `f1` or `recall:FLOOR` with a floor in (0, 1].
        source: the name of the split.

    Raises:
        UnknownNameError: another rule.
        InputError: shapes that do not fit, or no valid floor.
    """
    y = np.asarray(labels, dtype=np.float64)
    if y.shape != scores.values.shape:
        raise InputError(f"Labels of shape {y.shape} do not fit scores of shape {scores.values.shape}.")
    floor = parse_rule(rule)
    values, positives = {}, {}
    for k, label in enumerate(scores.labels):
        known = ~np.isnan(y[:, k])
        positive, s = y[known, k] == 1, scores.values[known, k]
        positives[label] = int(positive.sum())
        if positive.any() and not positive.all():
            values[label] = _best(positive, s, rule.partition(":")[0], floor)
    return Thresholds(values, source, rule, positives)


def parse_rule(rule: str) -> float:
    """Return a rule's recall floor, NaN for rules without one; raises as `choose_thresholds`."""
    name, _, number = rule.partition(":")
    if name not in RULES:
        raise unknown_name("threshold rule", name, RULES)
    if name != "recall":
        if number:
            raise InputError(f"Threshold rule '{rule}': {name} takes no number.")
        return math.nan
    try:
        floor = float(number)
    except ValueError:
        floor = math.nan
    if not 0 < floor <= 1:
        raise InputError(f"Threshold rule '{rule}': expected recall:FLOOR with a floor above 0 and at most 1.")
    return floor


def threshold_curve(positive: BoolArray, scores: FloatArray) -> dict[str, NDArray[np.float64]]:
    """Return what each threshold gives: `threshold`, `recall`, `precision`, `specificity`, `f1`, by falling threshold.

    The first threshold lies above all scores (nothing is predicted, its precision is NaN), the last below all.

    Args:
        positive: bool (n,), of both kinds.
        scores: (n,).
    """
    order = np.argsort(-scores, kind="stable")
    s, y = scores[order], positive[order]
    last = np.flatnonzero(np.r_[s[1:] != s[:-1], True])
    hits = np.r_[0, np.cumsum(y)[last]].astype(np.float64)
    called = np.r_[0, last + 1].astype(np.float64)
    levels = s[last]
    between = (levels[:-1] + levels[1:]) / 2
    # Half-way rounds to the upper score where two are neighbours in floating point; then the lower one is meant.
    between = np.where(between < levels[:-1], between, levels[1:])
    margin = max(1e-6, float(np.ptp(s)) * 1e-3)
    n_positive, n_negative = float(y.sum()), float((~y).sum())
    return {
        "threshold": np.r_[levels[0] + margin, between, levels[-1] - margin],
        "recall": hits / n_positive,
        "precision": np.where(called > 0, hits / np.maximum(called, 1), np.nan),
        "specificity": 1 - (called - hits) / n_negative,
        "f1": 2 * hits / (n_positive + called),
    }


def _best(positive: BoolArray, scores: FloatArray, rule: str, floor: float) -> float:
    curve = threshold_curve(positive, scores)
    if rule == "recall":
        return float(curve["threshold"][np.argmax(curve["recall"] >= floor - 1e-12)])
    worth = curve["f1"] if rule == "f1" else curve["recall"] + curve["specificity"]
    return float(curve["threshold"][np.flatnonzero(worth >= worth.max() - 1e-12)[-1]])
