"""How unlike the reference an image is: a registry of scores, each fitted on reference images alone.

One convention for all: a larger score is more outlying. Scores of different methods have no common scale; `outliers`
turns them into quantiles of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.types import FloatArray, IntArray

BLOCK_ROWS = 2048

NEIGHBOURS = 10

MOST_NEIGHBOURS_AMONG = 10_000
"""`knn` takes the nearest of at most so many reference images, evenly drawn from more: its cost is then linear."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutlierInputs:
    """What the scores look at, one row an image; what a method does not need may be absent.

    Attributes:
        embeddings: (n, d), before normalisation.
        logits: of K answers at the model's scale, (n, K): competing ones for `max_softmax`, `energy` and `vim`,
            independent labels for `joint_energy`.
        cosines: with the prompts of K competing answers, in [-1, 1], (n, K).
    """

    embeddings: FloatArray | None = None
    logits: FloatArray | None = None
    cosines: FloatArray | None = None

    def __post_init__(self) -> None:
        given = {name: np.shape(a) for name in FIELDS if (a := getattr(self, name)) is not None}
        if not given or any(len(shape) != 2 for shape in given.values()) or len({s[0] for s in given.values()}) != 1:
            raise InputError(f"Shapes {given or 'of nothing'}: expected one row an image, (n, d) or (n, K), in each.")

    def __len__(self) -> int:
        return next(len(a) for name in FIELDS if (a := getattr(self, name)) is not None)

    def rows(self, index: slice | ArrayLike) -> OutlierInputs:
        """Return some rows."""
        taken = {name: a[index] for name in FIELDS if (a := getattr(self, name)) is not None}
        return replace(self, **taken)


FIELDS = ("embeddings", "logits", "cosines")

ScoreRows = Callable[[OutlierInputs], Array]


@dataclass(frozen=True, eq=False)
class FittedOutlierScore:
    """A method fitted on the reference.

    Attributes:
        name: of `METHODS`.
        needs: the fields of `OutlierInputs` that it looks at.
        n_reference: images it was fitted on, after what `knn` leaves out; 0 where the method learns nothing.
        score_rows: scores of the rows given, larger = more outlying.
    """

    name: str
    needs: tuple[str, ...]
    n_reference: int
    score_rows: ScoreRows

    def scores(self, inputs: OutlierInputs, *, block_rows: int = BLOCK_ROWS) -> Array:
        """Return each image's score, (n,), larger = more outlying; memory is that of one block.

        Raises:
            InputError: what the method needs is absent or not finite.
        """
        checked = _checked(inputs, self.name, self.needs)
        parts = [self.score_rows(checked.rows(slice(s, s + block_rows))) for s in range(0, len(checked), block_rows)]
        return np.concatenate(parts) if parts else np.zeros(0)


@dataclass(frozen=True)
class OutlierMethod:
    """One entry of the registry: what it needs, how it is fitted (inputs, classes, options), where it comes from.

    Of more reference images than `at_most` so many are drawn, the same ones each time.
    """

    needs: tuple[str, ...]
    fit: Callable[..., ScoreRows]
    learns: bool
    source: str
    at_most: int | None = None


def fit_outlier_score(
    name: str, reference: OutlierInputs, classes: IntArray | None = None, **options: Any
) -> FittedOutlierScore:
    """Fit one method on the reference's images.

    Args:
        name: of `METHODS`.
        reference: at least two images where the method learns something.
        classes: any integer code of each image, (n,), for both Mahalanobis distances; None is one class. For several
            labels an image: a code of its label vector, or of any finding against none.
        options: `temperature` (max_softmax, energy, mcm), `n_neighbors` (knn), `n_dimensions` (vim, residual).

    Raises:
        UnknownNameError: no such method.
        InputError: inputs that the method needs are absent, not finite or too few.
    """
    if name not in METHODS:
        raise unknown_name("outlier score", name, METHODS)
    method = METHODS[name]
    checked = _checked(reference, name, method.needs)
    if method.learns and len(checked) < 2:
        raise InputError(f"'{name}' was given {len(checked)} reference image(s): it needs at least 2.")
    codes = np.zeros(len(checked), dtype=np.int64) if classes is None else np.asarray(classes)
    if codes.shape != (len(checked),):
        raise InputError(f"Classes of shape {codes.shape} do not fit {len(checked):,} reference images.")
    codes = np.unique(codes, return_inverse=True)[1]
    if method.at_most is not None and len(checked) > method.at_most:
        drawn = np.sort(np.random.default_rng(0).choice(len(checked), method.at_most, replace=False))
        checked, codes = checked.rows(drawn), codes[drawn]
    return FittedOutlierScore(
        name, method.needs, len(checked) if method.learns else 0, method.fit(checked, codes, **options)
    )


def _checked(inputs: OutlierInputs, name: str, needs: Sequence[str]) -> OutlierInputs:
    arrays = {}
    for need in needs:
        array = getattr(inputs, need)
        if array is None:
            raise InputError(f"Outlier score '{name}' needs {need}, which were not given.")
        arrays[need] = checked_embeddings(array)
    return OutlierInputs(**arrays)


def _of(inputs: OutlierInputs, field: str) -> Array:
    return np.asarray(getattr(inputs, field), dtype=np.float64)


def _fit_softmax(_: OutlierInputs, __: IntArray, *, field: str, temperature: float = 1.0) -> ScoreRows:
    _refuse_cold(temperature)
    return lambda rows: -np.asarray(special.softmax(_of(rows, field) / temperature, axis=1).max(axis=1))


def _fit_energy(_: OutlierInputs, __: IntArray, *, temperature: float = 1.0) -> ScoreRows:
    _refuse_cold(temperature)
    return lambda rows: -temperature * np.asarray(special.logsumexp(_of(rows, "logits") / temperature, axis=1))


def _fit_joint_energy(_: OutlierInputs, __: IntArray) -> ScoreRows:
    return lambda rows: -np.logaddexp(0.0, _of(rows, "logits")).sum(axis=1)


def _refuse_cold(temperature: float) -> None:
    if not temperature > 0:
        raise InputError(f"A temperature of {temperature}: expected a number above 0.")


def _shrunk_covariance(centred: Array) -> Array:
    """Return Ledoit and Wolf's shrunk covariance of centred rows, (d, d)."""
    from sklearn.covariance import ledoit_wolf

    return np.asarray(ledoit_wolf(centred, assume_centered=True)[0])


def _precision_root(covariance: Array) -> Array:
    """Return a matrix R with R R^T the inverse of a covariance, (d, d)."""
    values, axes = np.linalg.eigh(covariance)
    return np.asarray(axes / np.sqrt(np.maximum(values, 1e-12 * max(values.max(), 1e-300))))


def _fit_mahalanobis(reference: OutlierInputs, classes: IntArray, *, relative: bool) -> ScoreRows:
    x = _of(reference, "embeddings")
    n_classes = int(classes.max()) + 1
    means = np.stack([x[classes == k].mean(axis=0) for k in range(n_classes)])
    within = _shrunk_covariance(x - means[classes])
    root = _precision_root(within)
    centres = means @ root
    # Shrunk on its own, the covariance of all images could fall below that within classes in quiet directions, and
    # the farther an image lay there, the less outlying it would be.
    between = (means - x.mean(axis=0)).T @ ((means - x.mean(axis=0)) * np.bincount(classes)[:, None]) / len(x)
    background_root = _precision_root(within + between) if relative else root
    background = x.mean(axis=0) @ background_root

    def score(rows: OutlierInputs) -> Array:
        vectors = _of(rows, "embeddings")
        white = vectors @ root
        nearest = np.stack([((white - centre) ** 2).sum(axis=1) for centre in centres]).min(axis=0)
        if not relative:
            return np.asarray(nearest)
        return np.asarray(nearest - ((vectors @ background_root - background) ** 2).sum(axis=1))

    return score


def _fit_neighbours(reference: OutlierInputs, _: IntArray, *, n_neighbors: int = NEIGHBOURS) -> ScoreRows:
    vectors = _unit(_of(reference, "embeddings"))
    if not 1 <= n_neighbors <= len(vectors):
        raise InputError(f"{n_neighbors} neighbours of {len(vectors):,} reference images: expected 1 to that number.")

    def score(rows: OutlierInputs) -> Array:
        cosines = _unit(_of(rows, "embeddings")) @ vectors.T
        kth = np.partition(cosines, len(vectors) - n_neighbors, axis=1)[:, len(vectors) - n_neighbors]
        return np.sqrt(np.maximum(2 - 2 * kth, 0.0))

    return score


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise InputError(f"{int((lengths == 0).sum())} embeddings are zero vectors, which have no direction.")
    return np.asarray(vectors / lengths)


def _null_space(vectors: Array, n_dimensions: int | None) -> Array:
    """Return the directions left once the leading ones of the second moment about the origin are taken, (d, d - D)."""
    d = vectors.shape[1]
    # Wang et al.: 1000 of 2048, 512 of 768 and more; below, half of them.
    kept = n_dimensions if n_dimensions is not None else (1000 if d >= 2048 else 512 if d >= 768 else d // 2)
    if not 0 < kept < d:
        raise InputError(f"{kept} principal dimensions of {d}: expected 1 to {d - 1}.")
    _, axes = np.linalg.eigh(vectors.T @ vectors / len(vectors))
    return np.asarray(axes[:, : d - kept])


def _fit_residual(reference: OutlierInputs, _: IntArray, *, n_dimensions: int | None = None) -> ScoreRows:
    left = _null_space(_of(reference, "embeddings"), n_dimensions)
    return lambda rows: np.linalg.norm(_of(rows, "embeddings") @ left, axis=1)


def _fit_vim(reference: OutlierInputs, _: IntArray, *, n_dimensions: int | None = None) -> ScoreRows:
    vectors, logits = _of(reference, "embeddings"), _of(reference, "logits")
    left = _null_space(vectors, n_dimensions)
    typical = float(np.linalg.norm(vectors @ left, axis=1).mean())
    height = float(logits.max(axis=1).mean())
    if height <= 0 or typical <= 0:
        raise InputError(
            f"ViM scales the residual by the mean largest logit, here {height:.3g}, over the mean residual, "
            f"{typical:.3g}: both must be above 0. Give logits of competing answers, or take 'residual'."
        )
    scale = height / typical

    def score(rows: OutlierInputs) -> Array:
        virtual = scale * np.linalg.norm(_of(rows, "embeddings") @ left, axis=1)
        return np.asarray(virtual - special.logsumexp(_of(rows, "logits"), axis=1))

    return score


METHODS: dict[str, OutlierMethod] = {
    "max_softmax": OutlierMethod(
        ("logits",), partial(_fit_softmax, field="logits"), False, "Hendrycks and Gimpel 2017; negated"
    ),
    "energy": OutlierMethod(("logits",), _fit_energy, False, "Liu et al. 2020: -T logsumexp(logits / T)"),
    "joint_energy": OutlierMethod(
        ("logits",), _fit_joint_energy, False, "Wang et al. 2021, independent labels: -sum log(1 + exp(logit))"
    ),
    "mcm": OutlierMethod(
        ("cosines",), partial(_fit_softmax, field="cosines"), False, "Ming et al. 2022: softmax of cosines; negated"
    ),
    "mahalanobis": OutlierMethod(
        ("embeddings",),
        partial(_fit_mahalanobis, relative=False),
        True,
        "Lee et al. 2018: squared, to the nearest class mean; covariance shared, shrunk as Ledoit and Wolf 2004",
    ),
    "relative_mahalanobis": OutlierMethod(
        ("embeddings",),
        partial(_fit_mahalanobis, relative=True),
        True,
        "Ren et al. 2021: less the distance to all images; sees only directions that part classes, 0 for one class",
    ),
    "knn": OutlierMethod(
        ("embeddings",),
        _fit_neighbours,
        True,
        "Sun et al. 2022: distance of normalised vectors to the k-th nearest (of a sample, as there, of many)",
        at_most=MOST_NEIGHBOURS_AMONG,
    ),
    "residual": OutlierMethod(
        ("embeddings",), _fit_residual, True, "Wang et al. 2022: length outside the principal space about the origin"
    ),
    "vim": OutlierMethod(
        ("embeddings", "logits"), _fit_vim, True, "Wang et al. 2022: virtual logit less logsumexp of the logits"
    ),
}
