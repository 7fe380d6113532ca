"""Embeddings on a plane, for looking at: principal components by default, UMAP and t-SNE as illustrations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.pairwise import Space, points_of
from medvlm_probe.metrics.trustworthiness import Trustworthiness, trustworthiness
from medvlm_probe.types import FloatArray

MIN_IMAGES = 4
N_NEIGHBORS = 10
_UMAP_NEIGHBORS = 15
_PERPLEXITY = 30.0
_TSNE_INPUT = 50


@dataclass(frozen=True, eq=False)
class Projection:
    """Where images lie on a plane.

    Attributes:
        method: of `METHODS`.
        space: vectors of length 1 (`l2`) or as the model gives them (`raw`).
        coordinates: (n, 2). Nothing is measured on them but `trustworthiness`, which judges the picture.
        variance_shares: of the total variance on either axis, in [0, 1]; None for methods other than PCA.
        trustworthiness: whether neighbours in the picture are neighbours in the space.
        seed: of UMAP, t-SNE and of the points that the trustworthiness looks at.
    """

    method: str
    space: Space
    coordinates: NDArray[np.float64]
    variance_shares: tuple[float, float] | None
    trustworthiness: Trustworthiness
    seed: int

    @property
    def axes_words(self) -> tuple[str, str]:
        """What the axes are, for people."""
        if self.variance_shares is None:
            return f"{METHODS[self.method].words} 1", f"{METHODS[self.method].words} 2"
        first, second = (f"{100 * share:.1f} %" for share in self.variance_shares)
        return f"PC 1 ({first})", f"PC 2 ({second})"

    @property
    def sentence(self) -> str:
        """What stands under the picture."""
        judged = self.trustworthiness
        told = "" if judged.n_sources == judged.n_points else f", on a random {judged.n_sources:,} of its points"
        words = f"Trustworthiness of the picture at k = {judged.n_neighbors}: {judged.value:.2f} (best 1){told}."
        return (
            f"{words} PC: principal component, with its share of the variance."
            if self.method == "pca"
            else f"{words} Distances and gaps between clouds mean little here."
        )

    def to_json(self) -> dict[str, Any]:
        """Return all but the coordinates, as JSON files carry it."""
        return {
            "method": self.method,
            "space": self.space,
            "seed": self.seed,
            "n_images": len(self.coordinates),
            "variance_shares": None if self.variance_shares is None else list(self.variance_shares),
            "trustworthiness": self.trustworthiness.to_json(),
        }


@dataclass(frozen=True)
class Method:
    """How vectors (n, d) become coordinates (n, 2) and, for PCA, shares of the variance; `words` name it."""

    words: str
    run: Callable[[FloatArray, int], tuple[NDArray[np.float64], tuple[float, float] | None]]


def project(embeddings: FloatArray, *, method: str = "pca", space: Space = "l2", seed: int = 0) -> Projection:
    """Return images on a plane.

    PCA is exact and has no seed. UMAP (15 neighbours, minimum distance .1) is the same for the same seed on one thread.
    t-SNE (perplexity 30, or a third of the images) starts from the first 50 principal components.

    Args:
        embeddings: image vectors before normalisation, (n, d).
        method: of `METHODS`.
        space: `l2` or `raw`.
        seed: see `Projection`.

    Raises:
        UnknownNameError: another method.
        InputError: under four images, vectors that are not finite or zero (in `l2`), or all the same.
    """
    if method not in METHODS:
        raise unknown_name("projection", method, METHODS)
    array = checked_embeddings(embeddings)
    if len(array) < MIN_IMAGES:
        raise InputError(f"{len(array)} images cannot be projected: at least {MIN_IMAGES} are needed.")
    points = points_of(array, space, np.arange(len(array)))
    vectors = points.centred.astype(np.float64) * points.unit
    if not vectors.any():
        raise InputError("All embeddings are the same, so there is no plane to draw them on.")
    coordinates, shares = METHODS[method].run(vectors, seed)
    judged = trustworthiness(array, coordinates, space=space, n_neighbors=N_NEIGHBORS, rng=np.random.default_rng(seed))
    return Projection(method, space, coordinates, shares, judged, seed)


def principal_components(vectors: FloatArray, n_components: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centred vectors (n, d) in their principal axes, (n, c), and each axis's share of the variance, (c,).

    An axis points where its largest entry is positive, so that the picture is the same on every machine.
    """
    n, d = vectors.shape
    if n < d:
        squares, left = np.linalg.eigh(vectors @ vectors.T)
        axes = vectors.T @ left[:, ::-1][:, :n_components]
    else:
        squares, right = np.linalg.eigh(vectors.T @ vectors)
        axes = right[:, ::-1][:, :n_components]
    lengths = np.linalg.norm(axes, axis=0)
    axes = axes / np.where(lengths > 0, lengths, 1.0)
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    shares = np.maximum(squares[::-1][:n_components], 0.0) / np.maximum(squares, 0.0).sum()
    return vectors @ axes, shares


def _pca(vectors: FloatArray, seed: int) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    coordinates, shares = principal_components(vectors, 2)
    if coordinates.shape[1] < 2:
        coordinates, shares = np.c_[coordinates, np.zeros(len(vectors))], np.append(shares, 0.0)
    return coordinates, (float(shares[0]), float(shares[1]))


def _umap(vectors: FloatArray, seed: int) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    from umap import UMAP

    neighbors = min(_UMAP_NEIGHBORS, len(vectors) - 1)
    # A random start where there are too few points for a spectral one.
    start = "spectral" if len(vectors) > 2 * _UMAP_NEIGHBORS else "random"
    reducer = UMAP(n_neighbors=neighbors, min_dist=0.1, init=start, random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(vectors.astype(np.float32)), dtype=np.float64), None


def _tsne(vectors: FloatArray, seed: int) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    from sklearn.manifold import TSNE

    reduced, _ = principal_components(vectors, min(_TSNE_INPUT, *vectors.shape))
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    reducer = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(reducer.fit_transform(reduced), dtype=np.float64), None


METHODS: dict[str, Method] = {
    "pca": Method("Principal component", _pca),
    "umap": Method("UMAP", _umap),
    "tsne": Method("t-SNE", _tsne),
}
"""How embeddings can be put on a plane, by name."""
