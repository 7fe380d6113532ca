"""What `embed-dist` measures on a cohort's embeddings: distances by label and site, crowding, nearness across sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.pairwise import Space
from medvlm_probe.metrics.resampling import holm
from medvlm_probe.metrics.separability import (
    ClassDistances,
    CrossSiteDistances,
    Crowding,
    DistanceHistogram,
    LegacySeparability,
    class_distances,
    cross_site_distances,
    crowding,
    distance_histograms,
    legacy_separability,
)
from medvlm_probe.types import FloatArray, IntArray

N_NEIGHBORS = 10
N_PERMUTATIONS = 9_999
POOLED_STREAM, CROWDING_STREAM, LEGACY_STREAM, FIRST_SITE_STREAM = range(4)


@dataclass(frozen=True)
class DistanceAnalysis:
    """Everything `embed-dist` found.

    Attributes:
        pooled: one entry per label over all sites, permutations kept within sites.
        by_site: site to the same on its images alone; empty where the cohort has fewer than two sites.
        cross_site: each other site's positives against the reference site's positives and negatives.
        reference: the reference site, None without `cross_site`.
        crowding: which labels lie among each other's nearest neighbours, over all labels of the cohort.
        histograms: the distributions of the distances, for the labels asked for.
        legacy: the published study's separability of raw vectors, where asked for.
        space: "l2" (normalised vectors) or "raw".
    """

    pooled: tuple[ClassDistances, ...]
    by_site: dict[str, tuple[ClassDistances, ...]]
    cross_site: tuple[CrossSiteDistances, ...]
    reference: str | None
    crowding: Crowding
    histograms: tuple[DistanceHistogram, ...]
    legacy: LegacySeparability | None
    space: Space

    def to_json(self) -> dict[str, Any]:
        """Return everything but the histograms as JSON objects; undefined numbers are None."""
        return {
            "labels": [entry.to_json() for entry in self.pooled],
            "sites": [
                {
                    "site": site,
                    "labels": [entry.to_json() for entry in entries],
                    "cross_site": [entry.to_json() for entry in self.cross_site if entry.site == site],
                }
                for site, entries in self.by_site.items()
            ],
            "reference": self.reference,
            "space": self.space,
            "crowding": self.crowding.to_json(),
            "legacy": self.legacy.to_json() if self.legacy is not None else None,
        }


def analyse_distances(
    embeddings: FloatArray,
    targets: FloatArray,
    *,
    labels: Sequence[str],
    groups: IntArray,
    sites: NDArray[Any],
    chosen: Sequence[str] | None = None,
    reference: str | None = None,
    space: Space = "l2",
    legacy: bool = False,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> DistanceAnalysis:
    """Measure how far labels lie apart in an embedding space.

    Args:
        embeddings: image vectors before normalisation (n, d).
        targets: 1, 0 or NaN (n, L).
        labels: the L labels' names.
        groups: codes of the patients (n,).
        sites: the images' sites (n,), "" where not known.
        chosen: the labels to report; None for all. Crowding always looks at all of them.
        reference: site that the others are compared with; None for no comparison.
        space: compare L2-normalised vectors ("l2") or vectors as the model gives them ("raw").
        legacy: add the published study's own separability, which is always on raw vectors.
        n_permutations: of each test.
        seed: of the permutations; each part draws from a stream of its own.

    Raises:
        InputError: a reference in a cohort with fewer than two sites.
        UnknownNameError: a reference that is no site.
    """
    names = sorted(set(sites) - {""})
    if reference is not None and len(names) < 2:
        raise InputError(f"--reference {reference} needs a cohort with at least two sites; this one has {len(names)}.")
    if reference is not None and reference not in names:
        raise unknown_name("site", reference, names)
    columns = [list(labels).index(name) for name in (chosen or labels)]
    wanted = tuple(labels[column] for column in columns)
    values = targets[:, columns]

    def distances_of(rows: NDArray[np.bool_], stream: int) -> tuple[ClassDistances, ...]:
        return class_distances(
            embeddings[rows],
            values[rows],
            groups[rows],
            label_names=wanted,
            space=space,
            strata=sites[rows],
            n_neighbors=N_NEIGHBORS,
            n_permutations=n_permutations,
            rng=np.random.default_rng([seed, stream]),
        )

    everything = np.ones(len(embeddings), dtype=bool)
    by_site = (
        {name: distances_of(sites == name, FIRST_SITE_STREAM + k) for k, name in enumerate(names)}
        if len(names) > 1
        else {}
    )
    return DistanceAnalysis(
        pooled=distances_of(everything, POOLED_STREAM),
        by_site=_corrected_over_sites(by_site),
        cross_site=cross_site_distances(embeddings, values, sites, groups, reference, label_names=wanted, space=space)
        if reference is not None
        else (),
        reference=reference,
        crowding=crowding(
            embeddings,
            targets,
            groups,
            label_names=tuple(labels),
            n_neighbors=N_NEIGHBORS,
            strata=sites,
            n_permutations=n_permutations,
            rng=np.random.default_rng([seed, CROWDING_STREAM]),
            space=space,
        ),
        histograms=distance_histograms(embeddings, values, groups, label_names=wanted, space=space),
        legacy=legacy_separability(
            embeddings, targets, tuple(labels), groups, rng=np.random.default_rng([seed, LEGACY_STREAM])
        )
        if legacy
        else None,
        space=space,
    )


def _corrected_over_sites(by_site: dict[str, tuple[ClassDistances, ...]]) -> dict[str, tuple[ClassDistances, ...]]:
    """Correct the p-values of all labels at all sites as one family, since they are read as one table."""
    p_values = [entry.energy_distance.p_value for entries in by_site.values() for entry in entries]
    adjusted = iter(holm(np.array(p_values)))
    return {
        site: tuple(
            replace(entry, energy_distance=replace(entry.energy_distance, p_adjusted=float(next(adjusted))))
            for entry in entries
        )
        for site, entries in by_site.items()
    }
