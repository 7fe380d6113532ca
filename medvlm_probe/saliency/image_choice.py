"""Which images get maps: those with a region of the label, else a sample of its positives; and a random reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.regions import Regions
from medvlm_probe.errors import InputError

Rows = NDArray[np.int64]


def choose_images(
    cohort: Cohort, labels: Sequence[str], regions: Regions | None, sample: int | None, seed: int
) -> dict[str, Rows]:
    """Return each label's images, row numbers in a drawn order: at most `sample`, all of them for None.

    Images with a region where the label has any, for they alone tell where it is; else images labelled with it. The
    draw of one label does not depend on the others.

    Raises:
        InputError: no label has such an image.
    """
    places = {image: row for row, image in enumerate(cohort.table["image"].astype(str))}
    targets = cohort.targets(labels)
    chosen: dict[str, Rows] = {}
    for at, label in enumerate(labels):
        located = regions.images(label) if regions is not None else ()
        rows = np.array([places[image] for image in located if image in places], dtype=np.int64)
        if not len(rows):
            rows = np.flatnonzero(targets[:, at] == 1)
        order = np.random.default_rng([seed, crc32(label.encode())]).permutation(len(rows))
        chosen[label] = rows[order[:sample]]
    found = {label: rows for label, rows in chosen.items() if len(rows)}
    if not found:
        raise InputError(
            f"No image of cohort '{cohort.name}' has a region of or is labelled with {', '.join(labels)}. Name other "
            "labels or another split, or give the images' regions with --regions."
        )
    return found


def reference_images(n_images: int, n: int, seed: int) -> Rows:
    """Return images drawn at random, whatever they show, as rising row numbers."""
    drawn = np.random.default_rng([seed, 1]).permutation(n_images)[:n]
    return np.sort(drawn).astype(np.int64)


def in_selection(chosen: Mapping[str, Rows], kept: Rows) -> dict[str, Rows]:
    """Return the chosen rows as places within `kept`, in their order; those that are not kept are left out."""
    place = {int(row): at for at, row in enumerate(kept)}
    return {
        label: np.array([place[row] for row in rows.tolist() if row in place], dtype=np.int64)
        for label, rows in chosen.items()
    }
