"""How sure must we be: positives that a recall interval needs, and what difference this audit could have found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, people
from medvlm_probe.audit.label_frequency import LabelFrequencies
from medvlm_probe.audit.performance_by_site import Performance, examine_performance
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.metrics.intervals import effective_size
from medvlm_probe.shift.sample_size import (
    DetectableDifference,
    SampleSize,
    detectable_difference,
    positives_for_half_width,
)
from medvlm_probe.types import finite_or_none

HALF_WIDTH = 0.05


@dataclass(frozen=True)
class LabelSize:
    """One label's numbers.

    Attributes:
        label: its name.
        expected_recall: the reference's, which the numbers are computed at.
        needed: labelled positives for a recall interval of 5 points to either side.
        n_positive: the site's labelled positives; None below ten people.
        detectable: the least change of recall that this audit would have found with 80 % power; None without positives.
    """

    label: str
    expected_recall: float
    needed: SampleSize
    n_positive: int | None
    detectable: DetectableDifference | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        found = self.detectable
        return {
            "label": self.label,
            "expected_recall": finite_or_none(self.expected_recall),
            "positives_needed": self.needed.positives,
            "images_needed": self.needed.images,
            "half_width": HALF_WIDTH,
            "n_positive": self.n_positive,
            "detectable_fall": finite_or_none(found.fall) if found else None,
            "detectable_rise": finite_or_none(found.rise) if found else None,
            "power": found.power if found else None,
        }


@dataclass(frozen=True)
class SampleSizes:
    """Every label's numbers."""

    labels: tuple[LabelSize, ...]

    def sentence(self, words: Mapping[str, str]) -> str:
        """How many labels have enough positives, and what is lacking."""
        enough = [e for e in self.labels if e.n_positive is not None and e.n_positive >= e.needed.positives]
        first = f"{len(enough)} of {len(self.labels)} labels have the positives that a recall within 5 points needs"
        short = [e for e in self.labels if e not in enough]
        if not short:
            return first + "."
        worst = min(short, key=lambda e: e.needed.positives - (e.n_positive or 0))
        images = f", about {worst.needed.images:,} images to label" if worst.needed.images else ""
        have = f"{worst.n_positive}" if worst.n_positive is not None else "under 10"
        return (
            f"{first}; {words.get(worst.label, worst.label)} is the nearest: {worst.needed.positives:,} are needed"
            f"{images}, {have} are there."
        )

    def to_json(self) -> dict[str, Any]:
        """Return every label's numbers as JSON."""
        return {"labels": [entry.to_json() for entry in self.labels]}


def examine_sizes(
    inputs: AuditInputs, performance: Performance | None, frequencies: LabelFrequencies | None
) -> SampleSizes:
    """Return what each label with a recall at the reference needs.

    Raises:
        InputError: the reference gives no recall of any label.
    """
    cells = (performance or _of_reference(inputs)).whole("reference")
    usable = [entry for entry in frequencies.labels if entry.shift.verdict == "usable"] if frequencies else []
    prevalence = {entry.label: entry.shift.em.value for entry in usable}
    found = []
    for k, label in enumerate(inputs.labels):
        recall = cells[label].estimate("recall")
        if recall is None or label == NO_FINDING:
            continue
        y, own = inputs.site.targets[:, k], inputs.reference.targets[:, k]
        known = (y == 1) | (y == 0)
        share = float((y[known] == 1).mean()) if known.any() else prevalence.get(label, math.nan)
        expected = share if 0 < share <= 1 else None
        positives = inputs.site.groups[y == 1]
        there = people(positives) >= FEWEST_PEOPLE
        found.append(
            LabelSize(
                label,
                recall.value,
                positives_for_half_width(recall.value, half_width=HALF_WIDTH, prevalence=expected),
                len(positives) if there else None,
                detectable_difference(
                    recall.value, effective_size(inputs.reference.groups[own == 1]), effective_size(positives)
                )
                if there
                else None,
            )
        )
    if not found:
        raise InputError("The reference gives no recall: it has no labels, or too few people with each.")
    return SampleSizes(tuple(found))


def _of_reference(inputs: AuditInputs) -> Performance:
    from dataclasses import replace

    return examine_performance(replace(inputs, site=inputs.reference))
