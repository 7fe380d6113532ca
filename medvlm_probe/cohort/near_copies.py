"""Near-identical images: re-encoded, resized, re-windowed, slightly cropped, mirrored or inverted copies.

Candidates have near perceptual hashes: of the image as it is, with 2 % cut at each edge, mirrored, or inverted. One
counts when thumbnails, band-passed so that the chest that all radiographs share weighs less, correlate to .975 or more
after the best of a few small crops and shifts.

Both bounds were chosen on 4,578 real radiographs of four hospitals, each beside a changed copy of itself. Found were:
JPEG of quality 50, half and double size, 16 bits and back, gamma .8 and 1.3, mirrored, inverted: all; a narrower
window: .999; 1 % cut at each edge: .999; 2 %: .998; 4 %: .55; 2 % cut at one edge: .98, at two neighbouring ones: .94;
turned by 2 degrees: .07. Of 42 million pairs in each of these sets, none of different patients was taken for a copy;
the nearest two patients reach .944. Phantoms of different patients, which are more alike, reach .97. A thumbnail is no
proof all the same: look at what is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.perceptual_hash import ALL_BITS, THUMBNAIL, Hashes, Thumbnails, hashes, near_pairs

Change = Literal["same way up", "mirrored", "inverted"]

MIN_CORRELATION = 0.975
_HASHED_CROP = 0.02
_CROPS, _SHIFT = (0.0, 0.01, 0.02, 0.03), 0.01
_WORTH_ALIGNING = 0.6
_LEAST_CONTRAST = 2.0
_BLUR, _BACKGROUND = 0.7, 2.0
_BLOCK = 512

Images = NDArray[np.float32]


@dataclass(frozen=True)
class NearPairs:
    """Pairs of near-identical images, each once.

    Attributes:
        pairs: rows of the thumbnails, the smaller first (m, 2).
        correlation: how alike they are after alignment (m,), at least `MIN_CORRELATION`.
        change: what else was done to one of them.
    """

    pairs: NDArray[np.int64]
    correlation: NDArray[np.float32]
    change: tuple[Change, ...]


def find_near_copies(thumbnails: Thumbnails) -> NearPairs:
    """Return the near-identical pairs among thumbnails (n, 32, 32); those without contrast are like nothing."""
    rows = np.flatnonzero(thumbnails.std(axis=(1, 2)) >= _LEAST_CONTRAST)
    shown = thumbnails[rows]
    index = hashes(shown)
    queries: list[tuple[Change, Hashes, bool]] = [
        ("same way up", index, True),
        ("same way up", hashes(_cropped(shown)), False),
        ("mirrored", hashes(shown[:, :, ::-1]), False),
        ("inverted", index ^ ALL_BITS, True),
    ]
    best: dict[tuple[int, int], tuple[float, Change]] = {}
    for change, query, symmetric in queries:
        pairs = near_pairs(query, index, symmetric=symmetric)
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        scores = _aligned(shown, pairs, change)
        alike = scores >= MIN_CORRELATION
        for (i, j), score in zip(rows[pairs[alike]].tolist(), scores[alike].tolist(), strict=True):
            if score > best.get((i, j), (0.0, change))[0]:
                best[i, j] = (score, change)
    found = sorted(best)
    return NearPairs(
        pairs=np.array(found, np.int64).reshape(-1, 2),
        correlation=np.array([best[pair][0] for pair in found], np.float32),
        change=tuple(best[pair][1] for pair in found),
    )


def aligned_correlation(first: Images, second: Images) -> NDArray[np.float32]:
    """Return the largest correlation of band-passed thumbnails (n, 32, 32) over small crops of either, (n,) in [-1, 1].

    Either one is cropped by 0 to 3 % at each edge, shifted by up to 1 %.
    """
    best = _correlation(first, second, 0, 0)
    rows = np.flatnonzero((best < MIN_CORRELATION) & (best > _WORTH_ALIGNING))
    for one, other in ((first, second), (second, first)):
        for down, right in _alignments():
            best[rows] = np.maximum(best[rows], _correlation(one[rows], other[rows], down, right))
    return best


def _aligned(thumbnails: Thumbnails, pairs: NDArray[np.int64], change: Change) -> NDArray[np.float32]:
    scores = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        part = pairs[start : start + _BLOCK]
        first, second = (thumbnails[part[:, side]].astype(np.float32) for side in (0, 1))
        if change == "mirrored":
            first = first[:, :, ::-1]
        elif change == "inverted":
            first = 255 - first
        scores[start : start + _BLOCK] = aligned_correlation(first, second)
    return scores


def _correlation(first: Images, second: Images, down: int, right: int) -> NDArray[np.float32]:
    """Return the correlation of `first` under an alignment with `second` as it is."""
    one, other = _band_passed(first, down, right), _band_passed(second, 0, 0)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float32] = (one * other).sum(axis=1) / np.maximum(norms, 1)
    return found


def _band_passed(images: Images, down: int, right: int) -> NDArray[np.float32]:
    """Return flat images (n, 1024): cropped as an alignment says, blurred, less their surroundings, with mean 0."""
    fine, coarse = _matrices()
    flat = _sandwich(fine[down], images, fine[right]) - _sandwich(coarse[down], images, coarse[right])
    flat = flat.reshape(len(images), THUMBNAIL * THUMBNAIL)
    centred: NDArray[np.float32] = flat - flat.mean(axis=1, keepdims=True)
    return centred


def _cropped(thumbnails: Thumbnails) -> Images:
    crop = _crop_matrix(_HASHED_CROP, _HASHED_CROP)
    return _sandwich(crop, thumbnails.astype(np.float32), crop)


def _sandwich(left: NDArray[np.float32], images: Images, right: NDArray[np.float32]) -> Images:
    found: Images = left @ (images @ right.T)
    return found


@lru_cache(maxsize=1)
def _placements() -> tuple[tuple[float, float], ...]:
    """Return what is cut at the near and the far edge in one direction; the first cuts nothing."""
    return ((0.0, 0.0), *((crop + shift, crop - shift) for crop in _CROPS[1:] for shift in (-_SHIFT, 0.0, _SHIFT)))


@lru_cache(maxsize=1)
def _alignments() -> tuple[tuple[int, int], ...]:
    """Return the pairs of placements (down, right) of equal crop, but the one that changes nothing."""
    n = len(_CROPS[1:])
    return tuple((3 * c + i, 3 * c + j) for c in range(n) for i in (1, 2, 3) for j in (1, 2, 3))


@lru_cache(maxsize=1)
def _matrices() -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    fine, coarse = _blur_matrix(_BLUR), _blur_matrix(_BACKGROUND)
    crops = [_crop_matrix(*cut) for cut in _placements()]
    return [fine @ crop for crop in crops], [coarse @ crop for crop in crops]


def _crop_matrix(near: float, far: float) -> NDArray[np.float32]:
    """Return the matrix (32, 32) that resamples a line of pixels after shares of it are cut at either end."""
    places = (near + (np.arange(THUMBNAIL) + 0.5) / THUMBNAIL * (1 - near - far)) * THUMBNAIL - 0.5
    places = np.clip(places, 0, THUMBNAIL - 1)
    left = np.minimum(places.astype(int), THUMBNAIL - 2)
    matrix = np.zeros((THUMBNAIL, THUMBNAIL), np.float32)
    rows = np.arange(THUMBNAIL)
    matrix[rows, left] = 1 - (places - left)
    matrix[rows, left + 1] = places - left
    return matrix


def _blur_matrix(sigma: float) -> NDArray[np.float32]:
    """Return the matrix (32, 32) of a Gaussian blur along a line; weights at the ends are scaled to a sum of 1."""
    places = np.arange(THUMBNAIL)
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
