"""How well a label can be told from embeddings by neighbours and by a linear probe, always on held-out groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.neighbours import Neighbours
from medvlm_probe.metrics.pair_sums import quotient
from medvlm_probe.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class FoldValues:
    """A statistic of L labels on all images, (L,), and without each of F folds of groups, (F, L); NaN if undefined."""

    value: NDArray[np.float64]
    without: NDArray[np.float64]


def neighbour_accuracy(neighbours: Neighbours, labels: FloatArray, folds: IntArray) -> FoldValues:
    """Return each label's balanced accuracy by its nearest neighbours of other groups, in [0, 1], .5 by chance.

    An image is called positive where the share of positives among its k nearest (of those known) exceeds the share
    among all known images of the other groups' fold, so a rare label can be called too. Without a fold, the next
    nearest move up, as far as spare neighbours reach.

    Args:
        neighbours: of all images, (n,), none of the own group.
        labels: 1, 0 or NaN, (n, L).
        folds: of groups, 0 ... F - 1, (n,).
    """
    n_folds, k = int(folds.max()) + 1, neighbours.n_neighbors
    exists = neighbours.indices >= 0
    owner = np.where(exists, folds[neighbours.indices], -1)
    rows = [_neighbour_row(neighbours, labels, exists & (np.cumsum(exists, axis=1) <= k), np.ones(len(folds), bool))]
    for fold in range(n_folds):
        stays = exists & (owner != fold)
        rows.append(_neighbour_row(neighbours, labels, stays & (np.cumsum(stays, axis=1) <= k), folds != fold))
    return FoldValues(rows[0], np.stack(rows[1:]))


def _neighbour_row(
    neighbours: Neighbours, labels: FloatArray, used: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the balanced accuracies of the kept images by the neighbours that are used, (L,)."""
    result = np.empty(labels.shape[1])
    for column, label in enumerate(labels.T):
        known = ~np.isnan(label)
        positive = label == 1
        hits = (used & positive[neighbours.indices]).sum(axis=1)
        seen = (used & known[neighbours.indices]).sum(axis=1)
        prevalence = positive[kept].sum() / max(int(known[kept].sum()), 1)
        rows = kept & known & (seen > 0)
        called = hits > prevalence * seen
        result[column] = _balanced(called[rows], positive[rows])
    return result


def probe_accuracy(vectors: FloatArray, labels: FloatArray, folds: IntArray) -> FoldValues:
    """Return each label's balanced accuracy by a linear probe that has not seen the image's fold, in [0, 1].

    The probe is linear discriminant analysis with equal priors: in whitened space, the nearer of two class means, which
    come from the other folds. The whitening (Ledoit and Wolf's shrunk covariance of all images) knows no labels. The
    bias of a mean of few images is taken from its squared length. Leaving out a fold takes it from training too, so the
    jackknife holds what training on another sample would change.

    Args:
        vectors: (n, d), in the declared space.
        labels: 1, 0 or NaN, (n, L).
        folds: of groups, 0 ... F - 1, (n,); both held out in turn and left out.

    Source: Ledoit and Wolf 2004 (shrinkage); the covariance of all images gives the direction of that within classes.
    """
    z = whitened(vectors)
    n_folds = int(folds.max()) + 1
    sides = [_ClassSums.of(z, labels == side, folds, n_folds) for side in (1, 0)]
    called = np.empty((n_folds + 1, *labels.shape), dtype=bool)  # by what is left out, nothing first
    for held_out in range(n_folds):
        rows = folds == held_out
        for left_out in (-1, *range(n_folds)):
            gone = {held_out, left_out} - {-1}
            means, lengths = zip(*(side.without(gone) for side in sides), strict=True)
            threshold = (lengths[0] - lengths[1]) / 2
            called[left_out + 1, rows] = z[rows] @ (means[0] - means[1]).T > threshold
    result = np.empty((n_folds + 1, labels.shape[1]))
    for left_out in range(-1, n_folds):
        for column, label in enumerate(labels.T):
            rows = ~np.isnan(label) & (folds != left_out)
            result[left_out + 1, column] = _balanced(called[left_out + 1, rows, column], label[rows] == 1)
    defined = np.stack([(side.folds_with > 2) for side in sides]).all(axis=0)
    result[:, ~defined] = np.nan
    return FoldValues(result[0], result[1:])


@dataclass(frozen=True, eq=False)
class _ClassSums:
    """Sums of each label's images of one class by fold: vectors (F, L, d), squared lengths and counts (F, L)."""

    vectors: NDArray[np.float64]
    squares: NDArray[np.float64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, z: FloatArray, member: NDArray[np.bool_], folds: IntArray, n_folds: int) -> _ClassSums:
        masks = [member & (folds == fold)[:, None] for fold in range(n_folds)]
        lengths = (z**2).sum(axis=1)
        return cls(
            np.stack([mask.T.astype(np.float64) @ z for mask in masks]),
            np.stack([lengths @ mask for mask in masks]),
            np.stack([mask.sum(axis=0) for mask in masks]).astype(np.float64),
        )

    @property
    def folds_with(self) -> NDArray[np.int64]:
        """In how many folds each label has such images, (L,)."""
        return np.asarray((self.counts > 0).sum(axis=0))

    def without(self, gone: set[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each label's mean (L, d), and its squared length free from the bias of few images, (L,)."""
        kept = [fold for fold in range(len(self.counts)) if fold not in gone]
        total, squares, n = (part[kept].sum(axis=0) for part in (self.vectors, self.squares, self.counts))
        several = np.maximum(n * (n - 1), 1)
        length = np.where(n > 1, ((total**2).sum(axis=1) - squares) / several, 0.0)
        return total / np.maximum(n, 1)[:, None], length


def whitened(vectors: FloatArray) -> NDArray[np.float64]:
    """Return vectors in the space where their shrunk covariance is the identity, (n, d)."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    x = np.asarray(vectors, dtype=np.float64)
    x = x - x.mean(axis=0)
    shrinkage = float(ledoit_wolf_shrinkage(x, assume_centered=True))
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    values = (1 - shrinkage) * np.maximum(values, 0.0) + shrinkage * values.mean()
    return np.asarray(x @ (axes / np.sqrt(np.maximum(values, 1e-12 * values.max()))))


def _balanced(called: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    recall = quotient(float(called[positive].sum()), float(positive.sum()))
    specificity = quotient(float((~called[~positive]).sum()), float((~positive).sum()))
    return float((recall + specificity) / 2)
