"""Localisation: signed maps of many images held against regions, beside what maps that know nothing would score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.saliency.localization_chance import (
    FixedMap,
    RegionPrior,
    centred_map,
    fixed_chance,
    prior_map,
    uniform_chance,
)
from medvlm_probe.saliency.localization_estimates import LocalizationEstimate, localization_estimates
from medvlm_probe.saliency.localization_measures import (
    MEASURES,
    at_peak,
    average_precision_of,
    diagonal,
    distances_to,
    hit_of,
    mass_of,
    otsu_of,
    overlap,
    seen_pixels,
)
from medvlm_probe.types import BoolArray, FloatArray, IntArray

N_CANDIDATES = 128
_SAMPLED_PIXELS = 4096


@dataclass(frozen=True)
class IouThreshold:
    """From which value on a pixel of a map counts as marked.

    Attributes:
        value: for the model's maps; None is Otsu's threshold of each map.
        chance: the same for the maps of `localization_chance.CHANCES` that are not flat; Otsu's where it is missing.
        source: the split that they were chosen on; "Otsu" where they were not.
    """

    value: float | None = None
    chance: Mapping[str, float] = field(default_factory=dict)
    source: str = "Otsu"


OTSU = IouThreshold()


@dataclass(frozen=True, eq=False)
class Localization:
    """Measures of n images with a region of one label.

    Attributes:
        values: name in `MEASURES` to (n,); NaN where the region was never seen, or where the measure is undefined.
        chance: name in `localization_chance.CHANCES` to the same measures of a map that knows nothing.
        unseen: share of each region that the model never saw, (n,); 1 leaves an image out.
        region_share: share of the image's pixels that the region takes, (n,).
        threshold: of IoU and hit rate.
    """

    values: dict[str, NDArray[np.float64]]
    chance: dict[str, dict[str, NDArray[np.float64]]]
    unseen: NDArray[np.float64]
    region_share: NDArray[np.float64]
    threshold: IouThreshold

    def __len__(self) -> int:
        return len(self.unseen)

    def rows(self, index: BoolArray | IntArray) -> Localization:
        """Return the measures of some images, by mask (n,) or numbers."""
        return Localization(
            {name: column[index] for name, column in self.values.items()},
            {kind: {name: column[index] for name, column in table.items()} for kind, table in self.chance.items()},
            self.unseen[index],
            self.region_share[index],
            self.threshold,
        )

    def estimates(self, groups: IntArray) -> dict[str, LocalizationEstimate]:
        """Return each measure's mean, its chance levels and the differences to them, with intervals.

        Args:
            groups: the independently sampled group of each image (patient), (n,).
        """
        return {
            name: localization_estimates(
                name, column, {kind: table[name] for kind, table in self.chance.items()}, self.unseen, groups
            )
            for name, column in self.values.items()
        }


def measure_maps(
    maps: Iterable[FloatArray],
    masks: Iterable[BoolArray],
    *,
    threshold: IouThreshold = OTSU,
    prior: RegionPrior | None = None,
) -> Localization:
    """Measure maps against regions, and the chance levels on the same images and the same seen pixels.

    Both may be generators: one map and one region are held at a time.

    Args:
        maps: signed, (H, W) of each image, NaN where the model never saw it; see `localization_measures`.
        masks: the regions, bool (H, W), not empty, as many.
        threshold: of IoU; from `choose_threshold` on another split, else Otsu's.
        prior: the label's mean region on another split.

    Raises:
        InputError: maps and regions that do not fit, or not as many.
    """
    return measure_sets(({"": values} for values in maps), masks, ("",), threshold=threshold, prior=prior)[""]


def measure_sets(
    sets: Iterable[Mapping[str, FloatArray]],
    masks: Iterable[BoolArray],
    names: Sequence[str],
    *,
    threshold: IouThreshold = OTSU,
    prior: RegionPrior | None = None,
) -> dict[str, Localization]:
    """Measure several maps of each image as `measure_maps` does; what they share is found once an image.

    Args:
        sets: the maps of each image by name; all of them see the same pixels.
        masks: the regions, as many.
        names: of the maps.
        threshold, prior: as `measure_maps`.

    Raises:
        InputError: as `measure_maps`; or maps of one image that do not see the same pixels.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    levels: dict[str, list[dict[str, float]]] = {kind: [] for kind in _kinds(prior)}
    unseen, share = [], []
    nothing = dict.fromkeys(MEASURES, np.nan)
    for maps, mask in zip(sets, masks, strict=True):
        views = {name: seen_pixels(maps[name], mask) for name in names}
        seen = ~np.isnan(maps[names[0]])
        if any(not np.array_equal(~np.isnan(maps[name]), seen) for name in names[1:]):
            raise InputError("Maps of one image that see different pixels were given. Measure them one at a time.")
        inside = views[names[0]][1]
        n_region = np.count_nonzero(mask)
        unseen.append(1 - np.count_nonzero(inside) / n_region)
        share.append(n_region / mask.size)
        if not inside.any():
            for table in (*rows.values(), *levels.values()):
                table.append(nothing)
            continue
        part = None if seen.all() else seen
        distances = distances_to(mask)
        apart = distances.ravel() if part is None else distances[part]
        for name, (v, _) in views.items():
            rows[name].append(_measures(v, inside, apart, mask.shape, threshold.value))
        for kind, table in levels.items():
            if kind == "uniform":
                table.append(uniform_chance(inside, apart, mask.shape))
            else:
                fixed = _fixed(kind, prior, mask.shape)
                table.append(fixed_chance(fixed, part, mask, distances, threshold.chance.get(kind)))
    chance = {kind: _columns(table) for kind, table in levels.items()}
    facts = np.array(unseen, dtype=np.float64), np.array(share, dtype=np.float64), threshold
    return {name: Localization(_columns(table), chance, *facts) for name, table in rows.items()}


def choose_threshold(
    maps: Sequence[FloatArray], masks: Sequence[BoolArray], source: str, *, prior: RegionPrior | None = None
) -> IouThreshold:
    """Return the threshold with the greatest mean IoU on a split that no result uses; the lowest of equally good ones.

    Candidates are 128 quantiles of the maps' pixels, so one scale for all images. The maps that set chance levels get
    theirs chosen on the same regions.

    Args:
        maps, masks: as `measure_maps` takes them; any sequences, read twice. Regions never seen are passed over.
        source: the split's name.
        prior: as `measure_maps` will have it.

    Raises:
        InputError: no map.
    """
    if not len(maps):
        raise InputError(f"Split '{source}' has no map to choose a threshold on. Take Otsu's instead.")
    shapes = [mask.shape for mask in masks]
    chance = {
        kind: _best_threshold([_fixed(kind, prior, shape).values for shape in shapes], masks)
        for kind in _kinds(prior)
        if kind != "uniform"
    }
    return IouThreshold(_best_threshold(maps, masks), chance, source)


def localize(
    maps: Iterable[FloatArray],
    masks: Iterable[BoolArray],
    groups: IntArray,
    *,
    threshold: IouThreshold = OTSU,
    prior: RegionPrior | None = None,
) -> dict[str, LocalizationEstimate]:
    """Return `measure_maps` of images, as estimates over all of them."""
    return measure_maps(maps, masks, threshold=threshold, prior=prior).estimates(groups)


def _measures(
    v: FloatArray, inside: BoolArray, apart: FloatArray, size: tuple[int, int], threshold: float | None
) -> dict[str, float]:
    peak = at_peak(v)
    distance = float(apart[peak].mean())
    value = overlap(v >= (otsu_of(v) if threshold is None else threshold), inside)
    return {
        "pointing_game": float(inside[peak].mean()),
        "hit_rate": hit_of(value),
        "iou": value,
        "relevance_mass": mass_of(v, inside),
        "average_precision": average_precision_of(v, inside),
        "peak_distance": distance / diagonal(*size),
        "peak_distance_pixels": distance,
    }


def _best_threshold(maps: Sequence[FloatArray], masks: Sequence[BoolArray]) -> float:
    candidates = np.unique(np.quantile(np.concatenate([_sample(values) for values in maps]), _QUANTILES))
    total = np.zeros(len(candidates))
    for values, mask in zip(maps, masks, strict=True):
        v, inside = seen_pixels(values, mask)
        if inside.any():
            level = np.searchsorted(candidates, v, side="right")
            marked = _at_least(np.bincount(level, minlength=len(candidates) + 1))
            both = _at_least(np.bincount(level[inside], minlength=len(candidates) + 1))
            total += both / (marked + np.count_nonzero(inside) - both)
    return float(candidates[np.argmax(total)])


_QUANTILES = np.linspace(0, 1, N_CANDIDATES)


def _at_least(counts: IntArray) -> IntArray:
    """Return how many pixels reach each candidate, from how many lie between two."""
    return np.cumsum(counts[::-1])[::-1][1:]


def _sample(values: FloatArray) -> FloatArray:
    seen = values[~np.isnan(values)]
    return seen[:: max(1, len(seen) // _SAMPLED_PIXELS)]


def _kinds(prior: RegionPrior | None) -> tuple[str, ...]:
    return ("uniform", "centre") if prior is None else ("uniform", "centre", "prior")


def _fixed(kind: str, prior: RegionPrior | None, size: tuple[int, int]) -> FixedMap:
    return centred_map(*size) if prior is None or kind == "centre" else prior_map(prior, *size)


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in MEASURES}
