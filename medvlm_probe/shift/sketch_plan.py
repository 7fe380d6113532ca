"""What a sketch measures, settled before any image is looked at: sketches of one plan can be merged and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.shift.random_features import RandomFeatures

N_FOLDS = 20
TENTHS = np.arange(1, 10) / 10
"""Inner edges of the tenths of probability, closed on the left: those of a reliability diagram."""

PROBABILITY_EDGES = np.unique(np.append(special.expit(np.round(0.02 * np.sinh(np.linspace(-8, 8, 321)), 9)), TENTHS))
"""Inner edges of the bins of probability, closed on the left: in log odds a twentieth of their size wide beyond .02, so
that scores of any scale are told apart. No bin lies in two tenths."""

N_BINS = len(PROBABILITY_EDGES) + 2
"""Bins of probability: the one that holds the label's threshold is split there."""

OUTLIER_EDGES = np.round(0.01 * np.sinh(np.linspace(-10, 10, 1001)), 9)
"""Inner edges of outlier scores' bins, of any scale: relative width of a fiftieth beyond .01."""


@dataclass(frozen=True)
class SketchPlan:
    """What is measured, and with which fixed settings.

    Attributes:
        features: the map of the mean embedding.
        model, fingerprint: whose embeddings and probabilities.
        prompts: what made the probabilities, in a few words; "" for none.
        labels: whose probabilities are binned; none where the model gives no probabilities.
        thresholds: of each label, the least probability that is called.
        outlier_scores: names of the outlier scores that are binned, larger = more outlying.
        n_folds: into how many folds patients are dealt, by a hash of their names; few patients are dealt into a half or
            a quarter of them.
    """

    features: RandomFeatures
    model: str
    fingerprint: str
    prompts: str = ""
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    outlier_scores: tuple[str, ...] = ()
    n_folds: int = N_FOLDS

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.thresholds) or self.n_folds < 1:
            raise InputError(
                f"{len(self.labels)} labels, {len(self.thresholds)} thresholds and {self.n_folds} folds: expected a "
                "threshold for each label, and at least one fold."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "features": self.features.to_json(),
            "model": self.model,
            "fingerprint": self.fingerprint,
            "prompts": self.prompts,
            "labels": list(self.labels),
            "thresholds": list(self.thresholds),
            "outlier_scores": list(self.outlier_scores),
            "n_folds": self.n_folds,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SketchPlan:
        """Return the plan that `to_json` told of; raises InputError."""
        return cls(
            features=RandomFeatures.from_json(value["features"]),
            model=str(value["model"]),
            fingerprint=str(value["fingerprint"]),
            prompts=str(value["prompts"]),
            labels=tuple(map(str, value["labels"])),
            thresholds=tuple(map(float, value["thresholds"])),
            outlier_scores=tuple(map(str, value["outlier_scores"])),
            n_folds=int(value["n_folds"]),
        )


def fold_counts(n_folds: int) -> tuple[int, ...]:
    """Return the numbers of folds that a sketch can have: each half of the one before, then 1."""
    counts = [n_folds]
    while counts[-1] % 2 == 0:
        counts.append(counts[-1] // 2)
    return tuple(counts) if counts[-1] == 1 else (*counts, 1)


def folds_of(patients: Sequence[str], n_folds: int) -> NDArray[np.int64]:
    """Return each patient's fold, (n,): the same for a name wherever it is met, and as good as random."""
    digests = (hashlib.sha256(f"fold\0{name}".encode("utf-8", "surrogateescape")).digest() for name in patients)
    return np.array([int.from_bytes(digest[:8], "big") % n_folds for digest in digests], dtype=np.int64)


def walls_of(threshold: float) -> NDArray[np.float64]:
    """Return the inner edges of a label's bins of probability: `PROBABILITY_EDGES` and its threshold, (N_BINS - 1,).

    A probability's bin is the number of walls that are not above it: no bin lies on both sides of the threshold.
    """
    return np.sort(np.append(PROBABILITY_EDGES, threshold))
