"""Tables of calibration diagrams: reliability by bin with intervals and band, confidence of right and wrong answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.calibration_bins import Binning, answers, bin_edges, bins_of
from medvlm_probe.metrics.calibration_null import calibrated_uniforms, within_group_correlation
from medvlm_probe.metrics.calibration_outcomes import outcomes_of
from medvlm_probe.metrics.permutation import null_band
from medvlm_probe.metrics.proportions import proportion_bounds
from medvlm_probe.types import BoolArray, IntArray


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram as a table, one row a bin, (b,) each; NaN where a bin is empty.

    Attributes:
        low, high: the bin's edges.
        n, n_groups: its images and groups.
        confidence: mean confidence.
        frequency: share of answers that came true.
        frequency_low, frequency_high: the frequency's interval, Wilson's on the groups' effective n.
        band_low, band_high: where the frequency lies for a perfectly calibrated model; NaN unless asked for.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]
    n_groups: NDArray[np.int64]
    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    frequency_low: NDArray[np.float64]
    frequency_high: NDArray[np.float64]
    band_low: NDArray[np.float64]
    band_high: NDArray[np.float64]

    def rows(self) -> list[dict[str, float | int]]:
        """Return one dict a bin, for tables."""
        names = list(self.__dataclass_fields__)
        return [{name: getattr(self, name)[b].item() for name in names} for b in range(len(self.n))]


def reliability_bins(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: IntArray | None = None,
    *,
    n_bins: int = 10,
    binning: Binning = "width",
    rng: np.random.Generator | None = None,
    draws: BoolArray | None = None,
) -> ReliabilityBins:
    """Return the table of a reliability diagram.

    Args:
        probabilities, labels: as in `expected_calibration_error`.
        groups: the independently sampled group of each image, (n,); by default each its own.
        n_bins: at least 1.
        binning: bins of equal `width` or `mass`.
        rng: draws the band: 1,000 outcomes of each image from its probability, correlated within groups as far as the
            data show. Without it and `draws` the band is NaN.
        draws: such outcomes that are there already, bool (B, images with a known label).

    Raises:
        InputError: what is given does not fit.
    """
    found = outcomes_of(probabilities, labels)
    c, y = found.confidence, found.correct
    own = np.arange(len(c)) if groups is None else np.unique(np.asarray(groups)[found.kept], return_inverse=True)[1]
    edges = bin_edges(c, n_bins, binning)
    bins = bins_of(c, edges)
    size = len(edges) + 1
    n = np.bincount(bins, minlength=size)
    drawn = None
    if draws is not None:
        drawn = _hits(draws, bins, size)
    elif rng is not None and len(c):
        blocks = calibrated_uniforms(own, 1000, within_group_correlation(c, y, own), rng)
        drawn = np.concatenate([_hits(u < c, bins, size) for u in blocks])
    blank = np.full((6, size), np.nan)
    mean, frequency, low, high, band_low, band_high = blank
    groups_in = np.zeros(size, dtype=np.int64)
    for b in np.flatnonzero(n):
        inside = bins == b
        codes = np.unique(own[inside], return_inverse=True)[1]
        counts = np.bincount(codes).astype(np.float64)
        hits = np.bincount(codes, weights=y[inside].astype(np.float64)).astype(np.float64)
        groups_in[b] = len(counts)
        mean[b], frequency[b] = c[inside].mean(), y[inside].mean()
        low[b], high[b] = proportion_bounds(hits, counts)
        if drawn is not None:
            band = null_band(drawn[:, b] / n[b])
            band_low[b], band_high[b] = band.low, band.high
    outer = np.concatenate([[0.0], edges, [1.0]])
    return ReliabilityBins(outer[:-1], outer[1:], n, groups_in, mean, frequency, low, high, band_low, band_high)


def _hits(outcomes: BoolArray, bins: IntArray, size: int) -> NDArray[np.float64]:
    """Return how many outcomes of each row (B, n) came true in each bin, (B, size)."""
    return np.stack([np.bincount(bins, weights=row, minlength=size) for row in outcomes])


def confidence_histogram(
    probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 20
) -> list[dict[str, float | int]]:
    """Return how confident right and wrong answers are, one dict a bin of equal width: low, high, n_right, n_wrong.

    The answer for (n,) is "present" from .5 on at confidence p, else "absent" at 1 - p; for (n, K) it is the top label.
    Arguments and errors as in `expected_calibration_error`.
    """
    confidence, right = answers(probabilities, labels)
    bins = bins_of(confidence, bin_edges(confidence, n_bins, "width"))
    counts = [np.bincount(bins[mask], minlength=n_bins) for mask in (right, ~right)]
    return [
        {"low": b / n_bins, "high": (b + 1) / n_bins, "n_right": int(counts[0][b]), "n_wrong": int(counts[1][b])}
        for b in range(n_bins)
    ]
