"""What calibration is measured on: the confidence of each answer, whether it came true, and checks of what is given.

`probabilities` of shape (n,) are P(y = 1), held against the frequency of positives; of shape (n, K) each row is a
distribution over classes, and the confidence is that of the top one, held against how often it is right. For K = 2 the
two differ: a probability of .1 that comes true one time in ten is an answer "absent" at confidence .9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError

ROW_SUM_TOLERANCE = 1e-3
"""How far a row's probabilities may be from a sum of 1: half precision is."""


@dataclass(frozen=True)
class Outcomes:
    """Answers whose truth is known.

    Attributes:
        confidence: in [0, 1], (n,).
        correct: whether it came true: y = 1, or the top class is right; bool (n,).
        kept: rows of what was given, int64 (n,): those with a known label.
    """

    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]
    kept: NDArray[np.int64]


def outcomes_of(probabilities: ArrayLike, labels: ArrayLike) -> Outcomes:
    """Return the confidences and outcomes of binary or top-label answers.

    Args:
        probabilities: (n,) or (n, K), see the module.
        labels: 1, 0 or NaN (left out), (n,); or classes 0 to K - 1, (n,).

    Raises:
        InputError: logits or other numbers out of range, labels or shapes that do not fit.
    """
    p, y = checked_probabilities(probabilities, labels)
    if p.ndim == 1:
        known = ~np.isnan(y)
        return Outcomes(p[known], y[known] == 1, np.flatnonzero(known))
    top = p.argmax(axis=1)
    return Outcomes(p[np.arange(len(p)), top], top == y, np.arange(len(p)))


def checked_probabilities(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return probabilities (n,) or (n, K) and labels (n,) as float64; raises InputError."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.ndim not in (1, 2) or y.shape != p.shape[:1] or (p.ndim == 2 and p.shape[1] < 2):
        raise InputError(
            f"Probabilities of shape {p.shape} and labels of shape {y.shape}: expected (n,) with labels (n,), or "
            "(n, K) with classes (n,)."
        )
    check_range(p)
    if p.ndim == 1:
        if not ((y == 0) | (y == 1) | np.isnan(y)).all():
            raise InputError("Labels must be 1, 0 or NaN (not known) beside probabilities of shape (n,).")
        return p, y
    sums = p.sum(axis=1)
    if (np.abs(sums - 1) > ROW_SUM_TOLERANCE).any():
        raise InputError(
            f"Rows of probabilities sum to {sums.min():.4g} up to {sums.max():.4g}: expected 1. For labels that do not "
            "exclude each other, use the multi-label functions."
        )
    if not ((y == np.floor(y)) & (y >= 0) & (y < p.shape[1])).all():
        raise InputError(f"Labels must be classes 0 to {p.shape[1] - 1} beside probabilities of shape {p.shape}.")
    return p, y


def check_range(probabilities: NDArray[np.float64]) -> None:
    """Raise InputError for numbers that are no probabilities."""
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        wrong = probabilities[outside]
        raise InputError(
            f"Probabilities hold {wrong.flat[0]:.4g}: expected numbers in [0, 1]. Turn logits into probabilities first "
            "(softmax over classes, or the logistic function for one label)."
        )


def checked_multilabel(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return probabilities (n, L) and labels (n, L) of 1, 0 and NaN as float64; raises InputError."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.ndim != 2 or y.shape != p.shape or p.shape[1] == 0:
        raise InputError(f"Probabilities of shape {p.shape} and labels of shape {y.shape}: expected (n, L) for both.")
    check_range(p)
    if not ((y == 0) | (y == 1) | np.isnan(y)).all():
        raise InputError("Labels must be 1, 0 or NaN (not known); apply the uncertainty policy to -1 first.")
    return p, y
