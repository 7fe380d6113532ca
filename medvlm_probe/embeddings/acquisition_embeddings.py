"""A cohort's embeddings untouched and under acquisition transforms, each computed once and kept in the store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.acquisition import acquisition_names
from medvlm_probe.cohort.acquisition_source import acquired
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.extract import Embedded, embed
from medvlm_probe.errors import InputError
from medvlm_probe.models.contract import VisionLanguageModel

MAX_IMAGES = 400
"""How many of the reference's images transforms are tried on by default: about fifty passes over them."""


@dataclass(frozen=True)
class AcquisitionEmbeddings:
    """The same images under each transform.

    Attributes:
        cohort: the images that could be used, untouched, (n rows).
        untouched: their embeddings, (n, D) float32, not normalised.
        transformed: transform (`blur/v1@2`) to the same images' embeddings, (n, D).
        n_given: images of the cohort that they were drawn from.
        n_computed: images that went through the model now, over all passes; the others were in the cache.
        seconds: of each pass, the untouched one under "".
    """

    cohort: Cohort
    untouched: NDArray[np.float32]
    transformed: Mapping[str, NDArray[np.float32]]
    n_given: int
    n_computed: int
    seconds: Mapping[str, float]


def acquisition_embeddings(
    cohort: Cohort,
    model: VisionLanguageModel,
    transforms: Sequence[str] | None = None,
    *,
    max_images: int = MAX_IMAGES,
    precision: str = "auto",
    workers: int | None = None,
    cache_dir: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> AcquisitionEmbeddings:
    """Return the embeddings of a sample of a cohort, untouched and under each transform.

    Args:
        cohort: mostly the reference.
        model: any.
        transforms: names as `cohort.acquisition.parse_steps` reads them; None takes every level of every transform.
        max_images: at most so many images: whole groups, drawn by the images' names alone.
        precision, workers, cache_dir: as in `extract.embed`; all passes run at the precision of the untouched one.
        say: told what is embedded next, and how long it took.

    Raises:
        UnknownNameError, InputError: a transform that does not exist, or no image that can be used.
    """
    names = tuple(dict.fromkeys(acquisition_names() if transforms is None else transforms))
    part = sample_of_groups(cohort, max_images)
    # Each transform is parsed before the first image goes through the model.
    passes = {name: acquired(part, name) for name in names}

    def embedded(shown: Cohort, kept: str) -> Embedded:
        return embed(shown, model, precision=kept, workers=workers, cache_dir=cache_dir, max_failures=len(shown))

    started = time.perf_counter()
    base = embedded(part, precision)
    if not base.n_used:
        raise InputError(f"None of the {len(part):,} images can be used, so no transform can be tried on them.")
    seconds = {"": time.perf_counter() - started}
    if say is not None:
        say(
            f"{base.n_used:,} of {len(cohort):,} images, untouched and under {len(names)} transforms: at most "
            f"{len(names) * base.n_used:,} passes more."
        )
    found: dict[str, Embedded] = {}
    for place, (name, shown) in enumerate(passes.items(), start=1):
        started = time.perf_counter()
        found[name] = embedded(shown, base.precision)
        seconds[name] = time.perf_counter() - started
        if say is not None:
            left = _minutes((len(names) - place) * base.n_used, found[name].n_computed, seconds[name])
            say(f"{name}, {place} of {len(names)}: {found[name].n_computed:,} images, {seconds[name]:.1f} s{left}.")
    rows = base.rows
    for other in found.values():
        rows = np.intersect1d(rows, other.rows)
    return AcquisitionEmbeddings(
        cohort=part.select(rows),
        untouched=base.vectors[np.isin(base.rows, rows)],
        transformed={name: other.vectors[np.isin(other.rows, rows)] for name, other in found.items()},
        n_given=len(cohort),
        n_computed=base.n_computed + sum(other.n_computed for other in found.values()),
        seconds={name: round(spent, 3) for name, spent in seconds.items()},
    )


def _minutes(n_left: int, n_done: int, seconds: float) -> str:
    """Return how long so many passes would take at this rate; "" where nothing was computed, or nothing is left."""
    if not n_done or not n_left:
        return ""
    return f", at most {max(1, round(n_left * seconds / n_done / 60))} min left"


def sample_of_groups(cohort: Cohort, max_images: int) -> Cohort:
    """Return a cohort of at most `max_images` images, or its first group: whole groups, drawn by image names alone.

    The order of the rows stays; a larger maximum holds every image of a smaller one.
    """
    if len(cohort) <= max_images:
        return cohort
    groups = cohort.groups()
    places = [hashlib.sha256(name.encode()).hexdigest() for name in cohort.table["image"].astype(str)]
    by_place = np.argsort(places, kind="stable")
    # A group's place is that of its first image in the order of hashes.
    _, first = np.unique(groups[by_place], return_index=True)
    order = np.argsort(first, kind="stable")
    sizes = np.bincount(groups)[order]
    n_kept = max(1, int(np.searchsorted(np.cumsum(sizes), max_images, side="right")))
    return cohort.select(np.flatnonzero(np.isin(groups, order[:n_kept])))
