"""Perceptual hashes of radiographs, and the pairs whose hashes are near, found without comparing all pairs.

The hash is a DCT hash ("pHash", Zauner 2010) of 126 bits: which of the 126 lowest frequencies of a thumbnail of 32 x 32
lie above their median. Chest radiographs look alike, so the usual 64 bits do not tell them apart: of the pairs of
different patients among 4,578 real radiographs, one in a thousand is as near in 64 bits as a copy that lost 2 % at each
edge; of 126 bits, 36 pairs of 10.5 million differ in 17 or fewer.

Near pairs are found by multi-index hashing (Norouzi, Punjani and Fleet 2012): two hashes that differ in at most 11 bits
differ in at most one bit in at least one of 6 bands of 21 bits (pigeonhole), so each band is looked up as it is and
with each of its bits flipped. Of the pairs that differ in 12 to 17 bits, most agree in a band as well, and are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 32
N_BANDS, BAND_BITS = 6, 21
GUARANTEED_DISTANCE = 2 * N_BANDS - 1
MAX_DISTANCE = 17
ALL_BITS = np.uint32((1 << BAND_BITS) - 1)
"""What inverts the bits of a band, and so the hash of an image into that of its negative."""

_FREQUENCIES = 16
_BLOCK = 1 << 20

Thumbnails = NDArray[np.uint8]
Hashes = NDArray[np.uint32]

_MASKS = np.array([0, *(1 << bit for bit in range(BAND_BITS))], np.int64)


def thumbnail(image: Image) -> Thumbnails:
    """Return an image as grey values, uint8 (32, 32), squashed to a square."""
    from PIL import Image as PillowImage

    grey = image if image.mode == "L" else image.convert("L")
    small = grey.resize((THUMBNAIL, THUMBNAIL), PillowImage.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(small, dtype=np.uint8)


def hashes(thumbnails: NDArray[np.floating | np.uint8]) -> Hashes:
    """Return the hash of each thumbnail (n, 32, 32) as bands, uint32 (n, 6)."""
    cosines = _dct_rows()
    found = np.empty((len(thumbnails), N_BANDS), np.uint32)
    for start in range(0, len(thumbnails), 4096):
        block = thumbnails[start : start + 4096].astype(np.float32)
        coefficients = (cosines @ block @ cosines.T).reshape(len(block), -1)[:, _lowest()]
        bits = coefficients > np.median(coefficients, axis=1, keepdims=True)
        # Neighbouring frequencies go to different bands, so that one change does not spoil a whole band's neighbours.
        bands = bits.reshape(len(block), BAND_BITS, N_BANDS).transpose(0, 2, 1)
        found[start : start + 4096] = bands @ (1 << np.arange(BAND_BITS, dtype=np.int64))
    return found


def distances(first: Hashes, second: Hashes) -> NDArray[np.int64]:
    """Return in how many of 126 bits hashes (n, 6) differ (n,)."""
    found: NDArray[np.int64] = _ones()[first ^ second].sum(axis=1, dtype=np.int64)
    return found


def near_pairs(queries: Hashes, index: Hashes, *, symmetric: bool = False) -> NDArray[np.int64]:
    """Return pairs (query, row of `index`) that differ in at most 17 bits, sorted, each once (m, 2).

    Every pair that differs in at most 11 bits is among them. Time follows the pairs that agree in a band (of real
    radiographs, 2 in a thousand pairs do), of which about a million are held at once.

    Args:
        queries: hashes (q, 6).
        index: hashes (n, 6).
        symmetric: row i against j is near as j against i is; only pairs with i < j are looked at and returned.
    """
    found = [np.zeros((0, 2), np.int64)]
    for band in range(N_BANDS):
        order = np.argsort(index[:, band], kind="stable")
        counts = np.bincount(index[:, band], minlength=1 << BAND_BITS)
        starts = np.cumsum(counts) - counts
        words = queries[:, band].astype(np.int64)
        for mask in _MASKS.tolist():
            keys = words ^ mask
            for first, slots in _collisions(counts[keys], starts[keys]):
                second = order[slots]
                if symmetric:
                    first, second = first[first < second], second[first < second]
                near = distances(queries[first], index[second]) <= MAX_DISTANCE
                found.append(np.stack([first[near], second[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _collisions(
    counts: NDArray[np.int64], starts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the queries and the slots of the index that share a band, in blocks of about a million."""
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts[rows])
    first = 0
    while first < len(rows):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        part = rows[first:last]
        n = counts[part]
        offsets = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        yield np.repeat(part, n), np.repeat(starts[part], n) + offsets
        first = last


@lru_cache(maxsize=1)
def _ones() -> NDArray[np.uint8]:
    """Return how many bits of each word of a band are set."""
    found = np.zeros(1, np.uint8)
    for _ in range(BAND_BITS):
        found = np.concatenate([found, found + np.uint8(1)])
    return found


def _dct_rows() -> NDArray[np.float32]:
    """Return the 16 lowest rows of the orthonormal DCT-II of 32 points (16, 32)."""
    k, x = np.arange(_FREQUENCIES)[:, None], np.arange(THUMBNAIL)
    rows = np.sqrt(2 / THUMBNAIL) * np.cos(np.pi * (2 * x + 1) * k / (2 * THUMBNAIL))
    rows[0] /= np.sqrt(2)
    found: NDArray[np.float32] = rows.astype(np.float32)
    return found


def _lowest() -> NDArray[np.int64]:
    """Return the places of the 126 lowest frequencies but the mean in a 16 x 16 square, lowest sum of both first."""
    rows, columns = np.divmod(np.arange(_FREQUENCIES**2), _FREQUENCIES)
    return np.lexsort((rows, rows + columns))[1 : N_BANDS * BAND_BITS + 1]
