"""The energy distance between two samples of patients, and its permutation test.

Source: Székely and Rizzo 2013, "Energy statistics: a class of statistics based on distances".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.shift.group_kernel import discrepancy_estimate, group_kernel, kernel_sums, null_discrepancies
from medvlm_probe.shift.mmd import EXACT_GROUPS
from medvlm_probe.shift.two_samples import ShiftTest, SitePermutations, TwoSamples, against_null, site_permutations


def energy_test(samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator) -> ShiftTest:
    """Test by the energy distance 2 E|x - y| - E|x - x'| - E|y - y'|, which needs no bandwidth.

    The effect is the distance itself, free from bias, in the unit of the embeddings (at most 2 for unit vectors).
    Above 10,000 groups so many are drawn at random, in the samples' proportion, with permutations of their own.

    Args:
        samples: both samples.
        permutations: of their groups.
        rng: draws groups where there are too many.
    """
    if len(samples.of_site) > EXACT_GROUPS:
        samples = samples.take(_drawn_groups(samples, rng))
        permutations = site_permutations(samples.of_site, len(permutations), rng)
    kernel = group_kernel(samples, _negative)
    unit = samples.points.unit
    effect = discrepancy_estimate(
        kernel_sums(kernel, samples.of_site), samples.of_site, n=len(samples.groups), unit=unit, name="energy distance"
    )
    null_values = (unit * block for block in null_discrepancies(kernel, permutations, samples.n_groups[1]))
    null = against_null(effect.value, null_values)
    settings = f"{samples.points.space} space, {len(samples.of_site)} groups"
    return ShiftTest(effect.value, effect, null.p_value, null.quantiles, len(null.values), settings)


def _negative(values: NDArray[np.float32]) -> None:
    np.negative(values, out=values)


def _drawn_groups(samples: TwoSamples, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which groups take part, (G,): at least a tenth of the places go to the smaller sample, if it fills them.

    How many come from each sample depends on the samples' sizes alone, so a permutation test of these groups is exact.
    """
    n_reference, n_site = samples.n_groups
    share = max(EXACT_GROUPS // 10, EXACT_GROUPS * min(n_reference, n_site) // (n_reference + n_site))
    smaller = min(n_reference, n_site, share)
    kept = np.zeros(len(samples.of_site), dtype=bool)
    for mask, size in ((samples.of_site, n_site), (~samples.of_site, n_reference)):
        places = smaller if size == min(n_reference, n_site) else EXACT_GROUPS - smaller
        kept[rng.choice(np.flatnonzero(mask), min(size, places), replace=False)] = True
    return kept
