"""How much data an audit needs: labelled positives for a recall interval, and what difference it could have found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.proportions import EXACT_BELOW, clopper_pearson_interval, wilson_interval

MOST = 10_000_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SampleSize:
    """Labelled positives that a recall (or any proportion) needs.

    Attributes:
        positives: images with the finding.
        images: all images to be labelled for so many positives, at the given prevalence; None where none was given.
        half_width: of the interval at that many, on average over what is found.
    """

    positives: int
    images: int | None
    half_width: float


def positives_for_half_width(
    recall: float,
    *,
    half_width: float = 0.05,
    design_effect: float = 1.0,
    prevalence: float | None = None,
    level: float = 0.95,
) -> SampleSize:
    """Return how many labelled positives give a recall interval of a half-width.

    The interval is that of `metrics.proportions`: Wilson's, below 20 effective positives Clopper-Pearson's; its half
    width is half the distance of its bounds. The expected number of positives found may be fractional.

    Args:
        recall: expected, in [0, 1]; .5 is the worst case.
        half_width: in (0, .5).
        design_effect: variance over that of independent images, at least 1 (`design_effect_of`).
        prevalence: of the finding among the images that would be labelled, in (0, 1].
        level: coverage, two-sided.

    Raises:
        InputError: a number outside its range.
    """
    if not (0 <= recall <= 1 and 0 < half_width < 0.5 and design_effect >= 1 and 0 < level < 1):
        raise InputError(
            f"Recall {recall}, half-width {half_width}, design effect {design_effect}, level {level}: expected "
            "a recall in [0, 1], a half-width in (0, .5), a design effect of at least 1 and a level in (0, 1)."
        )
    if prevalence is not None and not 0 < prevalence <= 1:
        raise InputError(f"A prevalence of {prevalence}: expected a number in (0, 1].")
    low, high = 1, 2
    while _half_width(recall, high / design_effect, level) > half_width and high < MOST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _half_width(recall, middle / design_effect, level) > half_width else (low, middle)
    images = None if prevalence is None else math.ceil(round(high / prevalence, 9))
    return SampleSize(high, images, _half_width(recall, high / design_effect, level))


def _half_width(recall: float, size: float, level: float) -> float:
    interval = clopper_pearson_interval if size < EXACT_BELOW else wilson_interval
    low, high = interval(np.array(recall * size), np.array(size), level=level)
    return float(high - low) / 2


def design_effect_of(images_per_group: float, correlation: float) -> float:
    """Return 1 + (m - 1) correlation: how much wider groups of m images make the variance than independent images.

    Args:
        images_per_group: at least 1.
        correlation: of success within a group, in [0, 1].

    Source: Kish 1965.
    """
    if images_per_group < 1 or not 0 <= correlation <= 1:
        raise InputError(
            f"{images_per_group} images a group and a correlation of {correlation}: expected at least 1, and [0, 1]."
        )
    return 1 + (images_per_group - 1) * correlation


def power_of_difference(
    reference: float, site: float, n_reference: float, n_site: float, *, level: float = 0.05
) -> float:
    """Return the chance that a two-sided test of two proportions finds a difference, in [0, 1].

    Args:
        reference, site: the proportions, in [0, 1].
        n_reference, n_site: effective images of each (images over design effect), above 0.
        level: of the test.

    Source: Fleiss, Levin and Paik 2003, chapter 4 (pooled variance under the null, separate ones otherwise).
    """
    pooled = (n_reference * reference + n_site * site) / (n_reference + n_site)
    null = math.sqrt(pooled * (1 - pooled) * (1 / n_reference + 1 / n_site))
    spread = math.sqrt(reference * (1 - reference) / n_reference + site * (1 - site) / n_site)
    reach = float(special.ndtri(1 - level / 2)) * null
    difference = abs(site - reference)
    if spread == 0:
        return float(difference > reach)
    return float(special.ndtr((difference - reach) / spread) + special.ndtr((-difference - reach) / spread))


@dataclass(frozen=True)
class DetectableDifference:
    """The least changes of a proportion that an audit would find; NaN where none in that direction could be found.

    Attributes:
        fall, rise: how far below or above the reference's proportion the site's must lie.
        power: with which they are found.
    """

    fall: float
    rise: float
    power: float


def detectable_difference(
    reference: float, n_reference: float, n_site: float, *, power: float = 0.8, level: float = 0.05
) -> DetectableDifference:
    """Return what difference of two proportions this audit could have detected.

    Args:
        reference: the reference's proportion, such as its recall, in [0, 1].
        n_reference, n_site: effective images of each (positives over design effect), above 0.
        power: chance of finding it, in (level, 1).
        level: of the two-sided test.

    Raises:
        InputError: a number outside its range.
    """
    if not (0 <= reference <= 1 and n_reference > 0 and n_site > 0 and 0 < level < power < 1):
        raise InputError(
            f"Proportion {reference} of {n_reference} and {n_site} images, power {power}, level {level}: expected a "
            "proportion in [0, 1], images above 0 and 0 < level < power < 1."
        )
    return DetectableDifference(
        fall=reference - _found(reference, 0.0, n_reference, n_site, power, level),
        rise=_found(reference, 1.0, n_reference, n_site, power, level) - reference,
        power=power,
    )


def _found(reference: float, edge: float, n_reference: float, n_site: float, power: float, level: float) -> float:
    """Return the proportion nearest to the reference's, towards an edge, that is found with the power."""
    if power_of_difference(reference, edge, n_reference, n_site, level=level) < power or edge == reference:
        return math.nan
    hidden, found = reference, edge
    for _ in range(60):
        middle = (hidden + found) / 2
        enough = power_of_difference(reference, middle, n_reference, n_site, level=level) >= power
        hidden, found = (hidden, middle) if enough else (middle, found)
    return found
