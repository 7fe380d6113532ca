"""The reference images nearest to the site's most unusual ones: what a person looks at to see what is new."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.pairwise import refuse_zero_vectors, row_norms
from medvlm_probe.types import FloatArray

_ROWS, _COLUMNS = 1_024, 4_096


@dataclass(frozen=True, eq=False)
class NearestReference:
    """Site images and the reference images that are most like them.

    Attributes:
        images: rows of the site, the most unusual first, int64 (m,).
        neighbours: rows of the reference, nearest first, -1 where there are fewer, int64 (m, k).
        cosines: of those pairs, NaN where there are fewer, (m, k).
    """

    images: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    cosines: NDArray[np.float64]


def most_unusual(
    reference: ArrayLike,
    site: ArrayLike,
    reference_groups: ArrayLike | None = None,
    site_groups: ArrayLike | None = None,
    *,
    n_images: int = 20,
    n_neighbours: int = 5,
) -> NearestReference:
    """Return the site images that are farthest from the reference, with their nearest reference images.

    The most unusual images are those whose k-th nearest reference image of another patient has the lowest cosine.
    Memory: a block of cosines, and k of each image.

    Args:
        reference: image vectors before normalisation, (n, d).
        site: the same of the site, (m, d).
        reference_groups, site_groups: patients; both are needed to keep a patient's own images apart.
        n_images: how many site images to return.
        n_neighbours: k.

    Raises:
        InputError: vectors that are not finite, of two widths or zero, or groups that do not fit.

    Source: Ramaswamy, Rastogi and Shim 2000 (outliers by the distance to the k-th nearest neighbour).
    """
    first, second = _directions(reference), _directions(site)
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"Embeddings of {first.shape[1]} and of {second.shape[1]} dimensions: expected both samples from one model."
        )
    if min(n_images, n_neighbours) < 1:
        raise InputError(f"{n_images} images and {n_neighbours} neighbours: expected at least 1 of each.")
    groups = _group_codes(reference_groups, site_groups, len(first), len(second))
    k = min(n_neighbours, len(first))
    cosines = np.full((len(second), n_neighbours), -np.inf, dtype=np.float32)
    nearest = np.full((len(second), n_neighbours), -1, dtype=np.int64)
    for start in range(0, len(second), _ROWS):
        rows = slice(start, start + _ROWS)
        for begin in range(0, len(first), _COLUMNS):
            columns = slice(begin, begin + _COLUMNS)
            block = second[rows] @ first[columns].T
            if groups is not None:
                block[groups[1][rows, None] == groups[0][None, columns]] = -np.inf
            merged = np.concatenate([cosines[rows], block], axis=1)
            best = np.argpartition(-merged, min(n_neighbours, merged.shape[1]) - 1, axis=1)[:, :n_neighbours]
            known = np.concatenate(
                [nearest[rows], np.broadcast_to(np.arange(begin, begin + block.shape[1]), block.shape)], axis=1
            )
            cosines[rows] = np.take_along_axis(merged, best, axis=1)
            nearest[rows] = np.take_along_axis(known, best, axis=1)
    nearest[np.isneginf(cosines)] = -1
    ordered = np.sort(cosines, axis=1)[:, ::-1]
    found = np.maximum(np.isfinite(ordered).sum(axis=1), 1)
    last = ordered[np.arange(len(second)), np.minimum(found, k) - 1]
    images = np.argsort(last, kind="stable")[:n_images]
    return _in_order(images.astype(np.int64), nearest[images], first, second)


def _in_order(
    images: NDArray[np.int64], nearest: NDArray[np.int64], first: FloatArray, second: FloatArray
) -> NearestReference:
    """Return the neighbours sorted by their float64 cosines, ties by row."""
    pairs = np.einsum("md,mkd->mk", second[images].astype(np.float64), first[nearest].astype(np.float64))
    pairs = np.where(nearest < 0, -np.inf, pairs)
    order = np.lexsort((nearest, -pairs), axis=1)
    pairs = np.take_along_axis(pairs, order, axis=1)
    return NearestReference(
        images, np.take_along_axis(nearest, order, axis=1), np.where(np.isneginf(pairs), np.nan, pairs)
    )


def _directions(embeddings: ArrayLike) -> NDArray[np.float32]:
    array = checked_embeddings(embeddings)
    norms = row_norms(array)
    refuse_zero_vectors(norms)
    return np.asarray(array / norms[:, None], dtype=np.float32)


def _group_codes(
    reference_groups: ArrayLike | None, site_groups: ArrayLike | None, n: int, m: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    if reference_groups is None or site_groups is None:
        return None
    first, second = np.asarray(reference_groups).astype(str), np.asarray(site_groups).astype(str)
    if first.shape != (n,) or second.shape != (m,):
        raise InputError(f"Groups of shapes {first.shape} and {second.shape} do not fit {n} and {m} images.")
    found = np.unique(np.concatenate([first, second]), return_inverse=True)[1].astype(np.int64)
    return found[:n], found[n:]
