"""Ways to get probabilities from one model, held side by side on the same images: how far each can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration import (
    CalibrationEstimate,
    MultilabelCalibration,
    calibration_estimates,
    confidence_histogram,
    multilabel_calibration,
    reliability_bins,
)
from medvlm_probe.metrics.calibration_scores import brier_terms, log_terms
from medvlm_probe.metrics.intervals import paired_mean
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import Estimate, FloatArray, IntArray, Scores

METRICS = ("ece", "ace", "mce", "ece_kde", "brier", "nll", "overconfidence")
PAIRED = ("brier", "nll")
"""Metrics whose paired difference to the first method is given: means over the same entries on both sides."""


@dataclass(frozen=True, eq=False)
class NamedProbabilities:
    """One way to get probabilities.

    Attributes:
        name: as tables show it.
        scores: probabilities of the images shown.
        labels_used: known labels that the fit used; 0 for none.
        n_parameters: numbers that were fitted.
        notes: what a reader should know.
    """

    name: str
    scores: Scores
    labels_used: int = 0
    n_parameters: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MethodCalibration:
    """What one method's probabilities are worth.

    Attributes:
        method: where the probabilities come from.
        accuracy: share of entries (single-label: of images) answered rightly at .5 (by the top label).
        found: metric to estimate: over all entries taken together, or of the top label.
        by_label: each label's, in multi-label cohorts.
        macro: means over labels, in multi-label cohorts.
        against_first: metric to the paired difference to the first method; below 0 is better than it.
    """

    method: NamedProbabilities
    accuracy: Estimate
    found: Mapping[str, CalibrationEstimate]
    by_label: Mapping[str, Mapping[str, CalibrationEstimate]]
    macro: Mapping[str, CalibrationEstimate]
    against_first: Mapping[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `methods` in the JSON of `calibration`."""
        return {
            "method": self.method.name,
            "labels_used": self.method.labels_used,
            "n_parameters": self.method.n_parameters,
            "accuracy": self.accuracy.to_json(),
            **{metric: estimate.to_json() for metric, estimate in self.found.items()},
            "macro": {metric: estimate.to_json() for metric, estimate in self.macro.items()},
            "against_first": {metric: estimate.to_json() for metric, estimate in self.against_first.items()},
            "per_label": [
                {"label": label, **{metric: estimate.to_json() for metric, estimate in found.items()}}
                for label, found in self.by_label.items()
            ],
            "notes": list(self.method.notes),
        }


def compare_calibration(
    methods: Sequence[NamedProbabilities], shown: Cohort, *, n_replicates: int = 1000, seed: int = 0
) -> tuple[MethodCalibration, ...]:
    """Return every method's calibration on the same images and labels.

    Args:
        methods: probabilities of the same images and labels; the first is what the others are compared with.
        shown: the images, in the order of the scores; none of them was used for a fit.
        n_replicates: of the bands of a perfectly calibrated model.
        seed: of the bands; equal for all methods.

    Raises:
        InputError: no methods, scores that are no probabilities, or rows and labels that do not fit.
    """
    if not methods:
        raise InputError("No method to compare: give at least one.")
    first = methods[0].scores
    for method in methods:
        if method.scores.kind != "probability":
            raise InputError(f"{method.name} gives {method.scores.kind}s; calibration needs probabilities.")
        if method.scores.labels != first.labels or len(method.scores.ids) != len(shown):
            raise InputError(f"{method.name} has other labels or rows than {methods[0].name}.")
    single = shown.card.task == "single_label"
    targets, groups = shown.targets(first.labels), shown.groups()
    truth = classes_of(targets) if single else targets
    found = []
    for method in methods:
        rng = np.random.default_rng(seed)
        if single:
            overall = calibration_estimates(
                method.scores.values, truth, groups, rng=rng, n_replicates=n_replicates, metrics=METRICS
            )
            several: MultilabelCalibration | None = None
        else:
            several = multilabel_calibration(
                method.scores.values,
                targets,
                groups,
                label_names=first.labels,
                rng=rng,
                n_replicates=n_replicates,
                metrics=METRICS,
            )
            overall = dict(several.pooled)
        found.append(
            MethodCalibration(
                method,
                _accuracy(method.scores.values, truth, groups),
                overall,
                dict(zip(first.labels, several.by_label, strict=True)) if several else {},
                several.macro if several else {},
                {} if method is methods[0] else _paired(method.scores.values, first.values, truth, groups),
            )
        )
    return tuple(found)


def classes_of(targets: FloatArray) -> NDArray[np.float64]:
    """Return each row's class, (n,), of one-hot targets (n, K); NaN where no class or several are known."""
    one = np.nansum(targets, axis=1) == 1
    return np.where(one, np.nanargmax(np.nan_to_num(targets), axis=1).astype(np.float64), np.nan)


def reliability_table(methods: Sequence[NamedProbabilities], shown: Cohort, *, seed: int = 0) -> pd.DataFrame:
    """Return the reliability diagrams as one tidy table: method, label ("" is all together), and a row a bin."""
    single = shown.card.task == "single_label"
    parts = []
    for method in methods:
        targets, groups = shown.targets(method.scores.labels), shown.groups()
        if single:
            diagrams: dict[str, tuple[FloatArray, FloatArray, IntArray]] = {
                "": (method.scores.values, classes_of(targets), groups)
            }
        else:
            known = ~np.isnan(targets)
            spread = np.broadcast_to(groups[:, None], targets.shape)[known]
            diagrams = {"": (method.scores.values[known], targets[known], spread)}
            diagrams |= {
                label: (method.scores.values[:, k], targets[:, k], groups)
                for k, label in enumerate(method.scores.labels)
            }
        for label, (p, y, own) in diagrams.items():
            rng = np.random.default_rng(seed)
            table = pd.DataFrame(reliability_bins(p, y, own, rng=rng).rows())
            parts.append(table.assign(method=method.name, label=label))
    return pd.concat(parts, ignore_index=True)


def confidence_table(methods: Sequence[NamedProbabilities], shown: Cohort) -> pd.DataFrame:
    """Return how confident right and wrong answers are, of all labels together, a row a method and bin."""
    single = shown.card.task == "single_label"
    parts = []
    for method in methods:
        targets = shown.targets(method.scores.labels)
        known = ~np.isnan(targets)
        p, y = (method.scores.values, classes_of(targets)) if single else (method.scores.values[known], targets[known])
        parts.append(pd.DataFrame(confidence_histogram(p, y)).assign(method=method.name))
    return pd.concat(parts, ignore_index=True)


def _accuracy(p: FloatArray, truth: FloatArray, groups: IntArray) -> Estimate:
    known = ~np.isnan(truth)
    if truth.ndim == 1:
        return proportion(p[known].argmax(axis=1) == truth[known], groups[known])
    spread = np.broadcast_to(groups[:, None], truth.shape)[known]
    return proportion((p[known] >= 0.5) == (truth[known] == 1), spread)


def _paired(p: FloatArray, first: FloatArray, truth: FloatArray, groups: IntArray) -> dict[str, Estimate]:
    known = ~np.isnan(truth)
    own = groups[known] if truth.ndim == 1 else np.broadcast_to(groups[:, None], truth.shape)[known]
    sides, y = (p[known], first[known]), truth[known]
    found = {}
    for metric, terms in (("brier", brier_terms), ("nll", log_terms)):
        ours, theirs = (terms(side, y) for side in sides)
        found[metric] = paired_mean(ours - theirs, own)
    return found
