"""Sums over patients that stand for a cohort: they add up over shards, and hold no vector of any single patient.

Each patient counts once, images having the weight 1 / (images of the patient). Shards must not share patients, since
a sum cannot tell that a name was met before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.pairwise import refuse_zero_vectors, row_norms
from medvlm_probe.shift.sketch_plan import N_BINS, OUTLIER_EDGES, SketchPlan, fold_counts, folds_of, walls_of
from medvlm_probe.types import FloatArray, IntArray

FEWEST_IN_FOLD = 3
"""Folds are put together until each has so many patients: the sum of fewer comes near to one patient's vector."""

POSITIVE, NEGATIVE, UNKNOWN = 0, 1, 2
RESIDUAL_SUMS = ("patients", "residual", "residual_squared", "brier", "brier_squared")
_ROWS = 512

Array = NDArray[np.float64]
Kind = Literal["working", "export"]


@dataclass(frozen=True, eq=False)
class Sketch:
    """Sums over patients, float64; in an export what was suppressed is NaN, and so are bins told within a later one.

    L labels, V = 3 values of a label (positive, negative, unknown), O outlier scores, K folds (`fold_counts`), F
    features, d dimensions. Weights are patients, those with several images being shared out.

    Attributes:
        plan: what is measured.
        kind: `working` is exact and adds up; `export` may leave the hospital.
        own_plan: whether the plan's numbers were chosen on these patients.
        fold_patients: (K,).
        fold_features: sums of patients' mean features, (K, F).
        fold_lengths: sums of their squared lengths, (K,).
        embedding: sum of patients' mean unit vectors, (d,).
        products: of their mean outer products, the lower triangle, (d (d + 1) / 2,).
        label_weights: by label, value and bin of probability (`walls_of`), (L, V, N_BINS). In an export the bins up to
            a number that is told, from the last such bin on, are told together: see `sketch_cells`.
        label_confidence: sums of weighted probabilities in those bins, (L, V, N_BINS).
        calls: weights below and from the threshold on, (L, V, 2).
        call_patients: different patients there, (L, V, 2).
        residuals: sums over patients with a known value, of `RESIDUAL_SUMS`: the patient's mean of probability less
            label, its square, mean Brier score, its square, (L, 5).
        outlier_weights: by score and bin, (O, bins); in an export as `label_weights`.
        images: how many; NaN in an export with noise.
        noise: standard deviation of the noise in each array, by its name; none where absent.
        privacy: what an export promises: `epsilon`, `delta`; empty without noise.
    """

    plan: SketchPlan
    kind: Kind
    own_plan: bool
    fold_patients: Array
    fold_features: Array
    fold_lengths: Array
    embedding: Array
    products: Array
    label_weights: Array
    label_confidence: Array
    calls: Array
    call_patients: Array
    residuals: Array
    outlier_weights: Array
    images: Array
    noise: Mapping[str, float] = field(default_factory=dict)
    privacy: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_patients(self) -> float:
        """Patients; not whole in an export with noise."""
        return float(self.fold_patients.sum())

    def arrays(self) -> dict[str, Array]:
        """Return the sums by name."""
        return {name: getattr(self, name) for name in ARRAYS}


ARRAYS = tuple(f.name for f in fields(Sketch) if f.name not in ("plan", "kind", "own_plan", "noise", "privacy"))


def sketch(
    plan: SketchPlan,
    vectors: ArrayLike,
    patients: Sequence[str],
    *,
    probabilities: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    outlier_scores: Mapping[str, ArrayLike] | None = None,
    own_plan: bool = False,
) -> Sketch:
    """Return the working sketch of a cohort, or of a shard of it.

    Args:
        plan: what is measured.
        vectors: image vectors before normalisation, (n, d).
        patients: the name of each image's patient, (n,); it decides the fold and is not kept.
        probabilities: of the plan's labels, (n, L); None where it has none.
        labels: 1, 0 or NaN, (n, L); None where nothing is known.
        outlier_scores: of each name in the plan, (n,), larger = more outlying.
        own_plan: the plan's numbers were chosen on these patients.

    Raises:
        InputError: arrays that do not fit the plan, or fewer than three patients.
    """
    embeddings = checked_embeddings(vectors)
    n = len(embeddings)
    if embeddings.shape[1] != plan.features.n_dimensions or len(patients) != n:
        raise InputError(
            f"Embeddings of shape {embeddings.shape} and {len(patients)} patients' names: expected "
            f"{plan.features.n_dimensions} dimensions, and a name for each image."
        )
    names, groups = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    order = np.argsort(groups, kind="stable")
    folds = _folds(names.tolist(), plan.n_folds)
    by_image = _Images(groups.astype(np.int64), (1 / np.bincount(groups))[groups])
    sums: dict[str, Any] = {
        **_embedding_sums(plan, embeddings[order], groups[order], folds),
        **_label_sums(plan, by_image, probabilities, labels),
        **_outlier_sums(plan, by_image, outlier_scores or {}),
        "images": np.array([float(n)]),
    }
    return Sketch(plan, "working", own_plan, **sums)


def merge_sketches(sketches: Sequence[Sketch]) -> Sketch:
    """Return the sketch of all shards together, equal to sketching them at once up to rounding (1e-9).

    It has as many folds as the shard that has fewest.

    Raises:
        InputError: no sketch, sketches of different plans, or an export among them.
    """
    if not sketches:
        raise InputError("No sketch was given: at least one is needed.")
    first = sketches[0]
    for other in sketches:
        if other.kind != "working":
            raise InputError(
                "An exported sketch cannot be merged: cells are missing. Merge working sketches, then export."
            )
        refuse_other_plan(first.plan, other.plan)
    n_folds = min(len(each.fold_patients) for each in sketches)
    sketches = [with_folds(each, n_folds) for each in sketches]
    merged: dict[str, Any] = {name: np.sum([getattr(each, name) for each in sketches], axis=0) for name in ARRAYS}
    return Sketch(first.plan, "working", any(each.own_plan for each in sketches), **merged)


def refuse_other_plan(first: SketchPlan, second: SketchPlan) -> None:
    """Raise InputError, naming the first field that differs, unless both sketches measure the same."""
    mine, other = first.to_json(), second.to_json()
    for name, value in mine.items():
        if value != other[name]:
            raise InputError(
                f"The sketches differ in {name.replace('_', ' ')}: they cannot be put together. "
                "Make the second one with --like FIRST.sketch, and the same model and prompts."
            )


def with_folds(sketch: Sketch, n_folds: int) -> Sketch:
    """Return a sketch with its folds put together; their number is one of `fold_counts`."""

    def summed(folds: Array) -> Array:
        return np.asarray(folds.reshape(-1, n_folds, *folds.shape[1:]).sum(axis=0))

    return replace(
        sketch,
        fold_patients=summed(sketch.fold_patients),
        fold_features=summed(sketch.fold_features),
        fold_lengths=summed(sketch.fold_lengths),
    )


def _folds(names: Sequence[str], n_folds: int) -> NDArray[np.int64]:
    for count in fold_counts(n_folds):
        folds = folds_of(names, count)
        if np.bincount(folds, minlength=count).min() >= FEWEST_IN_FOLD:
            return folds
    raise InputError(f"{len(names)} patients: a sketch needs at least {FEWEST_IN_FOLD}, so that it shows none of them.")


@dataclass(frozen=True, eq=False)
class _Images:
    """The patient of each image, as codes, and its weight, (n,)."""

    groups: NDArray[np.int64]
    weights: Array

    def in_cells(self, cells: IntArray, n_cells: int) -> Array:
        """Return the weight in each cell, (cells,)."""
        return np.asarray(np.bincount(cells, weights=self.weights, minlength=n_cells), dtype=np.float64)

    def patients_in(self, cells: IntArray, n_cells: int) -> Array:
        """Return the different patients in each cell, (cells,)."""
        pairs = np.unique(np.stack([cells, self.groups]), axis=1)
        return np.bincount(pairs[0], minlength=n_cells).astype(np.float64)


def _embedding_sums(plan: SketchPlan, vectors: FloatArray, groups: IntArray, folds: IntArray) -> dict[str, Array]:
    """Sum over patients in blocks of whole patients; vectors are in patients' order."""
    norms = row_norms(vectors)
    refuse_zero_vectors(norms)
    d, k = plan.features.n_dimensions, int(folds.max()) + 1
    features = np.zeros((k, plan.features.n_features))
    lengths, embedding, products = np.zeros(k), np.zeros(d), np.zeros((d, d))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    ends = np.append(starts[1:], len(groups))
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + _ROWS, side="right")))
        rows = slice(starts[first], ends[last - 1])
        units = vectors[rows].astype(np.float64) / norms[rows, None]
        sizes = (ends - starts)[first:last]
        means = np.add.reduceat(plan.features(units), starts[first:last] - rows.start, axis=0) / sizes[:, None]
        np.add.at(features, folds[first:last], means)
        np.add.at(lengths, folds[first:last], (means**2).sum(axis=1))
        weighted = units / np.repeat(sizes, sizes)[:, None]
        embedding += weighted.sum(axis=0)
        products += weighted.T @ units
        first = last
    return {
        "fold_patients": np.bincount(folds, minlength=k).astype(np.float64),
        "fold_features": features,
        "fold_lengths": lengths,
        "embedding": embedding,
        "products": products[np.tril_indices(d)],
    }


def _label_sums(
    plan: SketchPlan, images: _Images, probabilities: ArrayLike | None, labels: ArrayLike | None
) -> dict[str, Array]:
    shape = (len(images.groups), len(plan.labels))
    p = np.zeros((shape[0], 0)) if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    y = np.full(shape, np.nan) if labels is None else np.asarray(labels, dtype=np.float64)
    if p.shape != shape or y.shape != shape or not ((p >= 0) & (p <= 1)).all():
        raise InputError(
            f"Probabilities of shape {p.shape} and labels of shape {y.shape}: expected {shape}, the former in [0, 1]."
        )
    found: dict[str, list[Array]] = {name: [] for name in LABEL_ARRAYS}
    for column, truth, threshold in zip(p.T, y.T, plan.thresholds, strict=True):
        value = np.where(np.isnan(truth), UNKNOWN, np.where(truth == 1, POSITIVE, NEGATIVE))
        called = column >= threshold
        bins = value * N_BINS + np.searchsorted(walls_of(threshold), column, side="right")
        calls = value * 2 + called
        found["label_weights"].append(images.in_cells(bins, 3 * N_BINS).reshape(3, N_BINS))
        confidence = np.bincount(bins, weights=images.weights * column, minlength=3 * N_BINS)
        found["label_confidence"].append(confidence.reshape(3, N_BINS).astype(np.float64))
        found["calls"].append(images.in_cells(calls, 6).reshape(3, 2))
        found["call_patients"].append(images.patients_in(calls, 6).reshape(3, 2))
        found["residuals"].append(_residual_sums(column, truth, images.groups))
    shapes = dict(zip(LABEL_ARRAYS, (*[(3, N_BINS)] * 2, (3, 2), (3, 2), (5,)), strict=True))
    return {name: np.array(rows).reshape(len(rows), *shapes[name]) for name, rows in found.items()}


LABEL_ARRAYS = ("label_weights", "label_confidence", "calls", "call_patients", "residuals")


def _residual_sums(probabilities: FloatArray, truth: FloatArray, groups: IntArray) -> Array:
    known = ~np.isnan(truth)
    codes = np.unique(groups[known], return_inverse=True)[1]
    if not len(codes):
        return np.zeros(len(RESIDUAL_SUMS))
    difference = probabilities[known] - truth[known]
    sizes = np.bincount(codes)
    residual, brier = (np.bincount(codes, weights=values) / sizes for values in (difference, difference**2))
    return np.array([len(sizes), residual.sum(), (residual**2).sum(), brier.sum(), (brier**2).sum()])


def _outlier_sums(plan: SketchPlan, images: _Images, scores: Mapping[str, ArrayLike]) -> dict[str, Array]:
    n_bins = len(OUTLIER_EDGES) + 1
    weights = []
    for name in plan.outlier_scores:
        values = np.asarray(scores.get(name, ()), dtype=np.float64)
        if values.shape != images.groups.shape or not np.isfinite(values).all():
            raise InputError(
                f"Outlier scores '{name}' of shape {values.shape}: expected {images.groups.shape}, finite numbers."
            )
        weights.append(images.in_cells(np.searchsorted(OUTLIER_EDGES, values, side="right"), n_bins))
    return {"outlier_weights": np.array(weights).reshape(len(weights), n_bins)}
