"""Maps that know nothing of the image: flat, centred, or the mean region of another split. They set chance levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.saliency.localization_measures import HIT_AT, at_peak, diagonal, hit_of, mass_of, otsu_of, overlap
from medvlm_probe.types import BoolArray, FloatArray

CHANCES = {
    "uniform": "a flat map: every pixel alike",
    "centre": "a Gaussian in the image's centre, its standard deviation a quarter of the width and of the height",
    "prior": "the mean region of the label on another split",
}
"""The chance levels, by the names that files carry; `prior` where there is another split."""

CENTRE_SPREAD = 0.25
PRIOR_GRID = 64


@dataclass(frozen=True, eq=False)
class FixedMap:
    """A map that is the same for every image of a size: values (H, W), larger where a finding is likelier."""

    values: NDArray[np.float32]

    @cached_property
    def order(self) -> NDArray[np.int32]:
        """Pixels from the highest value on, (H W,)."""
        return np.argsort(-self.values, axis=None, kind="stable").astype(np.int32)

    @cached_property
    def last_of_tie(self) -> BoolArray:
        """Which places of `order` end a run of equal values, (H W,)."""
        ranked = self.values.ravel()[self.order]
        return np.append(ranked[1:] != ranked[:-1], True)

    @cached_property
    def otsu(self) -> float:
        """Otsu's threshold of the values."""
        return otsu_of(self.values.ravel())


@lru_cache(maxsize=8)
def centred_map(height: int, width: int) -> FixedMap:
    """Return the centred Gaussian of an image's size."""
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    squares = (y[:, None] ** 2 + x[None, :] ** 2) / CENTRE_SPREAD**2
    return FixedMap(np.exp(-squares / 2).astype(np.float32))


@dataclass(frozen=True, eq=False)
class RegionPrior:
    """Where a label's regions lie on another split, on a grid that covers an image of any size.

    Attributes:
        share: how often each cell is covered, in [0, 1], (64, 64).
        n: the regions behind it.
        source: the split.
    """

    share: NDArray[np.float64]
    n: int
    source: str


@lru_cache(maxsize=8)
def prior_map(prior: RegionPrior, height: int, width: int) -> FixedMap:
    """Return a prior as a map of an image's size, bilinear between the cells' centres."""
    rows, columns = _between(height, len(prior.share)), _between(width, len(prior.share))
    return FixedMap((rows @ prior.share @ columns.T).astype(np.float32))


def region_prior(masks: Iterable[BoolArray], source: str) -> RegionPrior:
    """Return the mean of regions, each bool (H, W) of any size, from images that no result uses.

    Raises:
        InputError: no regions.
    """
    total, n = np.zeros((PRIOR_GRID, PRIOR_GRID)), 0
    for mask in masks:
        height, width = mask.shape
        total += _averaging(height, PRIOR_GRID) @ mask.astype(np.float64) @ _averaging(width, PRIOR_GRID).T
        n += 1
    if not n:
        raise InputError(f"Split '{source}' has no region, so there is no prior. Leave the prior out.")
    return RegionPrior(total / n, n, source)


def uniform_chance(inside: BoolArray, distances: FloatArray, size: tuple[int, int]) -> dict[str, float]:
    """Return what a flat map scores, exactly: expected values over its ties.

    Its thresholded form is everything that was seen; that has the greatest expected IoU of all sets drawn at random.

    Args:
        inside: which seen pixels lie in the region, (n,).
        distances: from each seen pixel to the region, (n,).
        size: height and width of the image.
    """
    share = float(inside.mean())
    distance = float(distances.mean())
    return {
        "pointing_game": share,
        "hit_rate": float(share >= HIT_AT),
        "iou": share,
        "relevance_mass": share,
        "average_precision": share,
        "peak_distance": distance / diagonal(*size),
        "peak_distance_pixels": distance,
    }


def fixed_chance(
    fixed: FixedMap, seen: BoolArray | None, mask: BoolArray, distances: FloatArray, threshold: float | None
) -> dict[str, float]:
    """Return what a map that is the same for every image scores on one image.

    Args:
        fixed: of the image's size.
        seen: what the model saw, (H, W); None for everything.
        mask: the region, (H, W), some of it seen.
        distances: from every pixel to the region, (H, W).
        threshold: from which value on the map counts for IoU; None is Otsu's.
    """
    values, inside, apart = (
        (fixed.values.ravel(), mask.ravel(), distances.ravel())
        if seen is None
        else (fixed.values[seen], mask[seen], distances[seen])
    )
    peak = at_peak(values)
    distance = float(apart[peak].mean())
    value = overlap(values >= (fixed.otsu if threshold is None else threshold), inside)
    return {
        "pointing_game": float(inside[peak].mean()),
        "hit_rate": hit_of(value),
        "iou": value,
        "relevance_mass": mass_of(values, inside),
        "average_precision": _average_precision(fixed, seen, mask),
        "peak_distance": distance / diagonal(*mask.shape),
        "peak_distance_pixels": distance,
    }


def _average_precision(fixed: FixedMap, seen: BoolArray | None, mask: BoolArray) -> float:
    ends = fixed.last_of_tie
    inside = mask.ravel()[fixed.order]
    visible = np.ones_like(inside) if seen is None else seen.ravel()[fixed.order]
    called = np.cumsum(visible)[ends]
    true = np.cumsum(inside & visible)[ends]
    new = np.diff(true, prepend=0)
    return float((new * (true / np.maximum(called, 1))).sum() / true[-1])


def _between(size: int, cells: int) -> NDArray[np.float64]:
    """Return the weights (size, cells) of linear interpolation from the centres of equal cells to those of pixels."""
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    left = np.minimum(at.astype(np.int64), cells - 2)
    weights = np.zeros((size, cells))
    weights[np.arange(size), left] = 1 - (at - left)
    weights[np.arange(size), left + 1] = at - left
    return weights


@lru_cache(maxsize=16)
def _averaging(size: int, cells: int) -> NDArray[np.float64]:
    """Return the weights (cells, size) that average pixels over equal cells, whatever the two sizes."""
    edges = np.arange(cells + 1) * size / cells
    pixel = np.arange(size)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights: NDArray[np.float64] = np.clip(covered, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
