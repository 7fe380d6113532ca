"""Calibration of several labels an image, each yes, no or not known: by label, over all entries, mean over labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_estimates import (
    FEWEST_GROUPS,
    CalibrationEstimate,
    null_replicates,
    problem_estimates,
    skewed_mean,
    supports,
)
from medvlm_probe.metrics.calibration_forms import FORMS, kernel_form, mean_form, smooth_form
from medvlm_probe.metrics.calibration_intervals import ResidualForm, error_estimate, outcome_variances
from medvlm_probe.metrics.calibration_outcomes import checked_multilabel
from medvlm_probe.metrics.calibration_problem import Problem, plain_values, problem_of
from medvlm_probe.metrics.calibration_scores import brier_terms, log_terms
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.intervals import binomial_variance, effective_size, score_interval
from medvlm_probe.metrics.permutation import null_band
from medvlm_probe.types import Estimate, FloatArray, IntArray

MACRO_METRICS = (*FORMS, "brier", "nll", "calibration_in_the_large", "overconfidence")
"""Metrics whose mean over labels is given: those that every label with known images has."""

_COARSE: Mapping[str, Callable[[FloatArray, int], ResidualForm]] = {
    "ece_kde": lambda c, _: kernel_form(c, points=24),
    "smooth_ece": lambda c, _: smooth_form(c, terms=48),
}
"""Forms with fewer coordinates, since those of all labels are taken together."""


@dataclass(frozen=True)
class MultilabelCalibration:
    """Calibration metrics of several labels.

    Attributes:
        labels: L names.
        by_label: of each label's known images, metrics of `BINARY_METRICS`; NaN where a label has none.
        pooled: of all known entries taken together, as if they were one label's; `n` counts entries. Over-confidence in
            one label can hide under-confidence in another.
        macro: unweighted means over `macro_labels`, metrics of `MACRO_METRICS`.
        macro_labels: the labels with two known images or more.
    """

    labels: tuple[str, ...]
    by_label: tuple[Mapping[str, CalibrationEstimate], ...]
    pooled: Mapping[str, CalibrationEstimate]
    macro: Mapping[str, CalibrationEstimate]
    macro_labels: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return `per_label`, `pooled` and `macro` as JSON objects."""
        return {
            "per_label": [
                {"label": label, **_to_json(found)} for label, found in zip(self.labels, self.by_label, strict=True)
            ],
            "pooled": _to_json(self.pooled),
            "macro": {**_to_json(self.macro), "labels": list(self.macro_labels)},
        }


def multilabel_calibration(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: IntArray | None = None,
    *,
    label_names: Sequence[str],
    rng: np.random.Generator,
    n_bins: int = 10,
    n_replicates: int = 1000,
    metrics: Sequence[str] | None = None,
) -> MultilabelCalibration:
    """Return every metric by label, pooled and averaged, with intervals and bands; NaN labels are left out.

    Bands draw each label by itself: correlated within groups as far as that label shows; the macro band takes labels as
    independent of each other, the pooled one takes all of a group's entries as equally correlated.

    Args:
        probabilities: P(y = 1), (n, L).
        labels: 1, 0 or NaN (not known), (n, L).
        groups: the independently sampled group of each image, (n,); by default each its own.
        label_names: L names.
        rng: draws bands and noise.
        n_bins: of ECE, ACE and MCE.
        n_replicates: of the bands.
        metrics: only these of `BINARY_METRICS`.

    Raises:
        InputError: shapes or values that do not fit; logits.
        UnknownNameError: a metric that does not apply.
    """
    p, y = checked_multilabel(probabilities, labels)
    if len(label_names) != p.shape[1]:
        raise InputError(f"{len(label_names)} label names for {p.shape[1]} columns.")
    codes = np.arange(len(p)) if groups is None else checked_groups(groups, len(p))
    problems = [problem_of(p[:, k], y[:, k], codes, n_bins=n_bins, metrics=metrics) for k in range(p.shape[1])]
    replicates = [null_replicates(problem, rng, n_replicates) for problem in problems]
    known = ~np.isnan(y)
    spread = np.broadcast_to(codes[:, None], y.shape)[known]
    pooled = problem_of(p[known], y[known], spread, n_bins=n_bins, metrics=metrics)
    in_macro = [k for k, problem in enumerate(problems) if len(problem.groups) > 1]
    return MultilabelCalibration(
        labels=tuple(label_names),
        by_label=tuple(
            problem_estimates(problem, rng=rng, replicates=drawn)
            for problem, drawn in zip(problems, replicates, strict=True)
        ),
        pooled=problem_estimates(pooled, rng=rng, n_replicates=n_replicates),
        macro=_macro([problems[k] for k in in_macro], [replicates[k] for k in in_macro], codes, rng)
        if in_macro
        else {},
        macro_labels=tuple(label_names[k] for k in in_macro),
    )


def _macro(
    problems: Sequence[Problem], replicates: Sequence[FloatArray], codes: IntArray, rng: np.random.Generator
) -> dict[str, CalibrationEstimate]:
    metrics = [name for name in problems[0].metrics if name in MACRO_METRICS]
    plain = [plain_values(problem) for problem in problems]
    found = {}
    for name in metrics:
        column = problems[0].metrics.index(name)
        band = null_band(np.mean([drawn[:, column] for drawn in replicates], axis=0))
        estimate = (
            _mean_error(problems, name, rng) if name in FORMS else _mean_of_means(problems, name, int(codes.max()) + 1)
        )
        found[name] = CalibrationEstimate(float(np.mean([values[name] for values in plain])), estimate, band)
    return found


def _mean_error(problems: Sequence[Problem], name: str, rng: np.random.Generator) -> Estimate:
    """Return the debiased mean of a calibration error over labels, whose noise within groups is taken together."""
    confidences = [problem.outcomes.confidence for problem in problems]
    correct = [problem.outcomes.correct for problem in problems]
    sizes = [len(c) for c in confidences]
    form = mean_form([_COARSE.get(name, FORMS[name].form)(c, problems[0].n_bins) for c in confidences], sizes)
    owners = np.concatenate([problem.owners for problem in problems])
    n_groups = len(np.unique(owners))
    enough = [supports(FORMS[name], c, y, problems[0].n_bins) for c, y in zip(confidences, correct, strict=True)]
    return error_estimate(
        form,
        np.concatenate([y - c for c, y in zip(confidences, correct, strict=True)]),
        np.concatenate([outcome_variances(c, y) for c, y in zip(confidences, correct, strict=True)], axis=1),
        owners,
        n=sum(sizes),
        rng=rng,
        reliable=n_groups >= FEWEST_GROUPS and all(enough),
    )


def _mean_of_means(problems: Sequence[Problem], name: str, n_groups: int) -> Estimate:
    """Return the mean over labels of a mean over images; leaving out a group leaves it out of every label."""
    terms = [_TERMS[name](problem) for problem in problems]
    value = float(np.mean([part.mean() for part in terms]))
    without = np.mean(
        [_without_groups(part, problem.owners, n_groups) for part, problem in zip(terms, problems, strict=True)], axis=0
    )
    n = sum(len(part) for part in terms)
    if name == "nll":
        return skewed_mean(value, without, n)
    spread = [effective_size(problem.groups) for problem in problems]
    # Labels of one image vary together to an unknown degree: no more is assumed than one label's worth of images.
    working = binomial_variance(float(np.mean(spread)))
    return score_interval(value, without, working, n=n, bounds=(0.0, 1.0) if name == "brier" else (-1.0, 1.0))


_TERMS: Mapping[str, Callable[[Problem], FloatArray]] = {
    "brier": lambda problem: brier_terms(problem.probabilities, problem.labels),
    "nll": lambda problem: log_terms(problem.probabilities, problem.labels),
    "calibration_in_the_large": lambda problem: problem.outcomes.confidence - problem.outcomes.correct,
    "overconfidence": lambda problem: problem.answer_confidence - problem.right,
}


def _without_groups(values: FloatArray, owners: IntArray, n_groups: int) -> FloatArray:
    """Return the mean without each group, (G,); groups without a value leave it as it is."""
    sums = np.bincount(owners, weights=values, minlength=n_groups)
    left = len(values) - np.bincount(owners, minlength=n_groups)
    return np.where(left > 0, (values.sum() - sums) / np.maximum(left, 1), np.nan)


def _to_json(found: Mapping[str, CalibrationEstimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in found.items()}
