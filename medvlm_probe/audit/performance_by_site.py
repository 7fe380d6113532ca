"""Does it still work: each label at the site and in its subgroups, beside the reference, with the worst group named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medvlm_probe.audit.differences import difference
from medvlm_probe.audit.inputs import FEWEST_PEOPLE, SUBGROUPS, AuditInputs, Side, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import METRICS, LabelPerformance, label_performance
from medvlm_probe.types import BoolArray, Estimate, finite_or_none

NEEDS_NEGATIVES = ("auroc", "specificity", "precision", "f1", "average_precision")
COMPARED = ("auroc", "recall", "specificity")


@dataclass(frozen=True)
class Cell:
    """One label among some images.

    Attributes:
        side: `reference` (the half that served no choice) or `site`.
        by, group: what images are grouped by and which group; `all` and "" for all of a side.
        label: its name.
        found: the estimates; None where fewer than ten people have the label, or fewer than ten have it not.
        n_people: of the cell; None where suppressed.
        why_not: why there are no estimates, or not all of them.
        to_reference: metric to its difference to the reference.
    """

    side: str
    by: str
    group: str
    label: str
    found: LabelPerformance | None
    n_people: int | None
    why_not: str = ""
    to_reference: Mapping[str, Estimate] = field(default_factory=dict)

    def estimate(self, metric: str) -> Estimate | None:
        """Return an estimate that may be shown, else None."""
        if self.found is None or (self.found.n_negative == 0 and metric in NEEDS_NEGATIVES):
            return None
        estimate: Estimate = getattr(self.found, metric)
        return estimate if math.isfinite(estimate.value) else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; what is not shown is None."""
        found = self.found
        estimates = {metric: self.estimate(metric) for metric in METRICS}
        return {
            "side": self.side,
            "by": self.by,
            "group": self.group,
            "label": self.label,
            "n_people": self.n_people,
            "n_positive": found.n_positive if found else None,
            "n_negative": found.n_negative if found else None,
            "n_unknown": found.n_unknown if found else None,
            "threshold": finite_or_none(found.threshold) if found else None,
            **{metric: estimate.to_json() if estimate else None for metric, estimate in estimates.items()},
            "difference_to_reference": {metric: e.to_json() for metric, e in self.to_reference.items()},
            "not_shown": self.why_not,
        }


@dataclass(frozen=True)
class Worst:
    """The group with a label's least value of a metric, of those shown; chosen by that value, so it flatters nobody."""

    label: str
    metric: str
    by: str
    group: str
    n_compared: int
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "estimate": self.estimate.to_json()}


@dataclass(frozen=True)
class Performance:
    """Every cell, and the worst groups of the site."""

    cells: tuple[Cell, ...]
    worst: tuple[Worst, ...]

    def whole(self, side: str) -> dict[str, Cell]:
        """Return label to the cell of all images of a side."""
        return {cell.label: cell for cell in self.cells if cell.side == side and cell.by == "all"}

    def sentence(self, words: Mapping[str, str]) -> str:
        """What labels show at the site, against the reference."""
        cells = self.whole("site")
        shown = [cell for cell in cells.values() if cell.found is not None]
        if not shown:
            return "The site's labels allow no measurement: " + _reasons(cells) + "."
        known = [cell for cell in shown if "auroc" in cell.to_reference]
        worse = [cell for cell in known if cell.to_reference["auroc"].high < 0]
        better = [cell for cell in known if cell.to_reference["auroc"].low > 0]
        if not known:
            only = [words.get(c.label, c.label) for c in shown if c.found is not None and c.found.n_negative == 0]
            return (
                f"Recall only: {', '.join(only)} has no absent examples at the site."
                if only
                else ("No label can be compared with the reference.")
            )
        named = [
            f"{words.get(c.label, c.label)} (AUROC {_value(c, 'auroc')}, {c.to_reference['auroc'].value:+.2f})"
            for c in sorted(worse, key=lambda c: c.to_reference["auroc"].value)[:3]
        ]
        one = len(known) == 1
        count = "the one label that can be compared" if one else f"of {len(known)} labels that can be compared"
        if worse:
            among = f"for {count}" if one else f"for {len(worse)} {count}"
            rest = f"; higher for {len(better)}" if better else ""
            return f"AUROC is lower than at the reference {among}: {', '.join(named)}{rest}."
        if better:
            named = [f"{words.get(c.label, c.label)} ({_value(c, 'auroc')})" for c in better[:3]]
            if one:
                return f"AUROC is higher than at the reference for {count}: {named[0]}."
            start = f"AUROC is nowhere shown to be lower than at the reference, and higher for {len(better)} {count}"
            return f"{start}: {', '.join(named)}."
        among = f"for {count}" if one else f"for any {count}"
        return f"No difference in AUROC to the reference is shown {among}; wide intervals may hide one."

    def to_json(self) -> list[dict[str, Any]]:
        """Return every cell as JSON."""
        return [cell.to_json() for cell in self.cells]


def examine_performance(inputs: AuditInputs) -> Performance:
    """Return each label's performance on both sides and in the site's subgroups.

    Raises:
        InputError: nothing was scored, or the site has no known label of those audited.
    """
    if inputs.site.scores is None:
        raise InputError("Nothing was scored: there are no prompts for any label.")
    if np.isnan(inputs.site.targets).all():
        raise InputError("The site has no known label among those audited; estimates without labels stand below.")
    reference = {cell.label: cell for cell in _cells(inputs, inputs.reference, "reference", "all", "", None)}
    cells = list(reference.values())
    everything = np.ones(len(inputs.site), dtype=bool)
    cells += _cells(inputs, inputs.site, "site", "all", "", everything, reference)
    for by, read in SUBGROUPS.items():
        values = read(inputs.site.cohort)
        groups = sorted(set(values.tolist()) - {""})
        for group in groups if len(groups) > 1 else []:
            cells += _cells(inputs, inputs.site, "site", by, group, values == group, reference)
    return Performance(tuple(cells), _worst(cells))


def _cells(
    inputs: AuditInputs,
    side: Side,
    name: str,
    by: str,
    group: str,
    rows: BoolArray | None,
    reference: Mapping[str, Cell] | None = None,
) -> list[Cell]:
    kept = np.ones(len(side), dtype=bool) if rows is None else rows
    n_people = people(side.groups[kept])
    if side.scores is None or n_people < FEWEST_PEOPLE:
        return [Cell(name, by, group, label, None, None, "fewer than 10 people") for label in inputs.labels]
    y, groups = side.targets[kept], side.groups[kept]
    limits = dict(inputs.deployed.thresholds.values) if inputs.deployed else {}
    found = label_performance(y, side.scores.values[kept], groups, label_names=inputs.labels, thresholds=limits)
    cells = []
    for k, entry in enumerate(found):
        reason = _too_small(y[:, k] == 1, y[:, k] == 0, groups)
        shown = None if reason in (_UNKNOWN, _SMALL, _NO_POSITIVES) else entry
        cell = Cell(name, by, group, entry.label, shown, n_people, reason)
        cells.append(_compared(cell, reference[entry.label]) if reference else cell)
    return cells


_UNKNOWN = "not known for any image"
_SMALL = "fewer than 10 people with or without it"
_NO_POSITIVES = "no present examples"
_NO_NEGATIVES = "no absent examples: recall only"


def _too_small(present: BoolArray, absent: BoolArray, groups: np.ndarray[Any, Any]) -> str:
    """Return why a label of some images is not measured, or only in part; "" where it is."""
    with_it, without = people(groups[present]), people(groups[absent])
    if not with_it and not without:
        return _UNKNOWN
    if not with_it:
        return _NO_POSITIVES
    if with_it < FEWEST_PEOPLE or 0 < without < FEWEST_PEOPLE:
        return _SMALL
    return "" if without else _NO_NEGATIVES


def _compared(cell: Cell, reference: Cell) -> Cell:
    found = {}
    for metric in COMPARED:
        here, there = cell.estimate(metric), reference.estimate(metric)
        if here is not None and there is not None:
            found[metric] = difference(here, there)
    return Cell(cell.side, cell.by, cell.group, cell.label, cell.found, cell.n_people, cell.why_not, found)


def _worst(cells: list[Cell]) -> tuple[Worst, ...]:
    found = []
    for label in dict.fromkeys(cell.label for cell in cells):
        for metric in COMPARED:
            groups = [
                (cell, estimate)
                for cell in cells
                if cell.side == "site" and cell.by != "all" and cell.label == label
                if (estimate := cell.estimate(metric)) is not None
            ]
            if len(groups) > 1:
                cell, estimate = min(groups, key=lambda pair: pair[1].value)
                found.append(Worst(label, metric, cell.by, cell.group, len(groups), estimate))
    return tuple(found)


def _value(cell: Cell, metric: str) -> str:
    estimate = cell.estimate(metric)
    return "–" if estimate is None else f"{estimate.value:.2f}"


def _reasons(cells: Mapping[str, Cell]) -> str:
    return "; ".join(sorted({cell.why_not for cell in cells.values() if cell.why_not}))
