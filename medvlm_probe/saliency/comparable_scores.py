"""Scores of different settings on one scale: where an image stands among the images without the finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medvlm_probe.types import BoolArray, FloatArray

FEWEST_NEGATIVES = 20
"""With fewer images known to be without the finding, a place among them says too little."""

CONFIDENTLY_RIGHT, CONFIDENTLY_WRONG = 0.9, 0.5
"""A positive above 90 % of the negatives is found; one below their median is missed with confidence."""

Scale = Literal["percentile", "probability"]
Outcome = Literal["found", "unsure", "missed"]

SCALE_WORDS: dict[Scale, str] = {
    "percentile": "Scores: share of the images without the finding that score lower, the same scale for all settings.",
    "probability": "Scores: logistic function of each setting's logit, not calibrated, so not strictly comparable.",
}


@dataclass(frozen=True, eq=False)
class ComparableScores:
    """One setting's scores of images for labels.

    Attributes:
        values: (n, L) in [0, 1]; larger is more likely present.
        scales: L names: `percentile` among the label's negatives, or `probability` where there are too few of them.
        n_negatives: (L,), the images that a percentile is taken among.
    """

    values: NDArray[np.float64]
    scales: tuple[Scale, ...]
    n_negatives: NDArray[np.int64]


def comparable_scores(logits: FloatArray, targets: FloatArray, reference: BoolArray) -> ComparableScores:
    """Return scores that compare settings whose logits have nothing in common.

    Args:
        logits: (n, L).
        targets: (n, L), 1, 0 or NaN.
        reference: (n,), images drawn at random; their negatives are the ones that a percentile is taken among. An image
            is never compared with itself; equal logits count half.
    """
    n_labels = logits.shape[1]
    values = expit(np.asarray(logits, dtype=np.float64))
    scales: list[Scale] = []
    counts = np.zeros(n_labels, dtype=np.int64)
    for at in range(n_labels):
        negative = reference & (targets[:, at] == 0)
        counts[at] = int(negative.sum())
        if counts[at] < FEWEST_NEGATIVES:
            scales.append("probability")
            continue
        scales.append("percentile")
        among = np.sort(logits[negative, at])
        low, high = (np.searchsorted(among, logits[:, at], side=side) for side in ("left", "right"))
        # A negative of the reference is among them itself: one tie less, one image less.
        ties = (high - low) - negative
        values[:, at] = (low + ties / 2) / (counts[at] - negative)
    return ComparableScores(values, tuple(scales), counts)


def outcome_of(percentile: float) -> Outcome:
    """Return how sure a setting is of a positive from its place among the negatives, in [0, 1]."""
    if percentile >= CONFIDENTLY_RIGHT:
        return "found"
    return "missed" if percentile < CONFIDENTLY_WRONG else "unsure"
