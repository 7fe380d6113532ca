"""Shares of a distance between two samples: their intervals, and what re-weighting the reference explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.group_jackknife import class_jackknife
from medvlm_probe.shift.attribution_sums import Discrepancies, discrepancies, half_of, squared_mmd
from medvlm_probe.types import Estimate, FloatArray

ROUNDS = 12
STEP = 0.5
MIN_EFFECTIVE_SHARE = 0.2
"""A re-weighting that leaves the reference worth a smaller share of its patients is not considered."""

_LEAST_EXPONENT = -10.0


@dataclass(frozen=True)
class Kernels:
    """Kernel means between groups: of the reference and of the site without diagonals, and across, (G, H)."""

    reference: FloatArray
    site: FloatArray
    across: FloatArray


@dataclass(frozen=True)
class Splits:
    """Which groups choices are made on and measured on, 1 or 0: both halves of R splits in either part, M = 2 R.

    Attributes:
        a, b: groups of the reference (G, M) and of the site (H, M) that choices are made on.
        measured_a, measured_b: the other halves.
        inner_a, inner_b: a half of `a` and of `b`, for choices within choices.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    measured_a: NDArray[np.float64]
    measured_b: NDArray[np.float64]
    inner_a: NDArray[np.float64]
    inner_b: NDArray[np.float64]


def draw_splits(n_reference: int, n_site: int, n_splits: int, rng: np.random.Generator) -> Splits:
    """Return random splits of G and H groups into halves."""
    first_a, first_b = (half_of(np.ones((n, n_splits)), rng) for n in (n_reference, n_site))
    a, b = (np.concatenate([first, 1 - first], axis=1) for first in (first_a, first_b))
    return Splits(a, b, 1 - a, 1 - b, half_of(a, rng), half_of(b, rng))


@dataclass(frozen=True)
class Shares:
    """Makes estimates of discrepancies; a stratum each side.

    Attributes:
        n: images of both sides.
    """

    n: int

    def distance(self, found: Discrepancies) -> Estimate:
        """Return a squared MMD, the first column's."""
        without = np.concatenate([found.without_reference[:, 0], found.without_site[:, 0]])
        return self._estimate(float(found.value[0]), without, found, "squared MMD, group jackknife")

    def share(self, found: Discrepancies, plain: Discrepancies) -> Estimate:
        """Return 1 - the sum of `found` over that of `plain`, columns paired."""
        return self._ratio(plain, plain, found)

    def added(self, found: Discrepancies, other: Discrepancies, plain: Discrepancies) -> Estimate:
        """Return how much more `found` explains than `other`, as a share of `plain`."""
        return self._ratio(plain, other, found)

    def _ratio(self, plain: Discrepancies, more: Discrepancies, less: Discrepancies) -> Estimate:
        """Return (sum of `more` - sum of `less`) / sum of `plain`; with `more` = `plain` that is a share."""

        def ratio(p: FloatArray, m: FloatArray, f: FloatArray) -> FloatArray:
            return np.asarray((m.sum(axis=-1) - f.sum(axis=-1)) / p.sum(axis=-1))

        value = float(ratio(plain.value, more.value, less.value))
        without = np.concatenate(
            [
                ratio(plain.without_reference, more.without_reference, less.without_reference),
                ratio(plain.without_site, more.without_site, less.without_site),
            ]
        )
        return self._estimate(value, without, plain, "share of squared MMD, group jackknife")

    def _estimate(self, value: float, without: FloatArray, found: Discrepancies, method: str) -> Estimate:
        g, h = len(found.without_reference), len(found.without_site)
        return class_jackknife(value, without, np.arange(g + h) >= g, n=self.n, fewest=min(g, h), method=method)


def joined(found: Sequence[Discrepancies], columns: Sequence[int]) -> Discrepancies:
    """Return one column of each, in order."""
    pairs = list(zip(found, columns, strict=True))
    return Discrepancies(
        np.array([entry.value[j] for entry, j in pairs]),
        np.stack([entry.without_reference[:, j] for entry, j in pairs], axis=1),
        np.stack([entry.without_site[:, j] for entry, j in pairs], axis=1),
    )


def reweighted(kernels: Kernels, splits: Splits) -> tuple[Discrepancies, NDArray[np.float64]]:
    """Return the discrepancies left when the reference's patients are re-weighted to look like the site, (M,).

    Beside them stands what was left in the halves that the choices were made on, by which kernels can be chosen.

    The weights are exp of a function of the embedding, found on one half of the patients and applied to the other:
    kernel mean matching by exponentiated gradient, each step along the witness function between the site and the
    reference as weighted so far. How many steps are taken is chosen within that half, by finding the function on one
    half of it and trying it on the other; at most as many as leave the reference worth a fifth of its patients.

    Source: Gretton et al. 2009 (kernel mean matching); Kivinen and Warmuth 1997 (exponentiated gradient).
    """
    others_a, others_b = splits.a - splits.inner_a, splits.b - splits.inner_b
    trials = _left_along(kernels, _path(kernels, splits.inner_a, splits.inner_b), others_a, others_b)
    trials += _left_along(kernels, _path(kernels, others_a, others_b), splits.inner_a, splits.inner_b)
    steps = np.argmin(trials, axis=0)
    path = _path(kernels, splits.a, splits.b)
    exponent = np.take_along_axis(path, steps[None, None, :], axis=0)[0]
    weights = _weights(exponent, splits.measured_a)
    left = discrepancies(kernels.reference, kernels.site, kernels.across, weights, splits.measured_b)
    return left, trials.min(axis=0)


def _path(kernels: Kernels, a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Return the logarithms of all groups' weights after 0, 1, 2, ... steps towards the site, (1 + ROUNDS, G, M)."""
    to_site = kernels.across @ (b / b.sum(axis=0))
    path = np.zeros((ROUNDS + 1, *a.shape))
    spread: FloatArray | None = None
    for k in range(ROUNDS):
        weights = _weights(path[k], a)
        # A group is not its own neighbour, so those of the half itself are moved as those of the other half are.
        witness = to_site - kernels.reference @ weights / (weights.sum(axis=0) - weights)
        if spread is None:
            mean = (a * witness).sum(axis=0) / a.sum(axis=0)
            spread = np.sqrt((a * (witness - mean) ** 2).sum(axis=0) / a.sum(axis=0))
        path[k + 1] = path[k] + STEP * witness / spread
    return path


def _left_along(kernels: Kernels, path: NDArray[np.float64], a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Return the squared MMD of groups weighted by each step, (1 + ROUNDS, M); infinite where too few would count."""
    left = np.empty((len(path), a.shape[1]))
    for k, exponent in enumerate(path):
        weights = _weights(exponent, a)
        effective = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
        value = squared_mmd(kernels.reference, kernels.site, kernels.across, weights, b)
        left[k] = np.where(effective >= MIN_EFFECTIVE_SHARE * a.sum(axis=0), value, np.inf)
    return left


def _weights(exponent: FloatArray, taking_part: FloatArray) -> NDArray[np.float64]:
    """Return exp of the exponents over the largest, and 0 for groups that take no part, (G, M)."""
    top = np.where(taking_part > 0, exponent, -np.inf).max(axis=0)
    return np.asarray(taking_part * np.exp(np.clip(exponent - top, _LEAST_EXPONENT, 0)))
