"""How far two sources of labels agree on the same images: shares of agreement, Cohen's kappa, each way's overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import VarianceFunction, effective_size, score_interval
from medvlm_probe.metrics.proportions import f1, proportion
from medvlm_probe.types import Estimate, FloatArray, IntArray

KAPPA_MIN_GROUPS = 15
"""Below so many groups that either source calls positive, or negative, an interval of kappa is marked unreliable."""


@dataclass(frozen=True)
class LabelAgreement:
    """Two sources, a and b, on one label; all estimates are on the images that both know.

    Attributes:
        n_both, n_only_a, n_only_b, n_neither: images by who calls them positive.
        n_unknown: images that either source leaves unknown.
        agreement: share of images on which they say the same, in [0, 1].
        kappa: agreement beyond that of independent sources with the same frequencies, in [-1, 1]; 0 is chance.
        positive_agreement: 2 n_both / (positives of a + positives of b), in [0, 1]: the F1 of either against the other.
        negative_agreement: the same of what they call negative.
        a_of_b, b_of_a: share of the positives of b that a calls positive too, and the other way round.
    """

    n_both: int
    n_only_a: int
    n_only_b: int
    n_neither: int
    n_unknown: int
    agreement: Estimate
    kappa: Estimate
    positive_agreement: Estimate
    negative_agreement: Estimate
    a_of_b: Estimate
    b_of_a: Estimate


def label_agreement(a: ArrayLike, b: ArrayLike, groups: IntArray) -> LabelAgreement:
    """Return how far two sources agree.

    Args:
        a, b: 1, 0 or NaN, (n,).
        groups: (n,).

    Raises:
        InputError: shapes that do not fit.

    Source: Cohen 1960 (kappa); Cicchetti and Feinstein 1990 (positive and negative agreement).
    """
    one, other, codes = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), np.asarray(groups)
    if one.ndim != 1 or one.shape != other.shape or codes.shape != one.shape:
        raise InputError(f"Labels {one.shape} and {other.shape} and groups {codes.shape} must be (n,) alike.")
    known = ~np.isnan(one) & ~np.isnan(other)
    x, y, codes = one[known] == 1, other[known] == 1, codes[known]
    return LabelAgreement(
        n_both=int((x & y).sum()),
        n_only_a=int((x & ~y).sum()),
        n_only_b=int((~x & y).sum()),
        n_neither=int((~x & ~y).sum()),
        n_unknown=int((~known).sum()),
        agreement=proportion(x == y, codes),
        kappa=cohens_kappa(x, y, codes),
        positive_agreement=f1(x, y, codes),
        negative_agreement=f1(~x, ~y, codes),
        a_of_b=proportion(x[y], codes[y]),
        b_of_a=proportion(y[x], codes[x]),
    )


def cohens_kappa(a: ArrayLike, b: ArrayLike, groups: IntArray) -> Estimate:
    """Return kappa of two sources without unknowns, NaN where both call everything the same.

    The interval is a score interval: leaving out each group scales the variance that a kappa would have at the
    observed frequencies.

    Args:
        a, b: bool (n,).
        groups: (n,).
    """
    x, y, codes = np.asarray(a, bool), np.asarray(b, bool), np.unique(np.asarray(groups), return_inverse=True)[1]
    n = len(x)
    cells = np.stack([np.bincount(codes, weights=mask) for mask in (x & y, x & ~y, ~x & y, ~x & ~y)])
    total = cells.sum(axis=1, keepdims=True)
    value = float(_kappa(total)[0])
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, cells.shape[1], "undefined: one kind of label only", False)
    rarer = min(len(np.unique(codes[mask])) for mask in (x | y, ~(x & y)))
    return score_interval(
        value,
        _kappa(total - cells),
        _working_variance(float(x.mean() + y.mean()) / 2, effective_size(codes)),
        n=n,
        bounds=(-1.0, 1.0),
        n_scarce=rarer,
        min_groups=KAPPA_MIN_GROUPS,
    )


def _kappa(cells: FloatArray) -> NDArray[np.float64]:
    """Return kappa from the counts (both, only a, only b, neither), (4, k)."""
    both, only_a, only_b, neither = cells
    n = np.maximum(cells.sum(axis=0), 1)
    p, q = (both + only_a) / n, (both + only_b) / n
    by_chance = p * q + (1 - p) * (1 - q)
    open_ = by_chance < 1
    kappa = ((both + neither) / n - by_chance) / np.where(open_, 1 - by_chance, 1.0)
    return np.asarray(np.where(open_, kappa, np.nan))


def _working_variance(frequency: float, size: float) -> VarianceFunction:
    """Return x -> the variance of (kappa + 1) / 2 at kappa = 2 x - 1, where both sources have the same frequency.

    Fleiss, Cohen and Everitt 1969. With the observed, unequal frequencies a kappa of 1 would be impossible, and the
    interval of sources that differ in a single image would end below it.
    """
    p = frequency
    by_chance = p * p + (1 - p) * (1 - p)

    def variance(x: FloatArray) -> FloatArray:
        kappa = 2 * np.asarray(x, dtype=np.float64) - 1
        agree = np.clip(kappa * (1 - by_chance) + by_chance, 0, 1)
        both = np.clip((agree - 1) / 2 + p, 0, p)
        neither = np.clip((agree + 1) / 2 - p, 0, 1 - p)
        terms = both * ((1 - by_chance) - 2 * p * (1 - agree)) ** 2
        terms = terms + neither * ((1 - by_chance) - 2 * (1 - p) * (1 - agree)) ** 2
        terms = terms + (1 - agree) ** 3 - (agree * by_chance - 2 * by_chance + agree) ** 2
        return np.asarray(np.maximum(terms, 0) / (4 * size * (1 - by_chance) ** 4))

    return variance
