"""The tidy tables of a distance analysis: what is written as CSV and what figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from medvlm_probe.embeddings.distances import DistanceAnalysis
from medvlm_probe.metrics.separability import ClassDistances
from medvlm_probe.types import Estimate

QUANTITIES = (
    "intra_positive",
    "intra_negative",
    "inter",
    "ratio",
    "energy_distance",
    "centroid_distance",
    "neighbour_purity",
    "silhouette",
)


def distance_table(analysis: DistanceAnalysis) -> pd.DataFrame:
    """Return one row per site ("" for all), label and quantity: its estimate, counts and p-values.

    Columns: site, label, quantity, value, low, high, n, n_groups, reliable, method, n_positive, n_negative, n_unknown,
    p_value and p_adjusted (of the energy distance only).
    """
    rows = [
        {
            "site": site,
            "label": entry.label,
            "quantity": quantity,
            **_estimate(estimate),
            "n_positive": entry.n_positive,
            "n_negative": entry.n_negative,
            "n_unknown": entry.n_unknown,
            "p_value": entry.energy_distance.p_value if quantity == "energy_distance" else np.nan,
            "p_adjusted": entry.energy_distance.p_adjusted if quantity == "energy_distance" else np.nan,
        }
        for site, entry in _entries(analysis)
        for quantity, estimate in zip(QUANTITIES, _estimates(entry), strict=True)
    ]
    return pd.DataFrame(rows)


def histogram_table(analysis: DistanceAnalysis) -> pd.DataFrame:
    """Return label, kind, left, right, count and density of each bin of the distributions of distances."""
    parts = [
        pd.DataFrame(
            {
                "label": histogram.label,
                "kind": kind,
                "left": histogram.edges[:-1],
                "right": histogram.edges[1:],
                "count": histogram.counts[kind],
                "density": histogram.density[kind],
            }
        )
        for histogram in analysis.histograms
        for kind in histogram.counts
        if histogram.counts[kind].sum()
    ]
    columns = ["label", "kind", "left", "right", "count", "density"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def crowding_table(analysis: DistanceAnalysis) -> pd.DataFrame:
    """Return one row for each pair of labels; see `Crowding` for what the columns mean."""
    found = analysis.crowding
    rows = [
        {
            "label": label,
            "neighbour": neighbour,
            "n_positive": int(found.n_positive[a]),
            "share": found.share[a, b],
            "expected": found.expected[a, b],
            "enrichment": found.enrichment[a, b],
            "p_more": found.p_more[a, b],
            "p_less": found.p_less[a, b],
            "p_adjusted": found.p_adjusted[a, b],
        }
        for a, label in enumerate(found.labels)
        for b, neighbour in enumerate(found.labels)
    ]
    return pd.DataFrame(rows)


def cross_site_table(analysis: DistanceAnalysis) -> pd.DataFrame:
    """Return one row per label and site: distance to the reference's positives minus to its negatives, with counts."""
    rows = [
        {
            "label": entry.label,
            "site": entry.site,
            "reference": entry.reference,
            **_estimate(entry.difference),
            "n_positive": entry.n_positive,
            "to_positives": entry.to_positives.value,
            "to_negatives": entry.to_negatives.value,
            "nearer_to_positives": entry.nearer_to_positives.value,
            "negatives_nearer_to_positives": entry.negatives_nearer_to_positives.value,
        }
        for entry in analysis.cross_site
    ]
    return pd.DataFrame(rows)


def ratio_table(analysis: DistanceAnalysis) -> pd.DataFrame:
    """Return the ratio of each label at each site, as a forest plot takes it."""
    table = distance_table(analysis)
    return table[(table["quantity"] == "ratio") & (table["site"] != "")].reset_index(drop=True)


def _entries(analysis: DistanceAnalysis) -> Iterator[tuple[str, ClassDistances]]:
    yield from (("", entry) for entry in analysis.pooled)
    for site, entries in analysis.by_site.items():
        yield from ((site, entry) for entry in entries)


def _estimates(entry: ClassDistances) -> tuple[Estimate, ...]:
    return (
        entry.intra_positive,
        entry.intra_negative,
        entry.inter,
        entry.ratio,
        entry.energy_distance_estimate,
        entry.centroids.between,
        entry.neighbour_purity,
        entry.silhouette,
    )


def _estimate(estimate: Estimate) -> dict[str, float | int | bool | str]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "n_groups": estimate.n_groups,
        "reliable": estimate.reliable,
        "method": estimate.method,
    }
