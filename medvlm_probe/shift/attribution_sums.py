"""Squared MMD between weighted groups of two samples, for many weightings at once and without each group in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.pairwise import refuse_zero_vectors, row_norms
from medvlm_probe.shift.two_samples import TwoSamples, mean_by_group
from medvlm_probe.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Sample:
    """One side: vectors in group order, centred like those of the other sides, and their group codes 0 ... G - 1.

    Attributes:
        vectors: float32 (n, d).
        groups: ascending, (n,).
    """

    vectors: NDArray[np.float32]
    groups: NDArray[np.int64]

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return int(self.groups[-1]) + 1


@dataclass(frozen=True, eq=False)
class Discrepancies:
    """Squared MMD under M weightings of the groups, each 0 on average where both samples have one distribution.

    Attributes:
        value: (M,).
        without_reference, without_site: the same without each group, (G, M) and (H, M).
    """

    value: NDArray[np.float64]
    without_reference: NDArray[np.float64]
    without_site: NDArray[np.float64]


def kernel_means(first: Sample, second: Sample, bandwidth: float) -> NDArray[np.float64]:
    """Return the means of exp(-|x - y|^2 / (2 s^2)) between the groups of two samples, (G, H)."""
    x, y = first.vectors, second.vectors
    squares = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("nd,nd->n", y, y) - 2 * (x @ y.T)
    values = np.exp(np.maximum(squares, 0) * np.float32(-0.5 / bandwidth**2))
    by_row = mean_by_group(values, first.groups)
    return np.asarray(mean_by_group(by_row.T, second.groups).T, dtype=np.float64)


def without_own(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a square kernel without its diagonal: a group forms no pair with itself."""
    cleared = kernel.copy()
    np.fill_diagonal(cleared, 0)
    return cleared


def discrepancies(
    within_reference: FloatArray, within_site: FloatArray, across: FloatArray, a: FloatArray, b: FloatArray
) -> Discrepancies:
    """Return the squared MMD of weighted groups: means over pairs of different groups, weighted by both.

    Args:
        within_reference, within_site: kernels without diagonal, (G, G) and (H, H).
        across: (G, H).
        a, b: weights of the groups, (G, M) and (H, M), 0 where a group takes no part.
    """
    own_a, own_b = within_reference @ a, within_site @ b
    to_b, to_a = across @ b, across.T @ a
    sum_a, sum_b = a.sum(axis=0), b.sum(axis=0)
    pairs_a, pairs_b = sum_a**2 - (a**2).sum(axis=0), sum_b**2 - (b**2).sum(axis=0)
    total_a, total_b, total = (a * own_a).sum(axis=0), (b * own_b).sum(axis=0), (a * to_b).sum(axis=0)

    def left(own: FloatArray, other: FloatArray, w: FloatArray, whole: FloatArray, pairs: FloatArray) -> FloatArray:
        """Return what the side that loses a group and the pairs across make together."""
        rest = w.sum(axis=0) - w
        within = (whole - 2 * w * own) / (pairs - 2 * w * rest)
        return np.asarray(within - 2 * (total - w * other) / (rest * (sum_a * sum_b / w.sum(axis=0))))

    return Discrepancies(
        value=total_a / pairs_a + total_b / pairs_b - 2 * total / (sum_a * sum_b),
        without_reference=left(own_a, to_b, a, total_a, pairs_a) + total_b / pairs_b,
        without_site=left(own_b, to_a, b, total_b, pairs_b) + total_a / pairs_a,
    )


def squared_mmd(
    within_reference: FloatArray, within_site: FloatArray, across: FloatArray, a: FloatArray, b: FloatArray
) -> NDArray[np.float64]:
    """Return the values of `discrepancies` alone, (M,)."""
    pairs_a, pairs_b = (w.sum(axis=0) ** 2 - (w**2).sum(axis=0) for w in (a, b))
    inside = (a * (within_reference @ a)).sum(axis=0) / pairs_a + (b * (within_site @ b)).sum(axis=0) / pairs_b
    return np.asarray(inside - 2 * (a * (across @ b)).sum(axis=0) / (a.sum(axis=0) * b.sum(axis=0)))


def half_of(members: FloatArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random half of each column's members, (G, M) of 1 and 0; of an odd number the smaller half."""
    places = np.where(members > 0, rng.random(members.shape), np.inf).argsort(axis=0).argsort(axis=0)
    return np.asarray(members * (places < members.sum(axis=0) // 2), dtype=np.float64)


def sample_of(vectors: FloatArray, centre: FloatArray, groups: IntArray) -> Sample:
    """Return vectors (n, d) as unit vectors less `centre` (d,); groups are ascending, with any gaps, (n,)."""
    codes = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return Sample((unit_rows(vectors) - centre).astype(np.float32), codes)


def unit_rows(vectors: FloatArray) -> NDArray[np.float64]:
    """Return vectors (n, d) over their lengths, in float64.

    Raises:
        InputError: a vector of length 0.
    """
    lengths = row_norms(vectors)
    refuse_zero_vectors(lengths)
    return np.asarray(vectors / lengths[:, None], dtype=np.float64)


def sides(
    samples: TwoSamples, reference: ArrayLike, site: ArrayLike
) -> tuple[Sample, Sample, Callable[[ArrayLike], Sample]]:
    """Return both samples, and what takes the reference's images under a transform to a sample of the same groups.

    Args:
        samples: of `two_samples(reference, site, ...)`.
        reference: image vectors before normalisation, (n, d).
        site: the same of the other site, (m, d).
    """
    at_site = samples.image_of_site
    rows, groups = samples.rows[~at_site], samples.groups[~at_site]
    given = checked_embeddings(reference)
    # The centre only keeps float32 products small; any one near the data will do.
    centre = unit_rows(given[rows]).mean(axis=0)

    def view(vectors: ArrayLike) -> Sample:
        checked = checked_embeddings(vectors)
        if checked.shape != given.shape:
            raise InputError(
                f"Embeddings of shape {checked.shape} under a transform do not fit the reference's {given.shape}."
            )
        return sample_of(checked[rows], centre, groups)

    other = checked_embeddings(site)[samples.rows[at_site] - samples.n_reference]
    return view(reference), sample_of(other, centre, samples.groups[at_site]), view


def family_of(name: str) -> str:
    """Return a transform's name without versions and levels: `resolution + jpeg`."""
    return " + ".join(part.partition("@")[0].partition("/")[0] for part in name.split("+"))
