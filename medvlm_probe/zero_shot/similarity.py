"""Image-text similarity: cosines of positives against negatives, the modality gap, and what clusters follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.metrics.clustering import N_STARTS, ClusterAgreement, cluster_agreements, k_means
from medvlm_probe.metrics.modality_gap import modality_gap
from medvlm_probe.metrics.overlap import Overlap, overlaps
from medvlm_probe.metrics.resampling import holm
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, finite_or_none
from medvlm_probe.zero_shot.text_embeddings import LabelDirections, unit_rows

N_PERMUTATIONS = 9_999
LABEL_SETS = "label sets"


@dataclass(frozen=True, eq=False)
class LabelOverlap:
    """One label at one site ("" is all of them), and Holm's p-value among the pooled ones, or among all at sites."""

    label: str
    site: str
    found: Overlap
    p_adjusted: float


@dataclass(frozen=True)
class TargetAgreement:
    """What clusters are compared with (`view`, `site`, `label sets` or a label), the result and Holm's p-values.

    Each index has its own family over the targets.
    """

    target: str
    found: ClusterAgreement
    p_rand_adjusted: float
    p_information_adjusted: float


@dataclass(frozen=True, eq=False)
class SimilarityAnalysis:
    """What `zero-shot --similarity` found.

    Attributes:
        overlaps: of the cosines of each label's positives and negatives, pooled ("") and by site.
        gaps: site ("" is all) to the distance between mean image and mean text.
        clusters: k-means of the images against each target, k being the target's number of categories (of labels for
            the label sets).
        n_texts: label directions behind the mean text. n_starts: of each k-means. seed: of starts and permutations.
    """

    overlaps: tuple[LabelOverlap, ...]
    gaps: Mapping[str, Estimate]
    clusters: tuple[TargetAgreement, ...]
    n_texts: int
    n_starts: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON files and `--json` hold under `similarity`."""
        return {
            "overlaps": [
                {
                    "label": entry.label,
                    "site": entry.site,
                    "n_positive": entry.found.n_positive,
                    "n_negative": entry.found.n_negative,
                    "overlap": entry.found.estimate.to_json(),
                    "p_value": finite_or_none(entry.found.p_value),
                    "p_adjusted": finite_or_none(entry.p_adjusted),
                    "chance": [finite_or_none(bound) for bound in entry.found.chance],
                }
                for entry in self.overlaps
            ],
            "modality_gap": self.gaps[""].to_json(),
            "modality_gap_by_site": {site: gap.to_json() for site, gap in self.gaps.items() if site},
            "n_texts": self.n_texts,
            "clusters": [
                {
                    "target": entry.target,
                    **entry.found.to_json(),
                    "p_rand_adjusted": finite_or_none(entry.p_rand_adjusted),
                    "p_information_adjusted": finite_or_none(entry.p_information_adjusted),
                }
                for entry in self.clusters
            ],
            "k_means": {"n_starts": self.n_starts, "seed": self.seed, "space": "l2"},
        }


def analyse_similarity(
    vectors: NDArray[np.floating],
    cohort: Cohort,
    directions: LabelDirections,
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> SimilarityAnalysis:
    """Return how images and texts lie to each other.

    Cosines are those of images with the mean direction of a label's positive prompts, whatever kind of score is shown
    elsewhere. The mean text is the mean of those directions.

    Args:
        vectors: image embeddings before normalisation, (n, D), in the order of the cohort.
        cohort: names labels, sites, views and patients.
        directions: of the labels that are looked at.
        n_permutations: of each test.
        seed: of permutations and clusters.
    """
    units = unit_rows(vectors).astype(np.float64)
    cosines = units @ directions.positive.T.astype(np.float64)
    y, groups, sites = cohort.targets(directions.labels), cohort.groups(), cohort.sites()
    parts: dict[str, BoolArray] = {"": np.ones(len(units), dtype=bool)}
    names = sorted(set(sites.tolist()) - {""})
    if len(names) > 1:
        parts |= {name: sites == name for name in names}
    gaps = {site: modality_gap(units[rows], directions.positive, groups[rows]) for site, rows in parts.items()}
    return SimilarityAnalysis(
        overlaps=_overlaps(cosines, y, groups, sites, directions.labels, parts, n_permutations, seed),
        gaps=gaps,
        clusters=_clusters(units, cohort, directions.labels, y, groups, sites, n_permutations, seed),
        n_texts=len(directions.labels),
        n_starts=N_STARTS,
        seed=seed,
    )


def _overlaps(
    cosines: FloatArray,
    y: FloatArray,
    groups: IntArray,
    sites: NDArray[Any],
    labels: Sequence[str],
    parts: Mapping[str, BoolArray],
    n_permutations: int,
    seed: int,
) -> tuple[LabelOverlap, ...]:
    """Return each label's overlap pooled and at each site, label by label; both are families of tests of their own."""
    found: dict[str, list[Overlap]] = {}
    for place, (site, rows) in enumerate(parts.items()):
        rng = np.random.default_rng([seed, 0, place])
        found[site] = list(
            overlaps(cosines[rows], y[rows], groups[rows], strata=sites[rows], n_permutations=n_permutations, rng=rng)
        )
    names = [site for site in parts if site]
    pooled = holm(np.array([one.p_value for one in found[""]]))
    at_sites = holm(np.array([one.p_value for site in names for one in found[site]])).reshape(len(names), len(labels))
    adjusted = {"": pooled} | dict(zip(names, at_sites, strict=True))
    return tuple(
        LabelOverlap(label, site, found[site][k], float(adjusted[site][k]))
        for k, label in enumerate(labels)
        for site in parts
    )


def _clusters(
    units: FloatArray,
    cohort: Cohort,
    labels: Sequence[str],
    y: FloatArray,
    groups: IntArray,
    sites: NDArray[Any],
    n_permutations: int,
    seed: int,
) -> tuple[TargetAgreement, ...]:
    """Return the agreement with every target of at least two categories.

    Targets that are known of the same images share their clusters, where k is the same, and their permutations.
    """
    targets = list(_targets(cohort, labels, y, sites))
    alike: dict[tuple[int, bytes, bool], list[int]] = {}
    for place, (target, categories, k) in enumerate(targets):
        alike.setdefault((k, (categories >= 0).tobytes(), target == "site"), []).append(place)
    found: dict[int, ClusterAgreement] = {}
    for (k, _, of_groups), places in alike.items():
        known = targets[places[0]][1] >= 0
        agreements = cluster_agreements(
            k_means(units[known], k, seed=seed),
            np.stack([targets[place][1][known] for place in places], axis=1),
            groups[known],
            strata=None if of_groups else sites[known],
            of_groups=of_groups,
            n_permutations=n_permutations,
            rng=np.random.default_rng([seed, 1, places[0]]),
        )
        found |= dict(zip(places, agreements, strict=True))
    everyone = range(len(targets))
    rand = holm(np.array([found[place].p_rand for place in everyone]))
    information = holm(np.array([found[place].p_information for place in everyone]))
    return tuple(
        TargetAgreement(targets[place][0], found[place], float(rand[place]), float(information[place]))
        for place in everyone
    )


def _targets(
    cohort: Cohort, labels: Sequence[str], y: FloatArray, sites: NDArray[Any]
) -> Iterator[tuple[str, IntArray, int]]:
    """Yield what clusters are compared with: name, category codes (n,) with -1 where not known, and k."""
    views = cohort.table["view"].fillna("").to_numpy(dtype=str) if "view" in cohort.table else np.full(len(cohort), "")
    for target, texts in (("site", sites), ("view", views)):
        codes = pd.factorize(pd.Series(texts).mask(texts == ""), sort=True)[0]
        n_categories = int(codes.max(initial=-1)) + 1
        if 2 <= n_categories <= (codes >= 0).sum():
            yield target, codes, n_categories
    known = ~np.isnan(y).any(axis=1)
    if len(labels) > 2 and known.sum() > len(labels):
        sets = np.full(len(y), -1, dtype=np.int64)
        sets[known] = np.unique(y[known], axis=0, return_inverse=True)[1].ravel()
        if sets.max() > 0:
            yield LABEL_SETS, sets, len(labels)
    for k, label in enumerate(labels):
        codes = np.where(np.isnan(y[:, k]), -1, y[:, k] == 1).astype(np.int64)
        if (codes == 1).any() and (codes == 0).any():
            yield label, codes, 2


def overlap_table(analysis: SimilarityAnalysis) -> pd.DataFrame:
    """Return one row per label and site ("" for all): the overlap with its interval, counts, p-value and null."""
    return pd.DataFrame(
        [
            {
                "site": entry.site,
                "label": entry.label,
                "value": entry.found.estimate.value,
                "low": entry.found.estimate.low,
                "high": entry.found.estimate.high,
                "n_groups": entry.found.estimate.n_groups,
                "reliable": entry.found.estimate.reliable,
                "n_positive": entry.found.n_positive,
                "n_negative": entry.found.n_negative,
                "p_value": entry.found.p_value,
                "p_adjusted": entry.p_adjusted,
                "chance_low": entry.found.chance[0],
                "chance_high": entry.found.chance[1],
            }
            for entry in analysis.overlaps
        ]
    )


def density_table(analysis: SimilarityAnalysis) -> pd.DataFrame:
    """Return site, label, kind (positive, negative), cosine and density: the curves that figures draw."""
    parts = [
        pd.DataFrame(
            {
                "site": entry.site,
                "label": entry.label,
                "kind": kind,
                "cosine": entry.found.grid,
                "density": getattr(entry.found, kind),
            }
        )
        for entry in analysis.overlaps
        for kind in ("positive", "negative")
        if len(entry.found.grid)
    ]
    columns = ["site", "label", "kind", "cosine", "density"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def cluster_table(analysis: SimilarityAnalysis) -> pd.DataFrame:
    """Return one row per target: k, categories, images, both indices with intervals, their null and p-values."""
    rows = []
    for entry in analysis.clusters:
        found = entry.found
        row: dict[str, object] = {
            "target": entry.target,
            "n_clusters": found.n_clusters,
            "n_categories": found.n_categories,
            "n_images": found.n_images,
            "n_tested": found.n_tested,
        }
        for name, estimate in (
            ("adjusted_rand", found.adjusted_rand),
            ("mutual_information", found.mutual_information),
        ):
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            row[f"{name}_reliable"] = estimate.reliable
        row |= {"p_rand": found.p_rand, "p_rand_adjusted": entry.p_rand_adjusted}
        row |= {"p_information": found.p_information, "p_information_adjusted": entry.p_information_adjusted}
        row |= {"null_rand_high": found.null_rand_high, "null_information": found.null_information}
        rows.append(row)
    return pd.DataFrame(rows)
