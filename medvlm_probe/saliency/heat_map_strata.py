"""Which images with a region maps do well on: by site, by the size of the region, by how sure the setting was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.saliency.comparable_scores import ComparableScores, Outcome, outcome_of
from medvlm_probe.saliency.localization import Localization
from medvlm_probe.saliency.localization_estimates import LocalizationEstimate, difference_between, size_thirds
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

FEWEST_IN_STRATUM = 3
OUTCOMES: tuple[Outcome, ...] = ("found", "unsure", "missed")


@dataclass(frozen=True, eq=False)
class Stratum:
    """Some of a label's images with a region: by `site`, `size` of the region, or `outcome` of the prediction."""

    kind: str
    name: str
    n_images: int
    estimates: Mapping[str, LocalizationEstimate]


def outcomes_of(scores: ComparableScores | None, rows: IntArray) -> dict[str, BoolArray]:
    """Return which images a setting found, was unsure of, and missed with confidence, each (n,).

    Empty where scores are not ranked among enough negatives: then nothing says how sure the setting was.

    Args:
        scores: of all images, of one label.
        rows: those asked about, which have the finding.
    """
    if scores is None or scores.scales[0] != "percentile":
        return {}
    found = np.array([outcome_of(float(value)) for value in scores.values[rows, 0]], dtype=str)
    return {name: found == name for name in OUTCOMES}


def strata_of(
    found: Localization, sites: NDArray[np.str_], groups: IntArray, outcomes: Mapping[str, BoolArray]
) -> tuple[Stratum, ...]:
    """Return the strata of at least three images; by site only where there are several.

    Args:
        found: measures of n images.
        sites: (n,), empty where not known.
        groups: (n,).
        outcomes: from `outcomes_of`.
    """
    kinds: dict[str, Mapping[str, BoolArray]] = {"site": {}, "outcome": outcomes}
    if len(np.unique(sites)) > 1:
        kinds["site"] = {str(site): sites == site for site in np.unique(sites) if site}
    if len(found) >= 3 * FEWEST_IN_STRATUM:
        kinds["size"] = size_thirds(found.region_share)[0]
    return tuple(
        Stratum(kind, name, int(inside.sum()), found.rows(inside).estimates(groups[inside]))
        for kind, parts in kinds.items()
        for name, inside in parts.items()
        if inside.sum() >= FEWEST_IN_STRATUM
    )


def found_less_missed(
    values: Mapping[str, FloatArray], outcomes: Mapping[str, BoolArray], groups: IntArray
) -> dict[str, Estimate]:
    """Return each measure's mean on images that were found less that on those missed with confidence.

    Empty where either side has under three images.
    """
    if any(outcomes.get(name, np.zeros(0)).sum() < FEWEST_IN_STRATUM for name in ("found", "missed")):
        return {}
    return {
        name: difference_between(name, np.asarray(column), outcomes["found"], outcomes["missed"], groups)
        for name, column in values.items()
    }
