"""One label's distances as they are drawn: outlines of histograms, means with intervals, and the words beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import SKY, wrapped
from medvlm_probe.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

_HEADER_MM = 42.0
_OVERSHOOT = 1.6


@dataclass(frozen=True)
class Kind:
    """How one of the three distributions is drawn; outline, fill and mark differ, so that colour is not needed."""

    words: str
    colour: str
    marker: str
    line_width: float
    fill: str | None
    order: int


# Okabe & Ito's vermillion and blue are one grey in print; these three differ in luminance too.
KINDS: dict[str, Kind] = {
    "intra_positive": Kind("two positives", "#A84300", "o", 1.3, None, 4),
    "intra_negative": Kind("two negatives", "#3D94CC", "s", 0.0, SKY, 2),
    "inter": Kind("one of each", "#000000", "D", 0.7, None, 3),
}


@dataclass(frozen=True)
class Row:
    """One label's row, ready to be drawn: curves as polygons, estimates by kind, and its words."""

    curves: dict[str, tuple[FloatArray, FloatArray]]
    estimates: dict[str, tuple[float, float, float, bool]]
    name: list[str]
    counts: list[str]
    warnings: list[str]


def check_bins(bins: pd.DataFrame) -> None:
    """Raise InputError unless each bin's `right` lies above its `left`."""
    wrong = ~(bins["right"] > bins["left"])
    if bool(wrong.any()):
        bad = bins[wrong].iloc[0]
        raise InputError(
            f"Each bin's right edge must lie above its left one; {bad['label']} ({bad['kind']}) has a bin from "
            f"{bad['left']:g} to {bad['right']:g}."
        )


def label_row(bins: pd.DataFrame, marks: pd.DataFrame, name: str, *, too_few: int, group_words: str) -> Row:
    """Return a label's row from its bins (kind, left, right, density) and its estimates, one for each kind.

    Args:
        bins: as `distance_distributions` takes them, of this label.
        marks: its estimates, with a column `reliable`.
        name: the label in words.
        too_few: fewer positives than this are marked.
        group_words: what `n_groups` counts, in the plural.
    """
    by_kind: dict[str, dict[Any, Any]] = {record["kind"]: record for record in marks.to_dict("records")}
    curves = {str(kind): _outline(part) for kind, part in bins.groupby("kind", sort=False)}
    estimates = {
        kind: (mark["value"], mark["low"], mark["high"], mark["reliable"])
        for kind, mark in ((kind, by_kind[kind]) for kind in KINDS if kind in by_kind)
    }

    def count(column: str, kind: str) -> int | None:
        given = by_kind.get(kind, {}).get(column, math.nan)
        return int(given) if math.isfinite(given) else None

    n_positive, n_negative = count("n", "intra_positive"), count("n", "intra_negative")
    counts = []
    if n_positive is not None and n_negative is not None:
        counts.append(f"{n_positive:,} positive, {n_negative:,} negative")
    groups = count("n_groups", "inter")
    if groups is not None:
        counts.append(f"images of {groups:,} {group_words}" if counts else f"{groups:,} {group_words}")
    warnings = ["too few positives"] if n_positive is not None and n_positive < too_few else []
    return Row(
        curves=curves,
        estimates=estimates,
        name=wrapped(name, _HEADER_MM, bold=True, max_lines=3),
        counts=[line for words in counts for line in wrapped(words, _HEADER_MM)],
        warnings=warnings,
    )


def _outline(bins: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Return a histogram's outline as (x, y); bins that the table leaves out are empty."""
    ordered = bins.sort_values("left")
    left, right = ordered["left"].to_numpy(), ordered["right"].to_numpy()
    density = np.nan_to_num(ordered["density"].to_numpy())
    used = np.flatnonzero(density > 0)
    if used.size:  # the empty bins at either end would draw a line along the axis
        kept = slice(used[0], used[-1] + 1)
        left, right, density = left[kept], right[kept], density[kept]
    x = np.repeat(np.stack([left, right], axis=1).ravel(), 2)
    y = np.stack([np.zeros_like(density), density, density, np.zeros_like(density)], axis=1).ravel()
    touches = np.isclose(right[:-1], left[1:])
    drop = np.zeros(len(x), dtype=bool)
    # Between bins that touch, the outline steps from height to height instead of falling to the axis.
    drop[3:-1:4] = touches
    drop[4::4] = touches
    return x[~drop], y[~drop]


def common_limits(rows: list[Row]) -> tuple[float, float]:
    """Return the common x limits: all curves with any density, and all reliable intervals."""
    ends: list[float] = []
    for row in rows:
        for x, y in row.curves.values():
            ends.extend(x[y > 0])
        for value, low, high, reliable in row.estimates.values():
            ends.extend((value, low, high) if reliable else (value,))
    finite = [end for end in ends if np.isfinite(end)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = 0.02 * (high - low) if high > low else 0.05 * abs(high) or 1.0
    return max(low - margin, 0.0) if low >= 0 else low - margin, high + margin


def full_height(row: Row) -> float:
    """Return the density that fills the row: few positives give spikes, which must not flatten the other curves."""
    peaks = {kind: float(y.max()) for kind, (_, y) in row.curves.items()}
    steady = [peak for kind, peak in peaks.items() if kind != "intra_positive"]
    return (
        min(max(peaks.values(), default=1.0), _OVERSHOOT * max(steady)) if steady else max(peaks.values(), default=1.0)
    )


def is_cut(row: Row) -> bool:
    """Return whether a curve of this row is higher than `full_height`."""
    return any(float(y.max()) > full_height(row) for _, y in row.curves.values())
