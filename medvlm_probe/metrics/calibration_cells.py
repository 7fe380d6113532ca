"""Many confidences gathered in a few thousand narrow cells, so that what compares each with each stays affordable.

The cells have equal widths in the angle arcsin sqrt(p), in which a beta kernel is about equally wide everywhere: at the
narrowest bandwidth its standard deviation is 13 cells or more. What is rounded is where in its cell an image lies,
never whether its answer came true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.types import BoolArray, FloatArray

CELLS_ABOVE = 20_000
"""Up to so many images kernel densities and null bands take every image by itself; beyond, cells stand for images."""

N_CELLS = 4_096


@dataclass(frozen=True, eq=False)
class Cells:
    """Which of K cells, all in use, each of n confidences lies in; cells ascend.

    Attributes:
        of: cell of each image, (n,).
        counts: images in each, (K,).
        mean: their mean confidence, (K,).
        representative: an image of each cell, in the middle of it by confidence, (K,).
        tied: whether all its confidences are equal, (K,).
    """

    of: NDArray[np.int64]
    counts: NDArray[np.int64]
    mean: NDArray[np.float64]
    representative: NDArray[np.int64]
    tied: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.counts)

    def sums(self, values: FloatArray | BoolArray) -> NDArray[np.float64]:
        """Return the sum of values (n,) in each cell, (K,)."""
        return np.bincount(self.of, weights=values, minlength=len(self)).astype(np.float64)


def cells_of(confidence: FloatArray, edges: Sequence[float] | FloatArray = ()) -> Cells:
    """Return at most 4,096 cells between the smallest and the largest confidence, split further at some edges.

    Args:
        confidence: in [0, 1], (n,), at least one.
        edges: no cell reaches across one; they belong to the cell above them.
    """
    first, last = (float(np.arcsin(np.sqrt(p))) for p in (confidence.min(), confidence.max()))
    angle = np.linspace(first, last, N_CELLS + 1)[1:-1]
    inner = np.unique(np.concatenate([np.sin(angle) ** 2, np.asarray(edges, dtype=np.float64)]))
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order]
    starts = np.unique(np.concatenate([[0], np.searchsorted(ordered, inner)]))
    starts = starts[starts < len(ordered)]
    counts = np.diff(np.append(starts, len(ordered)))
    of = np.empty(len(ordered), dtype=np.int64)
    of[order] = np.repeat(np.arange(len(starts)), counts)
    return Cells(
        of,
        counts.astype(np.int64),
        np.add.reduceat(ordered, starts) / counts,
        order[starts + counts // 2],
        ordered[starts] == ordered[starts + counts - 1],
    )


def risk_coverage_of_cells(cells: Cells, confidence: FloatArray, wrong: FloatArray) -> NDArray[np.float64]:
    """Return the area under the risk-coverage curve of each row of wrong answers by cell (b, K), (b,).

    Args:
        cells: no cell holds answers of two kinds.
        confidence: of each cell's answers, (K,). Within a cell the errors are spread evenly over it; where all its
            answers are tied they are taken together, with those of other cells of that confidence.
        wrong: how many answers of each cell are wrong, (b, K).
    """
    order = np.argsort(-confidence, kind="stable")
    counts, here = cells.counts[order].astype(np.float64), wrong[:, order]
    after = np.cumsum(counts)
    before = after - counts
    wrong_after = np.cumsum(here, axis=1)
    rate = here / counts
    # The mean over t in (0, counts) of (wrong before + rate t) / (before + t).
    grown = np.log(after / np.where(before > 0, before, after))
    spread = here + ((wrong_after - here) - rate * before) * grown
    ordered = -confidence[order]
    end = np.searchsorted(ordered, ordered, side="right") - 1
    together = counts * wrong_after[:, end] / after[end]
    return np.asarray(np.where(cells.tied[order], together, spread).sum(axis=1) / after[-1])
