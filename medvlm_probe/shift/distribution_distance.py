"""Kolmogorov-Smirnov distances of numbers in two samples of patients, for many permutations or weights at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.shift.two_samples import image_weights
from medvlm_probe.types import BoolArray, FloatArray, IntArray

N_RESAMPLES = 400

ROUNDING = 1e-4
"""Of distances summed in float32, relative: permuted ones so little below the observed one count as ties."""


@dataclass(frozen=True, eq=False)
class SortedNumbers:
    """One number of each image, in ascending order.

    Attributes:
        groups: of the images in that order, (n,).
        weights: 1 / (images of the group), float32 (n,).
        last: where a run of equal numbers ends; distribution functions are compared there.
        n_groups: G.
    """

    groups: NDArray[np.int64]
    weights: NDArray[np.float32]
    last: NDArray[np.int64]
    n_groups: int

    @classmethod
    def of(cls, numbers: FloatArray, groups: IntArray) -> SortedNumbers:
        """Sort numbers (n,) of images whose groups are codes 0 ... G - 1, (n,)."""
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
        weights = image_weights(groups)[order].astype(np.float32)
        return cls(groups[order].astype(np.int64), weights, last, int(groups.max()) + 1)

    def differences(self, signed: FloatArray) -> NDArray[np.float32]:
        """Return the site's distribution function less the reference's wherever it steps, (b, steps).

        Args:
            signed: each group's share of its sample, below 0 for the reference's, (b, G).
        """
        steps = np.asarray(signed, dtype=np.float32)[:, self.groups]
        steps *= self.weights
        np.cumsum(steps, axis=1, out=steps)
        return steps if len(self.last) == steps.shape[1] else steps[:, self.last]

    def distances(self, of_site: BoolArray) -> NDArray[np.float32]:
        """Return the Kolmogorov-Smirnov distance, in [0, 1], for b marks of the site's groups (b, G), (b,)."""
        return np.minimum(_largest(self.differences(signed_shares(of_site))), np.float32(1))


def signed_shares(of_site: BoolArray) -> NDArray[np.float32]:
    """Return 1 / (groups of the site) for its groups and -1 / (groups of the reference) for the others, (b, G)."""
    at_site = of_site.sum(axis=1, keepdims=True)
    others = of_site.shape[1] - at_site
    return np.asarray(np.where(of_site, (1 / at_site).astype(np.float32), (-1 / others).astype(np.float32)))


def _largest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(values.max(axis=1), -values.min(axis=1)))


def uniform_reach(columns: list[SortedNumbers], of_site: BoolArray, rng: np.random.Generator) -> float:
    """Return how far a distance can lie from the truth: all columns' true distances are within it with 95 % together.

    The 95 % quantile, over samples of groups drawn again, of the largest deviation of a difference of distribution
    functions from that in the data. No distance is recomputed from copies: a distance differs from the true one by no
    more than the difference of the functions does anywhere. Numbers that are all alike deviate in no such sample, so
    the reach is at least the share that the smaller sample's patients can have missed, 1 - .05^(1 / patients).

    Args:
        columns: of the same groups.
        of_site: (G,).
        rng: draws the groups.

    Source: Bickel and Krieger 1989 (bootstrap bands of distribution functions).
    """
    found = np.zeros(N_RESAMPLES)
    shares = np.zeros((N_RESAMPLES, len(of_site)), dtype=np.float32)
    for mask, sign in ((of_site, 1), (~of_site, -1)):
        size = int(mask.sum())
        shares[:, mask] = sign * rng.multinomial(size, np.full(size, 1 / size), size=N_RESAMPLES) / size
    shares -= signed_shares(of_site[None])
    step = max(1, 2**21 // max(len(column.groups) for column in columns))
    for column in columns:
        for start in range(0, N_RESAMPLES, step):
            part = slice(start, start + step)
            found[part] = np.maximum(found[part], _largest(column.differences(shares[part])))
    unseen = 1 - 0.05 ** (1 / min(of_site.sum(), (~of_site).sum()))
    return float(max(np.quantile(found, 0.95), unseen))
