"""The modality gap: how far apart images and texts lie on the unit sphere of a dual encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings, codes
from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.pairwise import refuse_zero_vectors, row_norms
from medvlm_probe.types import Estimate, FloatArray


def modality_gap(images: ArrayLike, texts: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Return the distance between the mean normalised image and the mean normalised text, in [0, 2].

    The images' share of it is over pairs of different groups, so that a small sample does not make it larger. The
    interval is a jackknife over the images' groups; the texts are a choice, not a sample, and stand as they are.

    Args:
        images: embeddings before normalisation, (n, d).
        texts: the same of texts, (m, d).
        groups: the independently sampled group (patient) of each image, (n,); None makes each its own.

    Raises:
        InputError: shapes that do not fit, values that are not finite, zero vectors.

    Source: Liang et al. 2022, "Mind the Gap" (arXiv 2203.02053).
    """
    x, y = _units(images), _units(texts)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"Images of {x.shape[1]} dimensions do not fit texts of {y.shape[1]}.")
    of = codes(groups, len(x), "groups")
    n_groups = int(of.max()) + 1
    member = sparse.csr_array((np.ones(len(x)), (of, np.arange(len(x)))), shape=(n_groups, len(x)))
    totals, counts = np.asarray(member @ x), np.bincount(of).astype(np.float64)
    text = y.mean(axis=0)
    total, n = totals.sum(axis=0), float(len(x))
    squares = (totals**2).sum(axis=1)
    to_total, to_text = totals @ total, totals @ text

    def gap(
        sum_square: FloatArray, own: FloatArray, count: FloatArray, pairs: FloatArray, along: FloatArray
    ) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            squared = (sum_square - own) / pairs - 2 * along / count + text @ text
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)))

    everything = (
        np.array([total @ total]),
        squares.sum(),
        np.array([n]),
        n**2 - counts @ counts,
        np.array([total @ text]),
    )
    without = gap(
        everything[0] - 2 * to_total + squares,
        everything[1] - squares,
        n - counts,
        (n - counts) ** 2 - (counts @ counts - counts**2),
        everything[4] - to_text,
    )
    return jackknife_interval(float(gap(*everything)[0]), without, n=len(x), method="group jackknife, texts fixed")


def _units(vectors: ArrayLike) -> FloatArray:
    array = checked_embeddings(vectors)
    norms = row_norms(array)
    refuse_zero_vectors(norms)
    return np.asarray(array, dtype=np.float64) / norms[:, None]
