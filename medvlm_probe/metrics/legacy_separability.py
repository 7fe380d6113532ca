"""The separability of the published BiomedCLIP study, exactly as its notebook computes it, beside what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings, checked_label_names, codes
from medvlm_probe.metrics.resampling import permutation_blocks, permutation_p_value, plan_exchange
from medvlm_probe.types import IntArray, finite_or_none

STUDY_ORDER: tuple[str, ...] = (
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_opacity",
    "lung_lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
    "no_finding",
)
"""The study's order of labels, in which the first one that an image carries is its class."""

NO_FINDING = "no_finding"


@dataclass(frozen=True)
class LegacySeparability:
    """The study's inter and intra distances and their ratio. Descriptive: no intervals, as published.

    Attributes:
        intra: unweighted mean over classes of the mean distance of a class's images to its centroid.
        inter: unweighted mean over all pairs of classes of the distance between their centroids.
        ratio: inter / intra.
        classes: the classes found, in the study's order; sizes: images in each.
        missing: labels that are no image's class; they are left out.
        n_without_class: images without a positive label where no "no finding" exists to take them; left out.
        null_ratio: mean ratio when classes are permuted among groups of equal size: what these class sizes give on
            these vectors without any separation, as centroids of small classes scatter. NaN without `rng`.
        null_low, null_high: the middle 95 % of the permuted ratios.
        p_value: one-sided, of a ratio this large under permutation.
    """

    intra: float
    inter: float
    ratio: float
    classes: tuple[str, ...]
    sizes: tuple[int, ...]
    missing: tuple[str, ...]
    n_without_class: int
    null_ratio: float = np.nan
    null_low: float = np.nan
    null_high: float = np.nan
    p_value: float = np.nan

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON; undefined numbers are None."""
        return {
            name: finite_or_none(value)
            if isinstance(value, float)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in vars(self).items()
        }


def legacy_separability(
    embeddings: ArrayLike,
    labels: ArrayLike,
    label_names: Sequence[str],
    groups: ArrayLike | None = None,
    *,
    n_permutations: int = 999,
    rng: np.random.Generator | None = None,
) -> LegacySeparability:
    """Return inter, intra and ratio as `compute_separability` of the BiomedCLIP study on IU-Xray defines them.

    An image's class is its first positive label in the study's order ("no finding" last), so multi-label images count
    once; an image without a positive label is "no finding", as in the study. Vectors are raw, centroids and classes
    unweighted, so a class of three images weighs as much as one of 360.

    Args:
        embeddings: image vectors as the model gives them, (n, d).
        labels: (n, L); 1 is positive, everything else (0, -1, NaN) is not, as in the study.
        label_names: L names. Names that the study does not have keep their order, before "no finding".
        groups: the independently sampled group of each image, (n,), for the permutations; None makes each its own.
        n_permutations: of the null.
        rng: draws the permutations. None runs none.

    Raises:
        InputError: shapes that do not fit.

    Source: Sadman, Zulkernine and Kwan 2025 (arXiv 2506.14136) and its notebook.
    """
    array = np.asarray(checked_embeddings(embeddings), dtype=np.float64)
    values = np.asarray(labels)
    if values.ndim != 2 or len(values) != len(array) or values.shape[1] == 0:
        raise InputError(
            f"Labels of shape {values.shape} do not fit {len(array)} embeddings: expected ({len(array)}, L)."
        )
    names = checked_label_names(label_names, values.shape[1])
    rank = {name: place for place, name in enumerate(STUDY_ORDER[:-1])}
    columns = sorted(range(len(names)), key=lambda k: (names[k] == NO_FINDING, rank.get(names[k], len(rank)), k))
    ordered = tuple(names[k] for k in columns)
    positive = values[:, columns] == 1
    without = ~positive.any(axis=1)
    classes = positive.argmax(axis=1)
    has_class = ~without
    if NO_FINDING in ordered:
        classes[without] = len(ordered) - 1
        has_class[:] = True
    present, classes = np.unique(classes[has_class], return_inverse=True)
    array = array[has_class]
    intra, inter = _intra_inter(array, classes)
    result = LegacySeparability(
        intra=intra,
        inter=inter,
        ratio=_ratio(intra, inter),
        classes=tuple(ordered[k] for k in present),
        sizes=tuple(int(size) for size in np.bincount(classes)),
        missing=tuple(name for k, name in enumerate(ordered) if k not in present),
        n_without_class=int((~has_class).sum()),
    )
    if rng is None or not n_permutations or np.isnan(result.ratio):
        return result
    plan = plan_exchange(codes(groups, len(has_class), "groups")[has_class], rng=rng)
    array, classes = array[plan.kept], classes[plan.kept]
    null = np.array(
        [
            _ratio(*_intra_inter(array, classes[row]))
            for index in permutation_blocks(plan, n_permutations=n_permutations, rng=rng)
            for row in index
        ]
    )
    low, high = np.nanquantile(null, [0.025, 0.975])
    return replace(
        result,
        null_ratio=float(np.nanmean(null)),
        null_low=float(low),
        null_high=float(high),
        p_value=permutation_p_value(_ratio(*_intra_inter(array, classes)), null),
    )


def _intra_inter(vectors: NDArray[np.float64], classes: IntArray) -> tuple[float, float]:
    """Return the study's two distances for vectors (n, d) and class codes (n,); NaN without two classes."""
    sizes = np.bincount(classes)
    found = np.flatnonzero(sizes)
    if len(found) < 2:
        return np.nan, np.nan
    member = (classes == found[:, None]).astype(np.float64)
    centroids = member @ vectors / sizes[found, None]
    own = np.searchsorted(found, classes)
    distances = np.sqrt(((vectors - centroids[own]) ** 2).sum(axis=1))
    intra = float((member @ distances / sizes[found]).mean())
    return intra, float(pdist(centroids).mean())


def _ratio(intra: float, inter: float) -> float:
    return inter / intra if intra > 0 else np.nan
