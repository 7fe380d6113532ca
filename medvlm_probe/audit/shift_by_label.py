"""Whose images moved: those with each label, and those of each subgroup, held against the reference's of the same kind.

A frequency that moved makes all images together look moved. Images with one label, compared among themselves, do not
feel that: what differs there is how the label looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, SUBGROUPS, AuditInputs, Side, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.resampling import holm
from medvlm_probe.shift.mmd import median_bandwidth, mmd_test
from medvlm_probe.shift.shift_tests import N_PERMUTATIONS
from medvlm_probe.shift.two_samples import site_permutations, two_samples
from medvlm_probe.types import BoolArray, Estimate, finite_or_none

MOST_PEOPLE = 600
"""Of each side in a cell; of more, so many are drawn: a permutation costs the square of them."""

NOTABLE = 0.02
"""A squared MMD whose lower bound is above this is called a shift, as in the default policy."""

LABEL = "label"


@dataclass(frozen=True)
class CellShift:
    """Images of one kind on both sides.

    Attributes:
        by, group: what they have in common: `label` and its name, or a subgroup's fact and its value.
        n_people: of the reference and of the site that were compared; None where either is below ten.
        effect: squared MMD, by one bandwidth for all cells; None where too few.
        p_value, p_adjusted: of the permutation test, before and after Holm over all cells; NaN where too few.
        why_not: why there is no effect.
    """

    by: str
    group: str
    n_people: tuple[int, int] | None
    effect: Estimate | None
    p_value: float = np.nan
    p_adjusted: float = np.nan
    why_not: str = ""

    @property
    def moved(self) -> bool:
        """Whether it moved beyond what chance and a small effect would make."""
        return self.effect is not None and self.p_adjusted < 0.05 and self.effect.low > NOTABLE

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        reference, site = self.n_people or (None, None)
        return {
            "by": self.by,
            "group": self.group,
            "people_reference": reference,
            "people_site": site,
            "effect": self.effect.to_json() if self.effect else None,
            "p_value": finite_or_none(self.p_value),
            "p_adjusted": finite_or_none(self.p_adjusted),
            "not_shown": self.why_not,
        }


@dataclass(frozen=True)
class ShiftByLabel:
    """Every label and subgroup that both sides have.

    Attributes:
        cells: labels first.
        bandwidth: of the kernel: the median distance between all images of both sides.
    """

    cells: tuple[CellShift, ...]
    bandwidth: float

    def sentence(self, words: Mapping[str, str]) -> str:
        """Which labels' images look different here, and which subgroups'."""
        parts = [self._part(cells, what, words) for cells, what in self._kinds()]
        return " ".join(part for part in parts if part)

    def _kinds(self) -> Iterator[tuple[list[CellShift], str]]:
        yield [cell for cell in self.cells if cell.by == LABEL], "label"
        yield [cell for cell in self.cells if cell.by != LABEL], "subgroup"

    def _part(self, cells: list[CellShift], what: str, words: Mapping[str, str]) -> str:
        known = [cell for cell in cells if cell.effect is not None]
        if not known:
            return f"No {what} has ten people on both sides." if cells else f"No {what} is known on both sides."
        moved = sorted((cell for cell in known if cell.moved), key=_size, reverse=True)
        count = f"{len(known)} {what}{'' if len(known) == 1 else 's'} with enough people on both sides"
        if not moved:
            return f"Of {count}, none is shown to look different from the reference's of the same kind."
        named = ", ".join(_named(cell, words) for cell in moved[:3])
        least = min(known, key=_size)
        end = "" if len(moved) < len(known) else f"; least {_named(least, words)}" if len(known) > 3 else ""
        looks = f"{len(moved)} {'looks' if len(moved) == 1 else 'look'}"
        kind = "with the same label" if what == "label" else "of the same kind"
        return f"Of {count}, {looks} different from the reference's {kind}: most {named}{end}."

    def to_json(self) -> dict[str, Any]:
        """Return every cell as JSON."""
        return {"bandwidth": self.bandwidth, "notable": NOTABLE, "cells": [cell.to_json() for cell in self.cells]}


def examine_shift_by_label(inputs: AuditInputs, *, n_permutations: int = N_PERMUTATIONS) -> ShiftByLabel:
    """Test images of each kind against the whole reference's of the same kind, patients permuted as a whole.

    Raises:
        InputError: no label is known on both sides, and no subgroup either.
    """
    first, second = inputs.whole_reference, inputs.site
    kinds = list(_kinds(inputs))
    if not kinds:
        raise InputError("No label and no subgroup is known on both sides.")
    rng = inputs.rng("shift by label")
    whole = two_samples(first.vectors, second.vectors, first.groups, second.groups)
    bandwidth = median_bandwidth(whole.points, whole.groups, rng)
    cells = [
        _cell(by, group, (_drawn(first, rows[0], rng), _drawn(second, rows[1], rng)), bandwidth, n_permutations, rng)
        for by, group, rows in kinds
    ]
    tested = [k for k, cell in enumerate(cells) if cell.effect is not None]
    adjusted = holm(np.array([cells[k].p_value for k in tested]))
    for k, p_adjusted in zip(tested, adjusted, strict=True):
        cells[k] = replace(cells[k], p_adjusted=float(p_adjusted))
    return ShiftByLabel(tuple(cells), bandwidth)


def _kinds(inputs: AuditInputs) -> Iterator[tuple[str, str, tuple[BoolArray, BoolArray]]]:
    """Yield what images have in common, and which of either side have it; the site's name alone is no kind."""
    first, second = inputs.whole_reference, inputs.site
    for k, label in enumerate(inputs.labels):
        have = first.targets[:, k] == 1, second.targets[:, k] == 1
        if have[0].any() and have[1].any():
            yield LABEL, label, have
    for by, read in SUBGROUPS.items():
        values = read(first.cohort), read(second.cohort)
        for group in sorted((set(values[0].tolist()) & set(values[1].tolist())) - {""}):
            yield by, group, (values[0] == group, values[1] == group)


def _drawn(side: Side, rows: BoolArray, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return vectors and patients of some images: those of at most `MOST_PEOPLE` patients."""
    groups = side.groups[rows]
    names = np.unique(groups)
    if len(names) > MOST_PEOPLE:
        names = rng.choice(names, MOST_PEOPLE, replace=False)
    kept = np.isin(groups, names)
    return side.vectors[rows][kept], groups[kept]


def _cell(
    by: str,
    group: str,
    sides: tuple[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], ...],
    bandwidth: float,
    n_permutations: int,
    rng: np.random.Generator,
) -> CellShift:
    (reference, own), (site, other) = sides
    counts = people(own), people(other)
    if min(counts) < FEWEST_PEOPLE:
        return CellShift(by, group, None, None, why_not="too few: under 10 people on one side")
    samples = two_samples(reference, site, own, other)
    permutations = site_permutations(samples.of_site, n_permutations, rng)
    found = mmd_test(samples, permutations, rng, bandwidth=bandwidth)
    return CellShift(by, group, counts, found.effect, found.p_value)


def _size(cell: CellShift) -> float:
    return cell.effect.value if cell.effect else 0.0


def _named(cell: CellShift, words: Mapping[str, str]) -> str:
    name = words.get(cell.group, cell.group) if cell.by == LABEL else f"{cell.by} {cell.group}"
    return f"{name} (squared MMD {_size(cell):.3f})"
