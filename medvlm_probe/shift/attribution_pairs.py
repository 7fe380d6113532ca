"""Which pairs of acquisition transforms are worth the model's time: those whose changes, added up, lead to the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.shift.attribution_sums import Sample, family_of, kernel_means, sides, without_own
from medvlm_probe.shift.mmd import median_bandwidth
from medvlm_probe.shift.two_samples import two_samples

N_PAIRS = 3


def promising_pairs(
    reference: ArrayLike,
    site: ArrayLike,
    transformed: Mapping[str, ArrayLike],
    *,
    reference_groups: ArrayLike | None = None,
    site_groups: ArrayLike | None = None,
    rng: np.random.Generator,
    n_pairs: int = N_PAIRS,
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of transforms of two families that should bring the reference closest to the site.

    All pairs are compared, also those without the best single transform: of two changes that lead to the site together,
    either may lead away alone.

    A pair's vectors are guessed as the untouched ones plus what either transform adds to them, so no image goes through
    the model; only the pairs named here need to. Of each two families one pair is named, the closest first, and none
    that should be farther from the site than its better half. All patients decide which pairs are tried, so what a
    pair explains is a little flattered, unlike what a single transform explains.

    Args:
        reference, site, transformed, reference_groups, site_groups: as for `attribution.attribute_shift`.
        rng: draws the images behind the bandwidth.
        n_pairs: at most so many.

    Raises:
        InputError: vectors that do not fit.
    """
    samples = two_samples(reference, site, reference_groups, site_groups)
    bandwidth = median_bandwidth(samples.points, samples.groups, rng)
    _, other, view = sides(samples, reference, site)
    start = checked_embeddings(reference)
    added = {name: checked_embeddings(vectors) - start for name, vectors in transformed.items()}

    def left(names: Sequence[str]) -> float:
        return _moving_part(view(start + np.sum([added[name] for name in names], axis=0)), other, bandwidth)

    alone = {name: left([name]) for name in added}
    found: dict[tuple[str, str], tuple[float, tuple[str, str]]] = {}
    for pair in combinations(added, 2):
        families = (family_of(pair[0]), family_of(pair[1]))
        if families[0] == families[1]:
            continue
        value = left(pair)
        if value < min(alone[name] for name in pair) and value < found.get(families, (np.inf, pair))[0]:
            found[families] = (value, pair)
    return tuple(pair for _, pair in sorted(found.values())[:n_pairs])


def _moving_part(moved: Sample, other: Sample, bandwidth: float) -> float:
    """Return the squared MMD of two samples less what their second alone makes of it."""
    n = moved.n_groups
    within = without_own(kernel_means(moved, moved, bandwidth)).sum() / (n * (n - 1))
    return float(within - 2 * kernel_means(moved, other, bandwidth).mean())
