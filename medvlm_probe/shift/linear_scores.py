"""Held-out scores of a linear discriminant: closed form, so that any number of relabelled fits are matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.held_out_accuracy import whitened
from medvlm_probe.shift.two_samples import mean_by_group
from medvlm_probe.types import BoolArray, FloatArray, IntArray

N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class LinearScores:
    """Whitened images, and their sums over groups, from which each fold's discriminant follows for any marks of groups.

    The discriminant is Fisher's: the difference of two class means in the space where the shrunk covariance of all
    images is the identity. It has the direction of a ridge regression on the class, and needs no solver.

    Attributes:
        images: float32 (n, d), whitened; knows no classes.
        by_group: mean of each group's images, float32 (G, d).
        groups: ascending codes 0 ... G - 1, (n,).
        fold_of_group: drawn without looking at classes, (G,).
        n_folds: F.
    """

    images: NDArray[np.float32]
    by_group: NDArray[np.float32]
    groups: NDArray[np.int64]
    fold_of_group: NDArray[np.int64]
    n_folds: int

    @classmethod
    def of(cls, vectors: FloatArray, groups: IntArray, rng: np.random.Generator) -> LinearScores:
        """Whiten the vectors (n, d) and deal the groups (n,) to folds."""
        images = whitened(vectors).astype(np.float32)
        n_groups = int(groups[-1]) + 1
        n_folds = min(N_FOLDS, n_groups)
        fold = np.asarray(rng.permutation(n_groups) % n_folds, dtype=np.int64)
        return cls(
            images, np.asarray(mean_by_group(images, groups), np.float32), groups.astype(np.int64), fold, n_folds
        )

    def held_out(self, of_site: BoolArray) -> NDArray[np.float32]:
        """Return the scores of all images when some groups are the site's, for b such marks at once.

        Args:
            of_site: (b, G).

        Returns:
            float32 (b, n): higher is more like the site; comparable within a fold. All 0 in a fold outside which one
            sample has no group.
        """
        marks = of_site.astype(np.float32)
        sums = np.zeros((self.n_folds, 2, len(marks), self.images.shape[1]), dtype=np.float32)
        counts = np.zeros((self.n_folds, 2, len(marks)))
        for fold in range(self.n_folds):
            inside = self.fold_of_group == fold
            part, rows = marks[:, inside], self.by_group[inside]
            sums[fold, 1] = part @ rows
            sums[fold, 0] = rows.sum(axis=0) - sums[fold, 1]
            counts[fold, 1] = part.sum(axis=1)
            counts[fold, 0] = inside.sum() - counts[fold, 1]
        scores = np.empty((len(marks), len(self.images)), dtype=np.float32)
        image_fold = self.fold_of_group[self.groups]
        for fold in range(self.n_folds):
            left_sums, left = sums.sum(axis=0) - sums[fold], counts.sum(axis=0) - counts[fold]
            means = left_sums / np.maximum(left, 1)[:, :, None].astype(np.float32)
            direction = np.where((left > 0).all(axis=0)[:, None], means[1] - means[0], np.float32(0))
            held = image_fold == fold
            scores[:, held] = direction @ self.images[held].T
        return scores


def held_out_scores(
    vectors: FloatArray, labels: FloatArray, weights: FloatArray, folds: IntArray
) -> NDArray[np.float64]:
    """Return each label's discriminant on images of a fold that it has not seen, higher for positives, (n, L).

    Args:
        vectors: (n, d).
        labels: 1, 0 or NaN, (n, L); they may vary within a group.
        weights: of images, (n,).
        folds: 0 ... F - 1, of whole groups, (n,).
    """
    images = whitened(vectors)
    sides = [(labels == side) * weights[:, None] for side in (1, 0)]
    scores = np.zeros(labels.shape)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        means = []
        for side in sides:
            left = side[~held]
            means.append((left.T @ images[~held]) / np.maximum(left.sum(axis=0), 1e-12)[:, None])
        scores[held] = images[held] @ (means[0] - means[1]).T
    return scores
