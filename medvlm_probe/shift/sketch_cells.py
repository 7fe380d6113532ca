"""Bins of a sketch as cells: runs of neighbouring bins that are told together, and patients that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.shift.sketch import NEGATIVE, POSITIVE, Sketch
from medvlm_probe.shift.sketch_plan import OUTLIER_EDGES, PROBABILITY_EDGES, TENTHS, walls_of
from medvlm_probe.types import FloatArray, IntArray

FEWEST = 10
"""Patients in a cell below which it is not told alone."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Runs of bins that cover all of them.

    Attributes:
        ends: the last bin of each cell, ascending, (m,).
        weights: patients, (m,).
        confidence: sums of weighted probabilities, (m,); 0 for outlier scores.
    """

    ends: NDArray[np.int64]
    weights: Array
    confidence: Array

    def joined(self, ends: IntArray) -> Cells:
        """Return coarser cells, whose ends are among these."""
        into = np.searchsorted(ends, self.ends)
        weights, confidence = (
            np.bincount(into, weights=sums, minlength=len(ends)).astype(np.float64)
            for sums in (self.weights, self.confidence)
        )
        return Cells(np.asarray(ends, dtype=np.int64), weights, confidence)


def run_ends(weights: FloatArray) -> NDArray[np.int64]:
    """Return the last bin of each run that may be told: as short as `FEWEST` patients allow, all bins at the worst.

    Args:
        weights: patients in each bin, (n,), none counting more than once in all; so their sum over a run is at most
            the number of different patients there.
    """
    ends, total = [], 0.0
    for k, weight in enumerate(np.asarray(weights, dtype=np.float64).tolist()):
        total += weight
        if total >= FEWEST:
            ends.append(k)
            total = 0.0
    return np.array([*ends[:-1], len(weights) - 1], dtype=np.int64)


def joint_run_ends(first: FloatArray, second: FloatArray) -> NDArray[np.int64]:
    """Return the last bin of each run that may be told of both rows (n,): as short as `FEWEST` of either allow."""
    ends, totals = [], np.zeros(2)
    for k, weights in enumerate(np.stack([first, second], axis=1)):
        totals += weights
        if totals.min() >= FEWEST:
            ends.append(k)
            totals[:] = 0
    return np.array([*ends[:-1], len(first) - 1], dtype=np.int64)


def told_at(ends: IntArray, *rows: FloatArray) -> tuple[Array, ...]:
    """Return each row (n,) with the sum of every run at its end, and NaN elsewhere."""
    found = []
    starts = np.append(0, np.asarray(ends)[:-1] + 1)
    for row in rows:
        told = np.full(len(row), np.nan)
        told[ends] = np.add.reduceat(np.asarray(row, dtype=np.float64)[: ends[-1] + 1], starts)
        found.append(told)
    return tuple(found)


def label_cells(sketch: Sketch, k: int, value: int) -> Cells | None:
    """Return the cells of label k's probabilities among patients with one value of it; None where nothing is told."""
    return _cells(sketch.label_weights[k, value], sketch.label_confidence[k, value])


def outlier_cells(sketch: Sketch, k: int) -> Cells | None:
    """Return the cells of outlier score k; None where nothing is told."""
    return _cells(sketch.outlier_weights[k], np.zeros_like(sketch.outlier_weights[k]))


def common_cells(first: Cells, second: Cells) -> tuple[Cells, Cells]:
    """Return both on the finest cells that both tell."""
    ends = np.intersect1d(first.ends, second.ends)
    return first.joined(ends), second.joined(ends)


def tenths_of(cells: Cells, threshold: float) -> NDArray[np.int64]:
    """Return the tenth of probability of each cell: where it lies in several, that of its mean, (m,)."""
    tenth = np.searchsorted(TENTHS, np.append(0, walls_of(threshold)), side="right")
    first, last = tenth[np.append(0, cells.ends[:-1] + 1)], tenth[cells.ends]
    means = cells.confidence / np.where(cells.weights > 0, cells.weights, 1)
    return np.where(first == last, last, np.searchsorted(TENTHS, means, side="right")).astype(np.int64)


def outlier_centres(ends: IntArray) -> Array:
    """Return the middle of each cell of an outlier score, the outer ones being as wide as their neighbours, (m,)."""
    inner = OUTLIER_EDGES[np.asarray(ends)[:-1]]
    if len(inner) < 2:
        return np.asarray(np.append(inner, inner + 1) if len(inner) else np.zeros(1), dtype=np.float64)
    edges = np.concatenate([[2 * inner[0] - inner[1]], inner, [2 * inner[-1] - inner[-2]]])
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def whole_patients(weights: FloatArray) -> NDArray[np.int64]:
    """Return whole numbers that add up to the rounded sum, each cumulative sum being off by at most a half, (m,)."""
    return np.diff(np.round(np.cumsum(weights)), prepend=0.0).astype(np.int64)


@dataclass(frozen=True, eq=False)
class StandIns:
    """One label's patients as a sketch tells of them, one image each.

    Attributes:
        cell: of each patient's probability, (n,).
        present: bool (n,).
        centres: a probability inside of each cell: the mean there, (m,).
        walls: between the cells, (m - 1,); a probability that equals a wall lies above it.
    """

    cell: NDArray[np.int64]
    present: NDArray[np.bool_]
    centres: Array
    walls: Array

    @property
    def tied_pairs(self) -> float:
        """Share of pairs of a positive and a negative that lie in one cell, in [0, 1]; NaN without either."""
        counts = [np.bincount(self.cell[self.present == kind], minlength=len(self.centres)) for kind in (True, False)]
        pairs = float(counts[0].sum()) * float(counts[1].sum())
        return float(counts[0] @ counts[1]) / pairs if pairs else float("nan")

    def snapped(self, probabilities: FloatArray) -> Array:
        """Return probabilities (n,) as coarse as the sketch tells the reference's."""
        return np.asarray(self.centres[np.searchsorted(self.walls, probabilities, side="right")])


def stand_ins(sketch: Sketch, k: int, *, most: int) -> StandIns | None:
    """Return patients that stand for those with a known value of label k; None where either value is not told.

    Args:
        sketch: of either kind.
        k: the label.
        most: patients in the sketch beyond which all counts are scaled down to it.
    """
    cells = [label_cells(sketch, k, value) for value in (POSITIVE, NEGATIVE)]
    if cells[0] is None or cells[1] is None:
        return None
    positive, negative = common_cells(cells[0], cells[1])
    scale = min(1.0, most / max(sketch.n_patients, 1.0))
    counts = [whole_patients(side.weights * scale) for side in (positive, negative)]
    walls = walls_of(sketch.plan.thresholds[k])[positive.ends[:-1]]
    edges = special.logit(np.concatenate([[PROBABILITY_EDGES[0] / 4], walls, [1 - (1 - PROBABILITY_EDGES[-1]) / 4]]))
    middles = special.expit((edges[1:] + edges[:-1]) / 2)
    weights, sums = positive.weights + negative.weights, positive.confidence + negative.confidence
    means = np.divide(sums, weights, out=middles.copy(), where=weights > 0)
    # Rounding, or noise in an export, can carry a mean out of its cell.
    centres = np.clip(means, special.expit(edges[:-1]), np.nextafter(special.expit(edges[1:]), 0))
    cell = np.concatenate([np.repeat(np.arange(len(centres)), count) for count in counts])
    present = np.repeat([True, False], [int(count.sum()) for count in counts])
    return StandIns(cell.astype(np.int64), present, centres, walls)


def called_bins(threshold: float) -> int:
    """Return the first bin of a label that is called."""
    return int(np.searchsorted(walls_of(threshold), threshold, side="right"))


def coarse_label_ends(threshold: float) -> NDArray[np.int64]:
    """Return the last bins of a label's tenths of probability, that of the threshold being split there."""
    walls = walls_of(threshold)
    ends = np.flatnonzero(np.isin(walls, TENTHS) | (walls == threshold))
    return np.append(ends, len(walls)).astype(np.int64)


def coarse_outlier_ends() -> NDArray[np.int64]:
    """Return the last bins of every fifty of an outlier score."""
    n_bins = len(OUTLIER_EDGES) + 1
    return np.append(np.arange(49, n_bins - 1, 50), n_bins - 1).astype(np.int64)


def _cells(weights: FloatArray, confidence: FloatArray) -> Cells | None:
    ends = np.flatnonzero(~np.isnan(weights)).astype(np.int64)
    if not len(ends):
        return None
    told: Sequence[Array] = [np.maximum(np.asarray(row)[ends], 0.0) for row in (weights, confidence)]
    if ends[-1] != len(weights) - 1:
        ends = np.append(ends, len(weights) - 1)
        told = [np.append(row, 0.0) for row in told]
    return Cells(ends, *told)
