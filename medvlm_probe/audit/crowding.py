"""Do labels crowd together here: how far positives lie from negatives, at the reference and at the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medvlm_probe.audit.differences import difference
from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, Side, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.label_distances import label_distances
from medvlm_probe.metrics.pair_sums import DistanceEstimates
from medvlm_probe.types import Estimate

DISTANCES = ("intra_positive", "intra_negative", "inter", "ratio")
PLACES = {"reference": "at the reference", "site": "here"}


@dataclass(frozen=True)
class LabelCrowding:
    """One label's distances between images, of vectors of length 1.

    Attributes:
        label: its name.
        reference, site: mean distances on either side; None where fewer than ten people have it, or have it not.
        to_reference: distance to its difference, the site's less the reference's; empty where a side is None.
        why_not: why a side has none.
    """

    label: str
    reference: DistanceEstimates | None
    site: DistanceEstimates | None
    to_reference: Mapping[str, Estimate] = field(default_factory=dict)
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; what is not shown is None."""
        sides = {"reference": self.reference, "site": self.site}
        shown = {
            name: {d: getattr(found, d).to_json() for d in DISTANCES} if found is not None else None
            for name, found in sides.items()
        }
        apart = {name: estimate.to_json() for name, estimate in self.to_reference.items()}
        return {"label": self.label, **shown, "difference_to_reference": apart, "not_shown": self.why_not}


@dataclass(frozen=True)
class LabelsCrowding:
    """Every label's distances on both sides."""

    labels: tuple[LabelCrowding, ...]

    def sentence(self, words: Mapping[str, str]) -> str:
        """Which labels lie closer to the images without them than at the reference."""
        known = [entry for entry in self.labels if entry.to_reference]
        if not known:
            return "No label can be compared: one side or the other has fewer than ten people with or without each."
        ratios = {entry.label: entry.to_reference["ratio"] for entry in known if entry.to_reference["ratio"].reliable}
        crowded = sorted((label for label, e in ratios.items() if e.high < 0), key=lambda label: ratios[label].value)
        apart = sorted((label for label, e in ratios.items() if e.low > 0), key=lambda label: -ratios[label].value)
        count = f"{len(known)} {'label' if len(known) == 1 else 'labels'} that can be compared"
        parts = [
            f"{name} for {len(found)} ({', '.join(_told(label, self.labels, words) for label in found[:3])}"
            + (f", and {len(found) - 3} more)" if len(found) > 3 else ")")
            for name, found in (("closer", crowded), ("further apart", apart))
            if found
        ]
        if not parts:
            return f"Labels are not shown to lie closer to one another than at the reference, for any of {count}."
        return f"Of {count}, images with and without the label lie {'; '.join(parts)}, by the ratio of distances."

    def to_json(self) -> dict[str, Any]:
        """Return every label's distances as JSON."""
        return {"space": "l2", "labels": [entry.to_json() for entry in self.labels]}


def examine_crowding(inputs: AuditInputs) -> LabelsCrowding:
    """Return each label's distances at the whole reference and at the site, and their differences.

    The two sides have no patient in common, so the interval of a difference adds both sides' own; the distances of one
    side share their patients, which the ratio's jackknife counts.

    Raises:
        InputError: no label of the audit is known at the site.
    """
    if not inputs.labels or np.isnan(inputs.site.targets).all():
        raise InputError("The site has no known label among those audited.")
    sides = {"reference": inputs.whole_reference, "site": inputs.site}
    reasons = {name: _too_few(side, inputs.labels) for name, side in sides.items()}
    found = {
        name: _distances(side, [label for label in inputs.labels if label not in reasons[name]], inputs.labels)
        for name, side in sides.items()
    }
    return LabelsCrowding(tuple(_entry(label, found, reasons) for label in inputs.labels))


def _too_few(side: Side, labels: tuple[str, ...]) -> dict[str, str]:
    """Return label to why a side's distances are not shown."""
    reasons = {}
    for label, y in zip(labels, side.targets.T, strict=True):
        counts = [people(side.groups[y == kind]) for kind in (1, 0)]
        if np.isnan(y).all():
            reasons[label] = "not known"
        elif min(counts) < FEWEST_PEOPLE:
            reasons[label] = "too few: under 10 people with or without it"
    return reasons


def _distances(side: Side, kept: list[str], labels: tuple[str, ...]) -> Mapping[str, DistanceEstimates]:
    columns = [labels.index(label) for label in kept]
    known = ~np.isnan(side.targets[:, columns]).all(axis=1)
    if not kept:
        return {}
    return label_distances(
        side.vectors[known], side.targets[known][:, columns], side.groups[known], label_names=kept, space="l2"
    )


def _entry(
    label: str, found: Mapping[str, Mapping[str, DistanceEstimates]], reasons: Mapping[str, Mapping[str, str]]
) -> LabelCrowding:
    there, here = found["reference"].get(label), found["site"].get(label)
    apart = {}
    if there is not None and here is not None:
        apart = {name: difference(getattr(here, name), getattr(there, name)) for name in DISTANCES}
    why_not = "; ".join(f"{reasons[side][label]} {place}" for side, place in PLACES.items() if label in reasons[side])
    return LabelCrowding(label, there, here, apart, why_not)


def _told(label: str, entries: tuple[LabelCrowding, ...], words: Mapping[str, str]) -> str:
    entry = next(entry for entry in entries if entry.label == label)
    if entry.site is None or entry.reference is None:
        return words.get(label, label)
    return f"{words.get(label, label)} {entry.site.ratio.value:.3f} against {entry.reference.ratio.value:.3f}"
