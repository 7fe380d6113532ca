"""Are a site's images unlike the reference's: separation of the two, thresholds, and a quantile for each image.

Everything here takes scores of `outlier_scores` (or any others) of which larger means more outlying. The reference's
images must not be those that the score was fitted on: hold out whole groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import checked_groups, label_performance
from medvlm_probe.metrics.intervals import effective_size
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.two_sides import bounded_estimate, checked_column, harmonic_size, leave_folds_out
from medvlm_probe.types import Estimate, FloatArray, IntArray

METHOD_FALSE = "score interval, groups of both sides left out by folds"


@dataclass(frozen=True)
class OutlierPerformance:
    """How well a score tells a site's images from the reference's.

    Attributes:
        auroc: chance that a site's image scores above a reference image, in [0, 1], .5 where nothing differs.
        aupr_site: average precision with the site's images as positives, found from the highest scores on; by chance
            their share.
        aupr_reference: the same with the reference's as positives, from the lowest scores on.
        fpr_at_95: share of the site's images that pass where 95 % of the reference's pass, in [0, 1]; .95 by chance,
            0 where all of them are told apart.
        site_share: the site's share of all images: the chance level of `aupr_site`.
    """

    auroc: Estimate
    aupr_site: Estimate
    aupr_reference: Estimate
    fpr_at_95: Estimate
    site_share: float


def outlier_performance(
    reference_scores: ArrayLike,
    site_scores: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    passing: float = 0.95,
) -> OutlierPerformance:
    """Return how well a score tells a site's images from held-out reference images.

    Args:
        reference_scores: of reference images that the score was not fitted on, (n,).
        site_scores: (m,).
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        rng: deals groups to folds, for the interval of `fpr_at_95`.
        passing: share of the reference's images that shall pass.

    Raises:
        InputError: shapes or values that do not fit.

    Source: Hendrycks and Gimpel 2017 (AUROC, AUPR both ways); Liang et al. 2018 (FPR at 95 % TPR, in-distribution
        images being the positives).
    """
    reference, site, own, other = _two_sides(reference_scores, site_scores, reference_groups, site_groups)
    scores = np.concatenate([reference, site])
    is_site = np.repeat([0.0, 1.0], [len(reference), len(site)])
    groups = np.concatenate([own, other + own.max() + 1])
    (by_site,) = label_performance(is_site[:, None], scores[:, None], groups, label_names=["site"])
    (by_reference,) = label_performance(1 - is_site[:, None], -scores[:, None], groups, label_names=["reference"])

    def passed(kept_reference: NDArray[np.bool_], kept_site: NDArray[np.bool_]) -> FloatArray:
        threshold = np.quantile(reference[kept_reference], passing, method="inverted_cdf")
        return np.array([(site[kept_site] <= threshold).mean()])

    found = leave_folds_out(passed, own, other, rng=rng)
    size = harmonic_size(effective_size(own), effective_size(other))
    return OutlierPerformance(
        auroc=by_site.auroc,
        aupr_site=by_site.average_precision,
        aupr_reference=by_reference.average_precision,
        fpr_at_95=bounded_estimate(found, 0, size=size, method=METHOD_FALSE),
        site_share=len(site) / len(scores),
    )


@dataclass(frozen=True)
class OutlierThreshold:
    """A threshold chosen on one part of the reference: images above it are called outliers.

    Attributes:
        value: infinite where the reference has too few groups to promise so low a share.
        share: the share of new reference images that lies above it, at most.
        n_groups: groups of the reference behind it.
    """

    value: float
    share: float
    n_groups: int


def choose_threshold(
    reference_scores: ArrayLike, reference_groups: IntArray, *, share: float = 0.05, rng: np.random.Generator
) -> OutlierThreshold:
    """Return the threshold above which at most a share of new reference images lies, on average over references.

    The ceil((G + 1) (1 - share))-th smallest score of one image drawn from each of G groups, so that correlated images
    of one patient do not count as several.

    Args:
        reference_scores: of images that neither fitted the score nor serve the result, (n,).
        reference_groups: (n,).
        share: in (0, 1).
        rng: draws one image of each group.

    Source: split conformal prediction (Vovk et al. 2005; Papadopoulos et al. 2002).
    """
    if not 0 < share < 1:
        raise InputError(f"A share of {share}: expected a number between 0 and 1.")
    one_each = np.sort(_one_per_group(reference_scores, reference_groups, rng))
    rank = math.ceil(round((len(one_each) + 1) * (1 - share), 9))
    value = float(one_each[rank - 1]) if rank <= len(one_each) else math.inf
    return OutlierThreshold(value, share, len(one_each))


def share_above(threshold: OutlierThreshold, site_scores: ArrayLike, site_groups: IntArray) -> Estimate:
    """Return the share of a site's images that the threshold calls outliers, in [0, 1]."""
    site = checked_column(site_scores, None, "Site scores")
    return proportion(site > threshold.value, checked_groups(site_groups, len(site)))


def conformal_p_values(
    reference_scores: ArrayLike, site_scores: ArrayLike, reference_groups: IntArray, *, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return for each image the share of held-out reference images that are as outlying, in (0, 1], (m,).

    p = (1 + #{reference >= score}) / (1 + G) over one image of each of G reference groups: for a new patient of the
    reference's kind P(p <= a) <= a. Small p-values are outliers; over many images, correct them.

    Args:
        reference_scores: of images that the score was not fitted on, (n,).
        site_scores: (m,).
        reference_groups: (n,).
        rng: draws one image of each group.

    Source: Vovk et al. 2005; Bates et al. 2023 (testing for outliers).
    """
    site = checked_column(site_scores, None, "Site scores")
    one_each = np.sort(_one_per_group(reference_scores, reference_groups, rng))
    as_outlying = len(one_each) - np.searchsorted(one_each, site, side="left")
    return np.asarray((1 + as_outlying) / (1 + len(one_each)), dtype=np.float64)


def _one_per_group(scores: ArrayLike, groups: IntArray, rng: np.random.Generator) -> NDArray[np.float64]:
    values = checked_column(scores, None, "Reference scores")
    codes = checked_groups(groups, len(values))
    shuffled = rng.permutation(len(values))
    return values[shuffled[np.unique(codes[shuffled], return_index=True)[1]]]


def _two_sides(
    reference_scores: ArrayLike, site_scores: ArrayLike, reference_groups: IntArray, site_groups: IntArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    reference = checked_column(reference_scores, None, "Reference scores")
    site = checked_column(site_scores, None, "Site scores")
    return (
        reference,
        site,
        checked_groups(reference_groups, len(reference)),
        checked_groups(site_groups, len(site)),
    )
