"""What looks like performance without looking at an image: chance, the prior alone, predict-all, always "No finding".

A model that does not beat these has shown nothing. On labels as skewed as a hospital's, ranking the labels by how
frequent they are gives an LRAP near .75, and calling everything normal an exact match above .6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import exact_match
from medvlm_probe.metrics.macro import macro_f1
from medvlm_probe.metrics.ranking import RankingRows, checked_ranking, ranking_means, ranking_rows
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

NO_FINDING = "no_finding"
BASELINES: dict[str, str] = {
    "chance": "random scores: the expected value",
    "prior_only": "labels ranked by their frequency on another split; no image is used",
    "predict_all": "every label present in every image",
    "always_no_finding": 'only "No finding" in every image',
}
"""The baselines' names and what each one does."""


@dataclass(frozen=True)
class Baseline:
    """One baseline on a cohort's labels. Undefined where it does not rank, or does not decide: NaN with the reason.

    Attributes:
        name: of `BASELINES`.
        ranking: LRAP, coverage error and ranking loss.
        exact_match: share of images with every label right.
        macro_f1: unweighted mean of the labels' F1, a label without a positive and a prediction counting 0.
    """

    name: str
    ranking: dict[str, Estimate]
    exact_match: Estimate
    macro_f1: float


def baselines(
    labels: ArrayLike, groups: IntArray, *, label_names: Sequence[str], prior: ArrayLike | None = None
) -> tuple[Baseline, ...]:
    """Return the four baselines of `BASELINES` on these labels.

    Args:
        labels: 1, 0 or NaN (not known), (n, L).
        groups: (n,).
        label_names: L names; without `no_finding` among them that baseline is undefined.
        prior: frequency of each label on a split that these images are not of, (L,); None leaves it undefined.

    Raises:
        InputError: shapes that do not fit.
    """
    y = checked_ranking(labels, np.zeros(np.shape(labels)))[0]
    if len(label_names) != y.shape[1]:
        raise InputError(f"{len(label_names)} label names for {y.shape[1]} columns.")
    everything = np.ones(y.shape, dtype=bool)
    only_normal = np.broadcast_to(np.array([name == NO_FINDING for name in label_names]), y.shape)
    ranked: dict[str, RankingRows | None] = {
        "chance": chance_rows(y),
        "prior_only": None if prior is None else prior_rows(y, prior),
        "predict_all": None,
        "always_no_finding": None,
    }
    decided: dict[str, BoolArray | None] = {
        "chance": None,
        "prior_only": None,
        "predict_all": everything,
        "always_no_finding": only_normal if only_normal.any() else None,
    }
    return tuple(_baseline(name, y, groups, ranked[name], decided[name]) for name in BASELINES)


def chance_rows(labels: FloatArray) -> RankingRows:
    """Return the expected ranking metrics of each row under scores without ties that know nothing.

    With P of L labels positive, a positive at rank r (each equally likely) has 1 + (P - 1)(r - 1) / (L - 1) positives
    at or above it in expectation; the deepest of P draws without replacement from 1..L lies at P (L + 1) / (P + 1).
    """
    known = ~np.isnan(labels).any(axis=1)
    n_labels = labels.shape[1]
    p = np.where(known, np.nansum(labels, axis=1), np.nan)
    p = np.where(p > 0, p, np.nan)
    ranks = np.arange(1, n_labels + 1)
    at_first = (1 / ranks).mean()
    per_other = ((ranks - 1) / ranks).mean() / max(n_labels - 1, 1)
    return RankingRows(
        average_precision=at_first + (p - 1) * per_other,
        coverage=p * (n_labels + 1) / (p + 1),
        loss=np.where(p < n_labels, 0.5, np.nan),
        n_unknown=int((~known).sum()),
    )


def prior_rows(labels: FloatArray, prior: ArrayLike) -> RankingRows:
    """Return the ranking metrics of each row when labels are ranked by `prior`, (L,), whatever the image."""
    frequency = np.asarray(prior, dtype=np.float64)
    if frequency.shape != labels.shape[1:]:
        raise InputError(f"A prior of shape {frequency.shape} given for {labels.shape[1]} labels.")
    return ranking_rows(labels, np.broadcast_to(frequency, labels.shape))


def _baseline(
    name: str, y: FloatArray, groups: IntArray, ranked: RankingRows | None, decided: BoolArray | None
) -> Baseline:
    undefined = Estimate(math.nan, math.nan, math.nan, 0, 0, "undefined for this baseline", reliable=False)
    ranking = dict.fromkeys(("label_ranking_average_precision", "coverage_error", "ranking_loss"), undefined)
    if ranked is not None:
        ranking = ranking_means(ranked, groups, y.shape[1])
        if name == "chance":
            half = ranking["ranking_loss"]
            ranking["ranking_loss"] = replace(half, low=half.value, high=half.value, method="exact")
    if decided is None:
        return Baseline(name, ranking, undefined, math.nan)
    return Baseline(name, ranking, exact_match(y, decided, groups), macro_f1(y, decided))
