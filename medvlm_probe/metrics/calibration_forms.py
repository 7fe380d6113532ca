"""The calibration errors as sizes of mean residuals: one table that intervals and null bands both read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.calibration_bins import Binning, bin_edges, bins_of
from medvlm_probe.metrics.calibration_cells import CELLS_ABOVE
from medvlm_probe.metrics.calibration_intervals import ResidualForm, total
from medvlm_probe.metrics.calibration_kernel import kde_bandwidth, kernel_weights, kernel_weights_by_cell, smooth
from medvlm_probe.types import FloatArray, IntArray

KERNEL_POINTS = 96
"""Images, evenly spaced in order of confidence, at which bands and intervals evaluate the kernel regression."""

SMOOTH_TERMS = 128
"""Cosine terms in which bands and intervals see the residuals of smECE."""


def binned_form(confidence: FloatArray, n_bins: int, binning: Binning) -> ResidualForm:
    """Return ECE (bins of equal width) or adaptive ECE (equal mass)."""
    bins, size = _bins(confidence, n_bins, binning)
    n = len(confidence)
    return ResidualForm(
        matrix=lambda rows: np.eye(size)[bins[rows]] / n,
        size=total,
        share=lambda rows: np.full((len(rows), size), 1 / n),
        offset=np.zeros(size),
    )


def maximum_form(confidence: FloatArray, n_bins: int) -> ResidualForm:
    """Return MCE: the largest mean residual of a bin."""
    bins, _ = _bins(confidence, n_bins, "width")
    used, bins = np.unique(bins, return_inverse=True)
    counts = np.bincount(bins, minlength=len(used)).astype(np.float64)

    def matrix(rows: IntArray) -> NDArray[np.float64]:
        return np.eye(len(used))[bins[rows]] / counts

    return ResidualForm(matrix, lambda x: np.asarray(np.abs(x).max(axis=-1)), matrix, np.zeros(len(used)))


def kernel_form(confidence: FloatArray, points: int = KERNEL_POINTS) -> ResidualForm:
    """Return the kernel density's error, with its beta kernel and default bandwidth, at evenly spaced images."""
    at = evenly_spaced(confidence, points)
    if len(confidence) > CELLS_ABOVE:
        weights, cell = kernel_weights_by_cell(confidence, at, kde_bandwidth(confidence))
        smoothed = weights @ np.bincount(cell, weights=confidence)
    else:
        weights, cell = kernel_weights(confidence, at, kde_bandwidth(confidence)), np.arange(len(confidence))
        smoothed = weights @ confidence
    transposed = np.ascontiguousarray(weights.T)

    def matrix(rows: IntArray) -> NDArray[np.float64]:
        return transposed[cell[rows]]

    return ResidualForm(
        matrix=matrix,
        size=lambda x: np.asarray(np.abs(x).mean(axis=-1)),
        share=matrix,
        offset=smoothed - confidence[at],
    )


def evenly_spaced(confidence: FloatArray, points: int) -> NDArray[np.int64]:
    """Return the numbers of at most so many images, evenly spaced in order of confidence."""
    n = len(confidence)
    places = np.unique(np.round((np.arange(min(points, n)) + 0.5) / min(points, n) * n - 0.5).astype(np.int64))
    return np.asarray(np.argsort(confidence, kind="stable")[places])


def smooth_form(confidence: FloatArray, terms: int = SMOOTH_TERMS) -> ResidualForm:
    """Return smECE in its first cosine terms."""
    n, frequency = len(confidence), np.pi * np.arange(terms)
    return ResidualForm(
        matrix=lambda rows: np.cos(confidence[rows, None] * frequency) / n,
        size=smooth,
        share=lambda rows: np.full((len(rows), terms), 1 / n),
        offset=np.zeros(terms),
    )


@dataclass(frozen=True)
class FormKind:
    """A calibration error by name: its form from confidences, and what its interval needs.

    Attributes:
        form: of confidences (n,) and a number of bins.
        least_in_bin: images that the emptiest bin in use must hold for the interval to count as reliable.
        least_of_either: answers that come true, and that do not, which there must be for it.
    """

    form: Callable[[FloatArray, int], ResidualForm]
    least_in_bin: int = 0
    least_of_either: int = 0


FORMS: Mapping[str, FormKind] = {
    "ece": FormKind(lambda c, bins: binned_form(c, bins, "width")),
    "ace": FormKind(lambda c, bins: binned_form(c, bins, "mass"), least_of_either=10),
    "mce": FormKind(maximum_form, least_in_bin=10),
    "ece_kde": FormKind(lambda c, _: kernel_form(c), least_of_either=30),
    "smooth_ece": FormKind(lambda c, _: smooth_form(c), least_of_either=10),
}
"""The calibration errors that are sizes of mean residuals."""


def mean_form(forms: Sequence[ResidualForm], sizes: Sequence[int]) -> ResidualForm:
    """Return the mean of several forms, each over its own entries; their entries are numbered one after another.

    Args:
        forms: one a label or class.
        sizes: their numbers of entries.
    """
    widths = [len(form.offset) for form in forms]
    columns = np.concatenate([[0], np.cumsum(widths)])
    begins = np.concatenate([[0], np.cumsum(sizes)])

    def placed(
        part: Callable[[ResidualForm], Callable[[IntArray], NDArray[np.float64]]],
    ) -> Callable[..., NDArray[np.float64]]:
        def rows_of(rows: IntArray) -> NDArray[np.float64]:
            out = np.zeros((len(rows), int(columns[-1])))
            owner = np.searchsorted(begins, rows, side="right") - 1
            for k in np.unique(owner):
                mine = owner == k
                out[mine, columns[k] : columns[k + 1]] = part(forms[k])(rows[mine] - begins[k])
            return out

        return rows_of

    def size(x: FloatArray) -> NDArray[np.float64]:
        parts = [form.size(x[..., columns[k] : columns[k + 1]]) for k, form in enumerate(forms)]
        return np.asarray(sum(parts[1:], parts[0]) / len(parts))

    return ResidualForm(
        placed(lambda form: form.matrix),
        size,
        placed(lambda form: form.share),
        np.concatenate([f.offset for f in forms]),
    )


def _bins(confidence: FloatArray, n_bins: int, binning: Binning) -> tuple[NDArray[np.int64], int]:
    edges = bin_edges(confidence, n_bins, binning)
    return bins_of(confidence, edges), len(edges) + 1
