"""How well it works, estimated without the site's labels; beside the truth where there are labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, people
from medvlm_probe.errors import InputError
from medvlm_probe.shift.label_free import estimate_label_free
from medvlm_probe.shift.label_free_validation import validate_label_free
from medvlm_probe.types import Estimate

MEASURED: Mapping[str, Mapping[str, float]] = {
    "none": {
        "average_confidence": 0.91,
        "difference_of_confidences": 0.95,
        "average_thresholded_confidence": 0.96,
        "label_shift": 0.95,
    },
    "prevalence": {
        "average_confidence": 0.46,
        "difference_of_confidences": 0.52,
        "average_thresholded_confidence": 0.70,
        "label_shift": 0.96,
    },
    "covariate": {
        "average_confidence": 0.62,
        "difference_of_confidences": 0.68,
        "average_thresholded_confidence": 0.81,
        "label_shift": 0.58,
    },
    "both": {
        "average_confidence": 0.35,
        "difference_of_confidences": 0.40,
        "average_thresholded_confidence": 0.62,
        "label_shift": 0.56,
    },
    "worst": {
        "average_confidence": 0.09,
        "difference_of_confidences": 0.12,
        "average_thresholded_confidence": 0.47,
        "label_shift": 0.12,
    },
    "nih": {
        "average_confidence": 0.46,
        "difference_of_confidences": 0.46,
        "average_thresholded_confidence": 0.58,
        "label_shift": 0.29,
    },
}
"""What moved to method to the share of 95 % intervals that held the true accuracy at sites drawn from phantoms.

`worst` is that of the scanner (or exposure) at which a method did worst, where nothing else moved; `nih` is of sites
drawn from a real one, against Indiana as the reference. From figures/label_free/ (`analyses/label_free_coverage.py`); a
test holds them to be the same.
"""

NEVER_TRUSTED = frozenset(
    {("average_confidence", "recall"), ("average_confidence", "precision"), ("label_shift", "precision")}
)
"""Method and metric whose intervals are too narrow even where nothing moved, on phantoms or on Indiana."""

ENOUGH = 0.9
"""Intervals of a method that held the truth more rarely, where the same thing moved, are marked as unreliable."""


@dataclass(frozen=True)
class LabelFreeRow:
    """One estimate without labels; `truth` is None where the site's labels do not tell, `holds` then too."""

    label: str
    method: str
    metric: str
    estimate: Estimate
    truth: Estimate | None
    holds: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **vars(self),
            "estimate": self.estimate.to_json(),
            "truth": self.truth.to_json() if self.truth else None,
        }


@dataclass(frozen=True)
class LabelFree:
    """All estimates, the labels left out with the reason, and what moved (as `what_moved` names it) where known."""

    rows: tuple[LabelFreeRow, ...]
    left_out: Mapping[str, str]
    moved: str | None = None

    @property
    def sentence(self) -> str:
        """What the estimates say, how far the truth bore them out, and how often simulated ones held it."""
        return f"{self._said} {trust(self.moved)}"

    @property
    def _said(self) -> str:
        checked = [row for row in self.rows if row.holds is not None and row.metric == "accuracy"]
        if checked:
            by_method: dict[str, list[LabelFreeRow]] = {}
            for row in checked:
                by_method.setdefault(row.method, []).append(row)
            parts = []
            for name, rows in by_method.items():
                off = np.mean([abs(row.estimate.value - row.truth.value) for row in rows if row.truth])
                right = sum(bool(row.holds) for row in rows)
                parts.append(f"{name.replace('_', ' ')} {right} of {len(rows)} (off by {100 * off:.0f} points)")
            return f"Accuracy estimated without labels, intervals that hold the truth: {'; '.join(parts)}."
        recalls = [
            row.estimate.value
            for row in self.rows
            if row.metric == "accuracy" and row.method == "average_thresholded_confidence"
        ]
        known = [value for value in recalls if math.isfinite(value)]
        if not known:
            return "Nothing could be estimated without labels."
        return (
            f"Without labels, accuracy is estimated at {min(known):.2f} to {max(known):.2f} over {len(known)} labels; "
            "the site has no truth to hold that against, so no rule passes by it."
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return every estimate as JSON."""
        return [row.to_json() for row in self.rows]


def trust(moved: str | None) -> str:
    """Return how often such intervals held the true accuracy in simulations, and what follows for this site.

    Args:
        moved: `none`, `prevalence`, `covariate`, `both` or None where that is not known.
    """
    others = {name: share for name, share in MEASURED["prevalence"].items() if name != "label_shift"}
    words = (
        "Of such 95 % intervals, at sites simulated with phantoms, those that held the true accuracy: "
        f"{_range(MEASURED['none'].values())} where nothing moved; where only frequencies moved "
        f"{_range([MEASURED['prevalence']['label_shift']])} by label shift and {_range(others.values())} by the "
        f"others; {_range(MEASURED['covariate'].values())} where the look of the images moved, and at worst "
        f"{_range(MEASURED['worst'].values())}; from a real hospital to another (NIH against Indiana) "
        f"{_range(MEASURED['nih'].values())}."
    )
    if moved in ("covariate", "both"):
        return f"{words} Here the look moved, so all are marked as unreliable."
    if moved == "prevalence":
        return f"{words} Here frequencies moved, so all but those by label shift are marked as unreliable."
    return words


def trusted(method: str, metric: str, moved: str | None) -> bool:
    """Return whether such intervals held the truth often enough where the same thing moved."""
    return (method, metric) not in NEVER_TRUSTED and MEASURED[moved or "none"][method] >= ENOUGH


def _range(shares: Iterable[float]) -> str:
    percents = sorted(round(100 * share) for share in shares)
    return f"{percents[0]} %" if percents[0] == percents[-1] else f"{percents[0]} to {percents[-1]} %"


def estimate_without_labels(inputs: AuditInputs, moved: str | None = None) -> LabelFree:
    """Return every label's estimates by every method; probabilities are those calibrated at the reference.

    Intervals are marked as unreliable where simulated ones held the truth too rarely after the like of what moved.

    Args:
        inputs: both sides.
        moved: `none`, `prevalence`, `covariate` or `both`, as `what_moved` found; None where it could not tell.

    Raises:
        InputError: no probabilities, or no label that the reference knows well enough.
    """
    deployed, first, second = inputs.deployed, inputs.reference, inputs.site
    if deployed is None or first.scores is None or second.scores is None:
        raise InputError("The reference has no labels, so nothing can be estimated without the site's.")
    p, q = deployed.probabilities(first.scores), deployed.probabilities(second.scores)
    if p is None or q is None:
        raise InputError("Cosines are no probabilities: take prompts with negatives.")
    rows: list[LabelFreeRow] = []
    left_out = {}
    for k, label in enumerate(inputs.labels):
        y, cut = first.targets[:, k], float(deployed.cuts[k])
        if min(people(first.groups[y == kind]) for kind in (1, 0)) < FEWEST_PEOPLE:
            left_out[label] = "fewer than 10 people with or without it in the half of the reference that is compared"
        elif math.isnan(cut):
            left_out[label] = "its scores do not rise with the finding at the reference"
        else:
            rows += _rows(inputs, label, y, p[:, k], q[:, k], cut)
    if not rows:
        raise InputError("No label is known of enough people at the reference.")
    return LabelFree(tuple(_marked(row, moved) for row in rows), left_out, moved)


def _marked(row: LabelFreeRow, moved: str | None) -> LabelFreeRow:
    """Return the row with its interval marked as unreliable where simulations say so."""
    if trusted(row.method, row.metric, moved):
        return row
    return replace(row, estimate=replace(row.estimate, reliable=False))


def _rows(
    inputs: AuditInputs,
    label: str,
    y: np.ndarray[Any, Any],
    p: np.ndarray[Any, Any],
    q: np.ndarray[Any, Any],
    cut: float,
) -> list[LabelFreeRow]:
    truth, rng = inputs.site.targets[:, inputs.column(label)], inputs.rng(f"label free {label}")
    own, other = inputs.reference.groups, inputs.site.groups
    if min(people(other[truth == kind]) for kind in (1, 0)) >= FEWEST_PEOPLE:
        checks = validate_label_free(y, p, truth, q, own, other, threshold=cut, rng=rng)
        return [LabelFreeRow(label, c.method, c.metric, c.estimate, c.truth, c.holds) for c in checks]
    found = estimate_label_free(y, p, q, own, other, threshold=cut, rng=rng)
    return [
        LabelFreeRow(label, method, metric, estimate, None, None)
        for method, estimates in found.items()
        for metric, estimate in estimates.items()
    ]
