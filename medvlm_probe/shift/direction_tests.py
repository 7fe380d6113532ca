"""Kolmogorov-Smirnov tests along principal directions: in which directions of the embedding space a site differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvlm_probe.shift.distribution_distance import ROUNDING, SortedNumbers, uniform_reach
from medvlm_probe.shift.frechet import principal_coordinates
from medvlm_probe.shift.two_samples import ShiftTest, SitePermutations, TwoSamples, against_null
from medvlm_probe.types import Estimate

N_DIRECTIONS = 16
_NUMBERS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class DirectionShift:
    """How one principal direction differs.

    Attributes:
        direction: from 0, largest variance first.
        distance: Kolmogorov-Smirnov distance, in [0, 1]; all intervals hold together.
        p_adjusted: against the largest distance of any direction under permutation.
    """

    direction: int
    distance: Estimate
    p_adjusted: float


def direction_test(samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator) -> ShiftTest:
    """Test by the largest Kolmogorov-Smirnov distance along the 16 leading principal directions.

    The effect is that distance, in [0, 1]. See `direction_shifts` for each direction.
    """
    return direction_shifts(samples, permutations, rng)[0]


def direction_shifts(
    samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator, *, n_directions: int = N_DIRECTIONS
) -> tuple[ShiftTest, tuple[DirectionShift, ...]]:
    """Return the test by the largest distance, and what each direction shows.

    The directions are those of both samples together. The reference's own would fit its chance correlations: along
    them the reference looks wider than any other sample of its own site, and the test would reject too often.

    Args:
        samples: both samples.
        permutations: of their groups.
        rng: draws the samples behind the intervals.
        n_directions: most directions.
    """
    coordinates, share = principal_coordinates(samples.points, n_directions)
    columns = [SortedNumbers.of(numbers, samples.groups) for numbers in coordinates.T]
    distances = np.array([float(column.distances(samples.of_site[None])[0]) for column in columns])
    size = max(1, _NUMBERS_AT_ONCE // len(samples.groups))
    blocks = (
        np.stack([column.distances(masks) for column in columns]).max(axis=0) for masks in permutations.blocks(size)
    )
    null = against_null(float(distances.max()), blocks, relative_tolerance=ROUNDING)
    reach = uniform_reach(columns, samples.of_site, rng)
    n_groups = min(samples.n_groups)
    shifts = tuple(
        DirectionShift(
            k,
            distance_estimate(float(distance), reach, n=len(samples.groups), n_groups=n_groups, tests=len(columns)),
            float((1 + (null.values >= distance * (1 - ROUNDING)).sum()) / (1 + len(null.values))),
        )
        for k, distance in enumerate(distances)
    )
    worst = shifts[int(np.argmax(distances))]
    settings = f"{len(columns)} directions ({share:.0%} of the variance), most along direction {worst.direction + 1}"
    test = ShiftTest(worst.distance.value, worst.distance, null.p_value, null.quantiles, len(null.values), settings)
    return test, shifts


def distance_estimate(distance: float, reach: float, *, n: int, n_groups: int, tests: int = 1) -> Estimate:
    """Return a Kolmogorov-Smirnov distance with its interval, `reach` to both sides and within [0, 1].

    Args:
        distance: in [0, 1].
        reach: by `uniform_reach`.
        n: images.
        n_groups: groups of the smaller sample; unreliable under ten.
        tests: distances that the reach holds for together.
    """
    method = "Kolmogorov-Smirnov distance, bootstrap band" + (f" over {tests} directions" if tests > 1 else "")
    low, high = max(0.0, distance - reach), min(1.0, distance + reach)
    return Estimate(distance, low, high, n, n_groups, method, reliable=n_groups >= 10)
