"""From stored grey values to 8 bits: histograms, percentile ends, and one table look-up a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 17


def histogram(cells: NDArray[np.unsignedinteger], n: int) -> NDArray[np.int64]:
    """Return how often each of the values 0 to n - 1 occurs; `cells` has any shape."""
    flat = cells.reshape(-1)
    counts = np.zeros(n, dtype=np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=n)
    return counts


def percentile_ends(
    values: NDArray[np.float64], counts: NDArray[np.int64], percentiles: tuple[float, float]
) -> tuple[float, float]:
    """Return the smallest values that the given shares of the pixels do not exceed (the inverse of the distribution).

    Args:
        values: one number a table entry, in any order.
        counts: how many pixels have it; where all are 0, both ends are the smallest value.
        percentiles: lower and upper, 0 to 100.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    wanted = np.maximum(np.ceil(np.asarray(percentiles) / 100 * reached[-1]), 1)
    low, high = values[order][np.minimum(np.searchsorted(reached, wanted), len(values) - 1)]
    return (float(low), float(high)) if reached[-1] else (float(values.min()),) * 2


def linear(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return values between two ends as 0 to 1, clipped; where the ends are equal, what exceeds them is 1."""
    if high <= low:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0, 1)


def to_bytes(shown: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return 0 to 1 as 0 to 255, rounded to the nearest."""
    return np.floor(shown * 255 + 0.5).astype(np.uint8)


def look_up(table: NDArray[np.uint8], cells: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Return `table[cells]` as an array of the cells' shape; every cell must be below the table's length."""
    flat = cells.reshape(-1)
    out = np.empty(flat.size, dtype=np.uint8)
    for start in range(0, flat.size, _BLOCK):
        # In blocks that stay in the cache: the look-up widens its indices to 64 bits. mode="clip" spares a buffer.
        np.take(table, flat[start : start + _BLOCK], out=out[start : start + _BLOCK], mode="clip")
    return out.reshape(cells.shape)
