"""How frequent is each finding at the site, estimated without its labels, and beside them where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.label_shift import LabelShift, estimate_label_shift
from medvlm_probe.types import Estimate


@dataclass(frozen=True)
class LabelFrequency:
    """One label's prevalence at the site.

    Attributes:
        label: its name.
        shift: the estimates without labels, and whether they can be believed.
        truth: the share of positives among the site's known labels; None where none, or too few people, are known.
    """

    label: str
    shift: LabelShift
    truth: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; undefined numbers are None."""
        found = self.shift
        return {
            "label": self.label,
            "reference": found.reference.to_json(),
            "bbse": found.bbse.to_json(),
            "em": found.em.to_json(),
            "truth": self.truth.to_json() if self.truth else None,
            "misfit": found.misfit,
            "misfit_test": found.misfit_test.to_json(),
            "assumption": found.verdict,
        }


@dataclass(frozen=True)
class LabelFrequencies:
    """All labels' prevalences, those left out with the reason, and why none may be believed ("" where some may)."""

    labels: tuple[LabelFrequency, ...]
    left_out: Mapping[str, str]
    doubt: str = ""

    def sentence(self, words: Mapping[str, str], *, look_moved: bool = False) -> str:
        """Which findings are more or less frequent than at the reference, as far as that can be told.

        Args:
            words: label to the words that people read.
            look_moved: images look different too, so that all estimates rest on an assumption known to be false.
        """
        doubt = "As the look of the images moved" if look_moved else self.doubt
        if doubt:
            return f"{doubt}, the frequencies of findings cannot be told from scores{self._held}."
        usable = [entry for entry in self.labels if entry.shift.verdict == "usable"]
        moved = [
            entry
            for entry in usable
            if entry.shift.em.low > entry.shift.reference.high or entry.shift.em.high < entry.shift.reference.low
        ]
        refuted = sum(entry.shift.verdict == "assumption does not hold" for entry in self.labels)
        silent = len(self.labels) - len(usable) - refuted
        named = [
            f"{words.get(e.label, e.label)} {100 * e.shift.em.value:.0f} % here against "
            f"{100 * e.shift.reference.value:.0f} %"
            for e in moved[:3]
        ]
        start = (
            f"Estimated without labels: {'; '.join(named)}" + (f"; and {len(moved) - 3} more" if len(moved) > 3 else "")
            if moved
            else "No finding is shown to be more or less frequent than at the reference"
        )
        limits = [
            f"for {refuted} of {len(self.labels)} labels the scores refute that only frequencies moved"
            if refuted
            else "",
            f"for {silent} nothing can be told" if silent else "",
        ]
        return start + "".join(f"; {limit}" for limit in limits if limit) + "."

    @property
    def _held(self) -> str:
        known = [entry for entry in self.labels if entry.truth is not None]
        held = sum(e.truth is not None and e.shift.em.low <= e.truth.value <= e.shift.em.high for e in known)
        count = f"{held} of {len(known)} labels"
        return f"; where labels tell, the estimate's interval held the truth for {count}" if known else ""


def estimate_frequencies(inputs: AuditInputs) -> LabelFrequencies:
    """Return every label's prevalence at the site by label-shift estimation from the whole reference.

    Raises:
        InputError: no scores, or no label that the reference knows of ten people or more of either kind.
    """
    first, second = inputs.whole_reference, inputs.site
    if first.scores is None or second.scores is None:
        raise InputError("Nothing was scored: there are no prompts for any label.")
    found, left_out = [], {}
    for k, label in enumerate(inputs.labels):
        y = first.targets[:, k]
        counts = [people(first.groups[y == kind]) for kind in (1, 0)]
        if min(counts) < FEWEST_PEOPLE:
            left_out[label] = "fewer than 10 people with or without it at the reference"
            continue
        shift = estimate_label_shift(
            y,
            first.scores.values[:, k],
            second.scores.values[:, k],
            first.groups,
            second.groups,
            rng=inputs.rng(f"label shift {label}"),
        )
        found.append(LabelFrequency(label, shift, true_prevalence(inputs, k)))
    if not found:
        raise InputError("No label has ten people with and ten without it at the reference.")
    return LabelFrequencies(tuple(found), left_out)


def true_prevalence(inputs: AuditInputs, column: int) -> Estimate | None:
    """Return the share of positives among the site's known labels; None under ten people, or a small positive cell."""
    y = inputs.site.targets[:, column]
    known = ~np.isnan(y)
    positive = people(inputs.site.groups[y == 1])
    if people(inputs.site.groups[known]) < FEWEST_PEOPLE or 0 < positive < FEWEST_PEOPLE:
        return None
    return proportion(y[known] == 1, inputs.site.groups[known])
