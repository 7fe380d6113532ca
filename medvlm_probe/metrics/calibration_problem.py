"""One calibration problem (a label with P(y = 1), or a distribution over classes) and its metrics' plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.calibration_bins import (
    SURE,
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)
from medvlm_probe.metrics.calibration_forms import FORMS
from medvlm_probe.metrics.calibration_kernel import kde_calibration_error, smooth_calibration_error
from medvlm_probe.metrics.calibration_outcomes import Outcomes, checked_probabilities, outcomes_of
from medvlm_probe.metrics.calibration_scores import (
    brier_score,
    calibration_in_the_large,
    negative_log_likelihood,
    risk_coverage,
)
from medvlm_probe.types import IntArray

BINARY_METRICS = (*FORMS, "brier", "nll", "calibration_in_the_large", "overconfidence", "sure_errors", "risk_coverage")
"""Metrics of P(y = 1), in the order of tables."""

CLASS_METRICS = (*FORMS, "classwise_ece", "brier", "nll", "overconfidence", "sure_errors", "risk_coverage")
"""Metrics of distributions over classes, in the order of tables."""


@dataclass(frozen=True)
class Problem:
    """Images with a known label.

    Attributes:
        probabilities: (n,) P(y = 1), or (n, K).
        labels: 1 and 0, or classes, (n,).
        outcomes: the confidences that calibration errors are about, and whether they came true.
        groups: codes 0..G-1, (n,).
        owners: the groups as given, (n,).
        n_bins: of binned errors.
        metrics: those asked for, in the order of tables.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.float64]
    outcomes: Outcomes
    groups: NDArray[np.int64]
    owners: NDArray[np.int64]
    n_bins: int
    metrics: tuple[str, ...]

    @property
    def binary(self) -> bool:
        """Whether the probabilities are P(y = 1)."""
        return self.probabilities.ndim == 1

    @property
    def n_groups(self) -> int:
        """G."""
        return int(self.groups.max(initial=-1)) + 1

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the answer is that the confidence comes true: "present" from .5 on; always, for classes."""
        c = self.outcomes.confidence
        return c >= 0.5 if self.binary else np.ones(len(c), dtype=bool)

    @property
    def answer_confidence(self) -> NDArray[np.float64]:
        """The confidence of each answer."""
        return np.where(self.present, self.outcomes.confidence, 1 - self.outcomes.confidence)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right."""
        return np.asarray(self.present == self.outcomes.correct)


def problem_of(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: IntArray | None = None,
    *,
    n_bins: int = 10,
    metrics: Sequence[str] | None = None,
) -> Problem:
    """Return the problem of the images with a known label.

    Args:
        probabilities: (n,) P(y = 1), or (n, K).
        labels: 1, 0 or NaN (left out), or classes, (n,).
        groups: (n,); by default each image is its own.
        n_bins: at least 1.
        metrics: of `BINARY_METRICS` or `CLASS_METRICS`; by default all.

    Raises:
        InputError: what is given does not fit; logits.
        UnknownNameError: a metric that does not apply.
    """
    p, y = checked_probabilities(probabilities, labels)
    found = outcomes_of(p, y)
    given = np.arange(len(p)) if groups is None else np.asarray(groups)
    if given.shape != (len(p),):
        raise InputError(f"Groups of shape {given.shape} given for {len(p):,} images: one each is expected.")
    owners = given[found.kept].astype(np.int64)
    codes = np.unique(owners, return_inverse=True)[1].astype(np.int64)
    known = BINARY_METRICS if p.ndim == 1 else CLASS_METRICS
    for name in metrics or ():
        if name not in known:
            raise unknown_name("calibration metric", name, known)
    chosen = known if metrics is None else tuple(name for name in known if name in metrics)
    return Problem(p[found.kept], y[found.kept], found, codes, owners, n_bins, chosen)


def plain_values(problem: Problem) -> dict[str, float]:
    """Return the metrics as their formulas have them, in the order of tables; NaN where undefined."""
    if not len(problem.groups):
        return dict.fromkeys(problem.metrics, math.nan)
    return {name: _PLAIN[name](problem) for name in problem.metrics}


def _sure_errors(problem: Problem) -> float:
    wrong = problem.answer_confidence[~problem.right]
    return float(np.mean(wrong > SURE)) if len(wrong) else math.nan


_PLAIN: Mapping[str, Callable[[Problem], float]] = {
    "ece": lambda q: expected_calibration_error(q.probabilities, q.labels, q.n_bins),
    "ace": lambda q: adaptive_calibration_error(q.probabilities, q.labels, q.n_bins),
    "mce": lambda q: maximum_calibration_error(q.probabilities, q.labels, q.n_bins),
    "ece_kde": lambda q: kde_calibration_error(q.probabilities, q.labels),
    "smooth_ece": lambda q: smooth_calibration_error(q.probabilities, q.labels),
    "classwise_ece": lambda q: classwise_calibration_error(q.probabilities, q.labels, q.n_bins),
    "brier": lambda q: brier_score(q.probabilities, q.labels),
    "nll": lambda q: negative_log_likelihood(q.probabilities, q.labels),
    "calibration_in_the_large": lambda q: calibration_in_the_large(q.probabilities, q.labels),
    "overconfidence": lambda q: float(np.mean(q.answer_confidence - q.right)),
    "sure_errors": _sure_errors,
    "risk_coverage": lambda q: risk_coverage(q.answer_confidence, q.right)[0],
}
