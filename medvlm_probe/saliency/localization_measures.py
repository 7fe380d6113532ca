"""How well one signed map agrees with one region, in the original image's pixels.

A map is (H, W), larger where the image speaks more for the label, NaN where the model never saw the pixel. A region is
bool (H, W), not empty. Every measure but the distance looks at seen pixels alone: of a region that was partly cut off,
the seen part counts; for a region that was cut off as a whole every measure is NaN. A map that varies by no more than
float32's rounding counts as flat, and pixels that close to the maximum share it: a flat map wins no more than chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.types import BoolArray, FloatArray

ROUNDING = 16 * 2.0**-23
"""Values that differ by this share of the map's greatest magnitude differ by rounding: interpolating a constant
map to an image's pixels leaves up to 4 steps of float32."""

HIT_AT = 0.1
"""The least IoU that counts as a hit: the lowest of Wang et al. 2017 (ChestX-ray8, table 4)."""

OTSU_BINS = 256


MeasureKind = Literal["hit", "share", "length"]


@dataclass(frozen=True)
class MeasureInfo:
    """A measure for people: its title, its definition, its kind, and which direction is better.

    A hit is 0 or 1 but for ties, a share lies in [0, 1], a length is 0 or more.
    """

    title: str
    definition: str
    kind: MeasureKind
    better: Literal["higher", "lower"]


MEASURES: dict[str, MeasureInfo] = {
    "pointing_game": MeasureInfo("Pointing game", "the map's maximum lies in the region", "hit", "higher"),
    "hit_rate": MeasureInfo("Hit rate", f"IoU at the threshold is {HIT_AT} or more", "hit", "higher"),
    "iou": MeasureInfo("IoU", "overlap of the thresholded map and the region over their union", "share", "higher"),
    "relevance_mass": MeasureInfo(
        "Relevance mass", "share of the map's positive part in the region", "share", "higher"
    ),
    "average_precision": MeasureInfo("Pixel AP", "average precision of pixels ranked by the map", "share", "higher"),
    "peak_distance": MeasureInfo(
        "Distance from peak", "from the map's maximum to the region, in image diagonals", "share", "lower"
    ),
    "peak_distance_pixels": MeasureInfo(
        "Distance from peak (pixels)", "from the map's maximum to the region, in pixels", "length", "lower"
    ),
}
"""The measures of one image, by the names that files carry. All are 0 or more."""


def pointing_game(values: FloatArray, mask: BoolArray) -> float:
    """Return the share of the map's maximum that lies in the region, in [0, 1]: 1 or 0 without ties.

    Source: Zhang et al. 2018 (excitation backprop), without their tolerance of 15 pixels; the hit rate of Saporta et
        al. 2022.
    """
    v, inside = seen_pixels(values, mask)
    return float(inside[at_peak(v)].mean()) if inside.any() else np.nan


def iou(values: FloatArray, mask: BoolArray, threshold: float) -> float:
    """Return the intersection over union of the region and the pixels of `threshold` or more, in [0, 1]."""
    v, inside = seen_pixels(values, mask)
    return overlap(v >= threshold, inside)


def hit(values: FloatArray, mask: BoolArray, threshold: float, *, at: float = HIT_AT) -> float:
    """Return 1.0 where `iou` is `at` or more, else 0.0; the mean over images is the hit rate."""
    return hit_of(iou(values, mask, threshold), at)


def otsu_threshold(values: FloatArray) -> float:
    """Return the value that splits a map's seen pixels best in two, those of it or more being the upper part.

    It lies on the edges of 256 equal steps of the map's range, and makes the variance between the two parts greatest;
    the first of equally good ones is taken. A flat map's is its own value, so that all of it lies above.

    Source: Otsu 1979.
    """
    v = np.asarray(values)
    return otsu_of(_flattened(v[~np.isnan(v)]))


def relevance_mass(values: FloatArray, mask: BoolArray) -> float:
    """Return the region's share of the sum of the map's positive part, in [0, 1]; NaN where nothing is positive.

    Source: relevance mass accuracy, Arras, Osman and Samek 2022.
    """
    v, inside = seen_pixels(values, mask)
    return mass_of(v, inside)


def pixel_average_precision(values: FloatArray, mask: BoolArray) -> float:
    """Return the average precision of pixels ranked by the map, in [0, 1]; ties count at once, as scikit-learn's do."""
    v, inside = seen_pixels(values, mask)
    return average_precision_of(v, inside)


def peak_distance(values: FloatArray, mask: BoolArray) -> float:
    """Return the distance in pixels from the map's maximum to the region's nearest pixel, 0 within; the mean over ties.

    The whole region counts, also what the model never saw of it. Divide by `diagonal` for shares of the image.
    """
    v, inside = seen_pixels(values, mask)
    distances = distances_to(mask)[~np.isnan(values)]
    return float(distances[at_peak(v)].mean()) if inside.any() else np.nan


def diagonal(height: int, width: int) -> float:
    """Return an image's diagonal in pixels."""
    return float(np.hypot(height, width))


def distances_to(mask: BoolArray) -> NDArray[np.float64]:
    """Return each pixel's distance to the nearest pixel of the region, between centres, 0 within, (H, W)."""
    from scipy import ndimage

    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~mask)
    return distances


def seen_pixels(values: FloatArray, mask: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Return a map's seen values and whether each lies in the region, both (n,); a flat map's values are made equal.

    Raises:
        InputError: shapes or types that do not fit, infinite values, an empty region, or nothing seen at all.
    """
    values, mask = np.asarray(values), np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim != 2 or values.shape != mask.shape:
        raise InputError(
            f"A map of shape {values.shape} and a region of shape {mask.shape}, type {mask.dtype}: expected (H, W) for "
            "both, and booleans for the region."
        )
    if not mask.any():
        raise InputError("A region without a pixel was given. Leave images without the finding out.")
    seen = ~np.isnan(values)
    v, inside = (values.ravel(), mask.ravel()) if seen.all() else (values[seen], mask[seen])
    if not len(v):
        raise InputError("A map without a seen pixel was given.")
    return _flattened(v), inside


def at_peak(v: FloatArray) -> NDArray[np.intp]:
    """Return which of the values (n,) are the greatest, up to rounding."""
    highest = v.max()
    return np.flatnonzero(v >= highest - ROUNDING * max(abs(highest), abs(v.min())))


def overlap(predicted: BoolArray, inside: BoolArray) -> float:
    """Return the intersection over union of two sets of pixels (n,); NaN where the region has none."""
    n_inside, both = np.count_nonzero(inside), np.count_nonzero(predicted & inside)
    return both / (n_inside + np.count_nonzero(predicted) - both) if n_inside else np.nan


def hit_of(value: float, at: float = HIT_AT) -> float:
    """Return 1.0, 0.0 or NaN for an IoU."""
    return value if np.isnan(value) else float(value >= at)


def mass_of(v: FloatArray, inside: BoolArray) -> float:
    """Return the region's share of the positive sum of values (n,)."""
    positive = np.maximum(v, 0)
    total = positive.sum(dtype=np.float64)
    return float(positive[inside].sum(dtype=np.float64) / total) if inside.any() and total > 0 else np.nan


def average_precision_of(v: FloatArray, inside: BoolArray) -> float:
    """Return the average precision of values (n,) that rank pixels."""
    if not inside.any():
        return np.nan
    found = np.sort(v[inside])
    last = np.flatnonzero(np.append(True, found[1:] != found[:-1]))
    true = len(found) - last
    called = len(v) - np.searchsorted(np.sort(v), found[last], side="left")
    new = true - np.append(true[1:], 0)
    return float((new * (true / called)).sum() / len(found))


def otsu_of(v: FloatArray) -> float:
    """Return Otsu's threshold of values (n,)."""
    low, high = float(v.min()), float(v.max())
    if low == high:
        return high
    counts, edges = np.histogram(v, bins=OTSU_BINS, range=(low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = len(v) - below
    sums = np.cumsum(counts * middles)
    mean_below, mean_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    return float(edges[1 + np.argmax(below * above * (mean_below - mean_above) ** 2)])


def _flattened(v: FloatArray) -> FloatArray:
    low, high = float(v.min()), float(v.max())
    if not np.isfinite([low, high]).all():
        raise InputError("A map with infinite values was given.")
    if high - low > ROUNDING * max(abs(low), abs(high)):
        return v
    return np.full_like(v, (low + high) / 2)
